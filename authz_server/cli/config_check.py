"""``config check``: whether a server can start under the settings."""

import click

from authz_server.cli.commands import Command
from authz_server.cli.invocation import Invocation, pass_invocation
from authz_server.cli.output import as_record, echo_status, json_option, print_json
from authz_server.operations.settings import check_settings


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
