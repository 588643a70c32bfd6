"""``export``: write what is registered to a declarative file."""

from pathlib import Path
from typing import Literal

import click

from authz_server.cli.commands import Command
from authz_server.cli.invocation import Invocation, pass_invocation
from authz_server.cli.output import echo_status
from authz_server.operations.declarative.export import export_declaration

#: Writes a text to a file, or prints it.
output_option = click.option(
    "--output",
    type=click.Path(dir_okay=False, path_type=Path),
    show_default="standard output",
    help="The file to write; an existing one is replaced.",
)
format_option = click.option(
    "--format",
    "form",
    type=click.Choice(["toml", "json"]),
    default="toml",
    show_default=True,
    help="The format of the file.",
)


@click.command(
    "export", cls=Command, remote=True, example="authz-server export --output registrations.toml"
)
@format_option
@output_option
@click.option("--operators", is_flag=True, help="Include the operators, with their roles.")
@pass_invocation
def export(
    invocation: Invocation, form: Literal["toml", "json"], output: Path | None, operators: bool
) -> None:
    """Write what is registered to a file.

    The file has scopes, resource servers, clients, programmes, and operators on request, without
    secrets. It is ordered and commented for review in git, and `authz-server apply` reads it.
    Dynamically registered clients and the admin API are left out.
    """
    with invocation.operations() as carry_out:
        text = carry_out(export_declaration, form=form, operators=operators)
    write_text(text, output)


def write_text(text: str, output: Path | None) -> None:
    """Write a text to a file, or print it."""
    if output is None:
        click.echo(text, nl=False)
        return
    output.write_text(text, encoding="utf-8")
    echo_status(f"{output} is written.")
