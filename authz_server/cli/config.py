"""``config``: check and show the settings."""

import click

from authz_server.cli.commands import Command, Commands, add_all
from authz_server.cli.invocation import Invocation, pass_invocation
from authz_server.cli.output import echo_status, json_option, print_json, print_rows
from authz_server.cli.settings_warnings import SettingsWarning, find_warnings
from authz_server.database.schema import opened_database
from authz_server.operations.preflight import find_problems
from authz_server.operations.unowned_scopes import find_unowned_scopes
from authz_server.settings import Settings, describe_settings

_NAMED_SCOPES = 10
_COLUMNS = {"key": "Key", "value": "Value", "default": "Default"}


@click.command("check", cls=Command)
@click.option(
    "--offline",
    is_flag=True,
    help="Check the file and what it names on this machine, not database, keys and addresses.",
)
@json_option
@pass_invocation
def check(invocation: Invocation, offline: bool, as_json: bool) -> None:
    """Check whether a server can start under the settings; if not, say what keeps it from that.

    The database has to answer with this version's schema and keys that open, the addresses have to
    be this machine's, the audit file has to be writable. Nothing is changed. Warnings about
    settings that can be used, and about grants that no resource server answers for, go to standard
    error.
    """
    settings = invocation.settings()
    problems = find_problems(settings, offline=offline)
    warnings = [*find_warnings(settings)]
    if not offline and not problems:
        warnings += _look_at_scopes(settings)
    for warning in warnings:
        echo_status(f"Warning: {warning}")
    record = {
        "file": str(invocation.config),
        "usable": not problems,
        "issuer": settings.issuer,
        "problems": problems,
        "warnings": [warning.as_record() for warning in warnings],
    }
    if as_json:
        print_json(record)
    if problems:
        raise click.ClickException(
            f"{invocation.config} cannot be used. {' '.join(map(_sentence, problems))}"
        )
    if not as_json:
        click.echo(f"{invocation.config} can be used. The issuer is {settings.issuer}.")


def _look_at_scopes(settings: Settings) -> list[SettingsWarning]:
    with opened_database(settings.database) as database, database.reading() as session:
        unowned = find_unowned_scopes(session)
    if not unowned:
        return []
    named = ", ".join(unowned[:_NAMED_SCOPES])
    named += f" and {len(unowned) - _NAMED_SCOPES} more" if len(unowned) > _NAMED_SCOPES else ""
    problem = f"Clients were granted {named}, which no resource server owns: requests are refused."
    return [SettingsWarning("scopes", problem, "`authz-server scope assign` gives them one.")]


def _sentence(problem: str) -> str:
    return problem if problem.endswith(".") else f"{problem}."


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
