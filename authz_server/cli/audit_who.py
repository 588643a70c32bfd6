"""``audit who``: who could use a scope, and who did."""

from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import click

from authz_server.cli.audit_files import NO_FILE, files_option, require_files_here
from authz_server.cli.commands import Command
from authz_server.cli.invocation import Invocation, pass_invocation
from authz_server.cli.output import as_record, echo_lines, json_option, print_json
from authz_server.cli.plain_text import shown, timestamp
from authz_server.cli.values import PAST_INSTANT
from authz_server.operations.audit.who import WhoAnswer, find_who
from keys.plurals import counted


@click.command(
    "who",
    cls=Command,
    remote=True,
    example="authz-server audit who --scope disburse --at 2030-01-31T14:05:00Z",
)
@click.option("--scope", required=True, help="A scope, or all below: disburse/*.")
@click.option(
    "--at", type=PAST_INSTANT, required=True, help="The time, such as 14:05 (UTC) or -2h."
)
@files_option
@json_option
@pass_invocation
def who(
    invocation: Invocation, scope: str, at: datetime, files: tuple[Path, ...], as_json: bool
) -> None:
    """Show who could use a scope at a time, and who did.

    Who could: the clients that were permitted the scope, by the stored changes since then. Who did:
    the clients that had a token with it, by the records of issued tokens in the files.
    """
    require_files_here(invocation, files)
    with invocation.operations() as carry_out:
        found = carry_out(find_who, scope, at, files=files)
    if as_json:
        print_json(as_record(found))
        return
    echo_lines(_who_lines(found))


def _who_lines(found: WhoAnswer) -> Iterator[str]:
    yield shown(f"{', '.join(found.scopes)} at {timestamp(found.at)}")
    if not found.known:
        yield "NOTE the catalogue does not have this scope: see `authz-server scope list`."
    yield f"Clients that could: {len(found.could)}"
    for grant in found.could:
        since = f" since {timestamp(grant.granted_at)}" if grant.granted_at else ""
        by = f" by {grant.granted_by}" if grant.granted_by else ""
        yield shown(f"  {grant.client_id}: {', '.join(grant.scopes)}{since}{by}")
    for client_id in found.unknown:
        yield shown(f"  {client_id}: not known, since older records were purged")
    if not found.files:
        yield f"Clients that had a token: not known. {NO_FILE}"
        return
    yield f"Clients that had a token: {len(found.held)}"
    for each in found.held:
        revoked = f", {each.revoked} revoked" if each.revoked else ""
        yield shown(
            f"  {each.client_id}: {counted(each.tokens, 'token')}{revoked}, "
            f"{timestamp(each.first_issued_at)} to {timestamp(each.last_issued_at)}"
        )
    if not found.complete:
        yield "NOTE the files begin too late to have every token of that time."
