"""``db``: upgrade, check, copy and purge the database."""

from pathlib import Path

import click

from authz_server.cli.commands import Command, Commands, add_all
from authz_server.cli.invocation import Invocation, pass_invocation
from authz_server.cli.output import as_record, echo_status, json_option, print_change, print_json
from authz_server.cli.plain_text import timestamp
from authz_server.cli.secret_files import require_new_file
from authz_server.database.schema import PREVIOUS_RELEASE, require_later
from authz_server.operations import database
from authz_server.operations.private_files import write_private_file
from authz_server.settings import STREAMS
from keys.plurals import counted


@click.command(
    "upgrade",
    cls=Command,
    here="it works on the database itself",
    example="authz-server db upgrade",
)
@json_option
@pass_invocation
def upgrade(invocation: Invocation, as_json: bool) -> None:
    """Upgrade the database's schema to this version.

    A schema that is up to date stays as it is.
    """
    change = database.upgrade(invocation.settings().database)
    sentence = (
        f"The schema is at {change.after}, from {change.before or 'nothing'}."
        if change.changed
        else f"The schema was up to date ({change.after})."
    )
    print_change(as_record(change), sentence, as_json=as_json)


@click.command(
    "downgrade",
    cls=Command,
    here="it works on the database itself",
    example="authz-server db downgrade --yes",
)
@click.option(
    "--to",
    "revision",
    default=PREVIOUS_RELEASE,
    show_default="the previous release's",
    help="The schema revision to go back to.",
)
@click.option("--yes", is_flag=True, help="Do not ask.")
@json_option
@pass_invocation
def downgrade(invocation: Invocation, revision: str, yes: bool, as_json: bool) -> None:
    """Downgrade the schema to that of the previous release.

    Stop every server first, and back up: what only the newer schema holds is lost. Run this with
    the newer release, then install the older one.
    """
    settings = invocation.settings().database
    current = require_later(settings, revision)
    if not yes:
        click.confirm(
            f"Take the schema from {current} back to {revision}? What only the newer "
            "schema holds is lost, and no server may run.",
            abort=True,
            err=True,
        )
    change = database.downgrade(settings, revision)
    sentence = f"The schema is at {change.after}, from {change.before}."
    print_change(as_record(change), sentence, as_json=as_json)


@click.command(
    "check", cls=Command, here="it works on the database itself", example="authz-server db check"
)
@json_option
@pass_invocation
def check(invocation: Invocation, as_json: bool) -> None:
    """Check that a server can use the database.

    The schema has to be this version's. The changes of the audit file, and the latest change that
    was kept, have to be in the database: they are not after an older copy was restored. Beside
    PostgreSQL, sessions have to hold, which some poolers prevent, and commits have to be durable.
    The disk has to have room for a change. Warnings go to standard error.
    """
    settings = invocation.settings()
    report = database.check(settings)
    state = report.schema
    for warning in report.warnings:
        echo_status(f"Warning: {warning}")
    record = {
        "current": state.current,
        "needed": state.head,
        "up_to_date": state.is_current,
        "problems": report.problems,
        "warnings": report.warnings,
    }
    if as_json:
        print_json(record)
    if report.problems:
        raise click.ClickException(" ".join(report.problems))
    if not as_json:
        click.echo(f"The database answers and its schema is up to date ({state.current}).")
        audit = settings.audit
        if audit.destination in STREAMS and not audit.latest_change_file:
            echo_status(
                f"Audit records go to {audit.destination}, and no audit.latest_change_file is kept:"
                " that an older copy of the database was restored is noticed only by servers that "
                "ran meanwhile."
            )


@click.command(
    "purge", cls=Command, here="it works on the database itself", example="authz-server db purge"
)
@json_option
@pass_invocation
def purge(invocation: Invocation, as_json: bool) -> None:
    """Delete expired rows, in small batches.

    With audit.keep_days, older audit records in the database go too. The running server does the
    same by itself; both may run at once, on several nodes.
    """
    with invocation.services() as services:
        purged = database.purge(services)
    if not purged.trusted:
        echo_status(
            "Warning: the clock has leapt: rows were kept that end after "
            f"{timestamp(purged.reached)}."
        )
    record = {"deleted_rows": purged.rows, "reached": timestamp(purged.reached)}
    rows = counted(purged.rows, "row was", "rows were")
    print_change(record, f"{rows} deleted.", as_json=as_json)


@click.command(
    "backup",
    cls=Command,
    here="it works on the database itself",
    example="authz-server db backup copy.db",
)
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
@pass_invocation
def backup(invocation: Invocation, file: Path) -> None:
    """Copy an SQLite database into a new FILE.

    The server may run meanwhile. Only you can read the file. Keep it apart from copies of secrets/:
    together they can sign tokens. For PostgreSQL, use pg_dump.
    """
    settings = invocation.settings().database
    database.require_sqlite(settings)
    require_new_file(file)
    write_private_file(file, b"")
    try:
        database.copy(settings, file)
    except BaseException:
        file.unlink()
        raise
    click.echo(f"The database is copied to {file}.")


db = add_all(
    Commands("db", help="Upgrade, check, copy and purge the database."),
    [upgrade, downgrade, check, backup, purge],
)
