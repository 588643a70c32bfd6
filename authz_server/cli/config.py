"""``config``: check and show the settings."""

import click

from authz_server.cli.commands import Command, Commands, add_all
from authz_server.cli.invocation import Invocation, pass_invocation
from authz_server.cli.output import as_record, echo_status, json_option, print_json, print_rows
from authz_server.operations.documents import find_documents
from authz_server.operations.settings import check_settings
from authz_server.settings import describe_settings

_COLUMNS = {"key": "Key", "value": "Value", "default": "Default"}


@click.command(
    "check",
    cls=Command,
    here="it reads the settings file",
    example="authz-server config check --offline",
)
@click.option(
    "--offline",
    is_flag=True,
    help="Check the file and what it names on this machine, not database, keys and addresses.",
)
@json_option
@pass_invocation
def check(invocation: Invocation, offline: bool, as_json: bool) -> None:
    """Check whether a server can start under the settings.

    The database has to answer with this version's schema and keys that open, the addresses have to
    be this machine's, a Vault and a Redis have to answer, and the audit file has to be writable.
    Faults of one partner, which serve logs as warnings, are refused too. Nothing is changed.
    Warnings about usable settings, about names that nothing registered has, and about granted
    scopes that no resource server owns, go to standard error.
    """
    settings = invocation.settings()
    report = check_settings(settings, offline=offline)
    for warning in report.warnings:
        echo_status(f"Warning: {warning}")
    record = {
        "file": str(invocation.config),
        "usable": not report.problems,
        "issuer": settings.issuer,
        "problems": report.problems,
        "warnings": [as_record(warning) for warning in report.warnings],
    }
    if as_json:
        print_json(record)
    if report.problems:
        raise click.ClickException(
            f"{invocation.config} cannot be used. {' '.join(map(_sentence, report.problems))}"
        )
    if not as_json:
        click.echo(f"{invocation.config} can be used. The issuer is {settings.issuer}.")


def _sentence(problem: str) -> str:
    return problem if problem.endswith(".") else f"{problem}."


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

    It has every setting with its default and a sentence.
    """
    text = (find_documents() / "config.example.toml").read_text(encoding="utf-8")
    click.echo(text, nl=False)


config = add_all(Commands("config", help="Check and show the settings."), [check, show, example])
