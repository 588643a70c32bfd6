"""``db``: the database's schema, its fitness, copying and purging it."""

from pathlib import Path

import click

from authz_server.audit.restored_database import require_not_restored
from authz_server.cli.commands import Command, Commands, add_all
from authz_server.cli.invocation import Invocation, pass_invocation
from authz_server.cli.output import echo_status, json_option, print_change, timestamp
from authz_server.cli.secret_files import require_new_file, write_private_file
from authz_server.database.checks import check_database
from authz_server.database.schema import (
    PREVIOUS_RELEASE,
    downgrade_database,
    opened_database,
    read_schema,
    upgrade_database,
)
from authz_server.database.sqlite import copy_sqlite


@click.command("upgrade", cls=Command)
@json_option
@pass_invocation
def upgrade(invocation: Invocation, as_json: bool) -> None:
    """Bring the database's schema up to this version; one that is up to date stays as it is."""
    database = invocation.settings().database
    before = read_schema(database, missing_file=True)
    upgrade_database(database)
    after = read_schema(database)
    changed = before.current != after.current
    record = {"before": before.current, "after": after.current, "changed": changed}
    sentence = (
        f"The schema is at {after.current}, from {before.current or 'nothing'}."
        if changed
        else f"The schema was up to date ({after.current})."
    )
    print_change(record, sentence, as_json=as_json)


@click.command("downgrade", cls=Command)
@click.option(
    "--to",
    "revision",
    default=PREVIOUS_RELEASE,
    show_default="the previous release's",
    help="The schema to go back to.",
)
@click.option("--yes", is_flag=True, help="Do not ask.")
@json_option
@pass_invocation
def downgrade(invocation: Invocation, revision: str, yes: bool, as_json: bool) -> None:
    """Take the schema back to that of the previous release, before you go back to it.

    Stop every server first, and back up: what only the newer schema holds is lost. Run this with
    the newer release, then install the older one.

    Example: authz-server db downgrade --yes
    """
    database = invocation.settings().database
    before = read_schema(database)
    if not yes:
        click.confirm(
            f"Take the schema from {before.current or 'nothing'} back to {revision}? What only the "
            "newer schema holds is lost, and no server may run.",
            abort=True,
            err=True,
        )
    downgrade_database(database, revision)
    record = {"before": before.current, "after": revision, "changed": True}
    print_change(record, f"The schema is at {revision}, from {before.current}.", as_json=as_json)


@click.command("check", cls=Command)
@json_option
@pass_invocation
def check(invocation: Invocation, as_json: bool) -> None:
    """Check that the database answers and that a server can use it.

    The schema has to be this version's, and the changes of the audit file have to be in the
    database: they are not after an older copy was restored. Beside PostgreSQL, sessions have to
    hold, which some poolers prevent, and commits have to be durable. Warnings go to standard error.
    """
    settings = invocation.settings()
    report = check_database(settings.database)
    state = report.schema
    if state.is_current:
        with opened_database(settings.database) as database, database.reading() as session:
            require_not_restored(session, settings.audit.destination)
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
        print_change(record, "", as_json=True)
    if report.problems:
        raise click.ClickException(" ".join(report.problems))
    if not as_json:
        click.echo(f"The database answers and its schema is up to date ({state.current}).")


@click.command("purge", cls=Command)
@json_option
@pass_invocation
def purge(invocation: Invocation, as_json: bool) -> None:
    """Delete what nothing can need any longer, in small batches.

    The running server does the same by itself; both may run at once, on several nodes.
    """
    with invocation.services() as services:
        purged = services.maintenance.purge.run()
    if not purged.trusted:
        echo_status(
            "Warning: the clock has leapt, so that nothing was deleted that ends after "
            f"{timestamp(purged.reached)}."
        )
    record = {"deleted_rows": purged.rows, "reached": timestamp(purged.reached)}
    print_change(record, f"{purged.rows} rows were deleted.", as_json=as_json)


@click.command("backup", cls=Command)
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
@pass_invocation
def backup(invocation: Invocation, file: Path) -> None:
    """Copy an SQLite database into a new FILE, while the server runs; pg_dump copies PostgreSQL.

    Nobody but you may read the file. Keep it apart from copies of secrets/: together they can sign
    tokens.
    """
    settings = invocation.settings().database
    if not settings.url.startswith("sqlite"):
        raise click.ClickException("The database is PostgreSQL: use pg_dump --format=custom.")
    require_new_file(file)
    write_private_file(file, b"")
    try:
        with opened_database(settings) as database:
            copy_sqlite(database.engine, file)
    except BaseException:
        file.unlink()
        raise
    click.echo(f"The database is copied to {file}.")


db = add_all(
    Commands("db", help="The database: its schema, its fitness, copying and purging it."),
    [upgrade, downgrade, check, backup, purge],
)
