"""``config``: check and show the settings."""

import click

from authz_server.app import require_usable
from authz_server.cli.commands import Command, Commands, add_all
from authz_server.cli.invocation import Invocation
from authz_server.cli.output import json_option, print_change, print_rows, say
from authz_server.cli.parties import pass_invocation
from authz_server.cli.settings_warnings import find_warnings
from authz_server.settings import describe_settings

_COLUMNS = {"key": "Key", "value": "Value", "default": "Default"}


@click.command("check", cls=Command)
@json_option
@pass_invocation
def check(invocation: Invocation, as_json: bool) -> None:
    """Say whether the settings can be used; if not, which key is wrong and why.

    Warnings about settings that can be used go to standard error.
    """
    settings = invocation.settings()
    require_usable(settings)
    warnings = find_warnings(settings)
    for warning in warnings:
        say(f"Warning: {warning}")
    record = {
        "file": str(invocation.config),
        "usable": True,
        "issuer": settings.issuer,
        "warnings": [warning.as_record() for warning in warnings],
    }
    print_change(
        record,
        f"{invocation.config} can be used. The issuer is {settings.issuer}.",
        as_json=as_json,
    )


@click.command("show", cls=Command)
@click.option("--changed", is_flag=True, help="Only what differs from the defaults.")
@json_option
@pass_invocation
def show(invocation: Invocation, changed: bool, as_json: bool) -> None:
    """Show every setting in force; secrets are shown as set or not set."""
    rows = [
        {"key": view.key, "value": view.value, "default": view.is_default}
        for view in describe_settings(invocation.settings())
        if not (changed and view.is_default)
    ]
    print_rows(rows, _COLUMNS, as_json=as_json)


config = add_all(Commands("config", help="The settings file: check it, show it."), [check, show])
