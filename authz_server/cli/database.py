"""``db``: the database's schema and what has to be swept from it."""

import click

from authz_server.cli.commands import Command, Commands, add_all
from authz_server.cli.invocation import Invocation
from authz_server.cli.output import json_option, print_change
from authz_server.cli.parties import pass_invocation
from authz_server.database.schema import read_schema, upgrade_database


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


@click.command("check", cls=Command)
@json_option
@pass_invocation
def check(invocation: Invocation, as_json: bool) -> None:
    """Say whether the database answers with the schema that this version needs."""
    state = read_schema(invocation.settings().database)
    record = {"current": state.current, "needed": state.head, "up_to_date": state.is_current}
    if as_json:
        print_change(record, "", as_json=True)
    if not state.is_current:
        raise click.ClickException(state.explain())
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
        deleted = services.maintenance.sweep()
    print_change({"deleted_rows": deleted}, f"{deleted} rows were deleted.", as_json=as_json)


db = add_all(
    Commands("db", help="The database: its schema, and sweeping it."), [upgrade, check, purge]
)
