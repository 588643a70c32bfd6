"""``config show`` and ``config example``: the settings in force, and all that there are."""

import click

from authz_server.cli.commands import Command
from authz_server.cli.invocation import Invocation, pass_invocation
from authz_server.cli.output import json_option, print_rows
from authz_server.operations.documents import find_documents
from authz_server.settings import describe_settings

_COLUMNS = {"key": "Key", "value": "Value", "default": "Default"}


@click.command(
    "show",
    cls=Command,
    here="it reads the settings file",
    example="authz-server config show --changed",
)
@click.option("--changed", is_flag=True, help="Show only what differs from the defaults.")
@json_option
@pass_invocation
def show(invocation: Invocation, changed: bool, as_json: bool) -> None:
    """Show every setting in force.

    Secrets are shown as set or not set.
    """
    rows = [
        {"key": view.key, "value": view.value, "default": view.is_default}
        for view in describe_settings(invocation.settings())
        if not (changed and view.is_default)
    ]
    print_rows(rows, _COLUMNS, as_json=as_json)


@click.command(
    "example",
    cls=Command,
    here="the example is that of the installed release",
    example="authz-server config example",
)
def example() -> None:
    """Print an example of the settings file.

    It has every setting, with its default and a description.
    """
    text = (find_documents() / "config.example.toml").read_text(encoding="utf-8")
    click.echo(text, nl=False)
