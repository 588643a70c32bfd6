"""``docs``: where the documents are."""

import click

from authz_server.cli.commands import Command
from authz_server.operations.documents import find_documents


@click.command(
    "docs", cls=Command, here="it names a folder of the machine", example="authz-server docs"
)
def docs() -> None:
    """Print the folder with the documents.

    It has README.md, config.example.toml, the guides in docs/, and in deploy/ the systemd unit,
    alert rules and dashboard.
    """
    click.echo(find_documents())
