"""``audit``: search, export and verify the audit records."""

import sys
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any, TypeVar, get_args

import click

from authz_server.audit.block_check import BlockResult
from authz_server.audit.findings import Finding
from authz_server.audit.line_check import LineResult
from authz_server.cli.commands import Command, Commands, add_all
from authz_server.cli.invocation import Invocation, pass_invocation
from authz_server.cli.output import (
    as_record,
    echo_lines,
    echo_status,
    json_option,
    print_json,
    print_rows,
    timestamp,
)
from authz_server.cli.values import PAST_INSTANT, shown
from authz_server.operations.audit.export import ExportFormat, export_lines
from authz_server.operations.audit.search import iterate_records, search_trail
from authz_server.operations.audit.verify import AuditVerification, verify_audit, verify_files
from authz_server.operations.audit.who import WhoAnswer, find_who
from authz_server.operations.private_files import write_private_file
from authz_server.operations.stored_records import RecordFilters

F = TypeVar("F", bound=Callable[..., Any])

NOT_INTACT = 1
#: The number of findings that are printed.
SHOWN = 20
_FILE = click.Path(exists=True, dir_okay=False, readable=True, path_type=Path)
_COLUMNS = {"time": "Time", "event": "Event", "actor": "Actor", "subject": "Subject"}

_files = click.option(
    "--file",
    "files",
    type=_FILE,
    multiple=True,
    show_default="that of the settings, with the rotated ones",
    help="A file of audit records, the oldest first. Repeatable.",
)


def _filter_options(command: F) -> F:
    for option in reversed(
        (
            click.option("--client", help="A client that acted or was changed."),
            click.option("--by", "actor", help="Who acted, such as operator:ana via cli."),
            click.option(
                "--event", "action", help="The event; a trailing dot stands for all, as client."
            ),
            click.option("--subject", help="The id of what was changed."),
            click.option("--scope", help="A scope in any spelling, or all below: disburse/*."),
            click.option("--key", help="The id of a key, or a ring."),
            click.option("--ring", help="The name of a ring, with its keys."),
            click.option("--jti", help="The id of a token."),
            click.option(
                "--since", type=PAST_INSTANT, help="The time of the first record, such as -2h."
            ),
            click.option("--until", type=PAST_INSTANT, help="The time after the last record."),
        )
    ):
        command = option(command)
    return command


@click.command(
    "search", cls=Command, remote=True, example="authz-server audit search --client erp --since -2d"
)
@_filter_options
@click.option(
    "--limit",
    type=click.IntRange(1, 10_000),
    default=50,
    show_default=True,
    help="The largest number of records.",
)
@_files
@json_option
@pass_invocation
def search(
    invocation: Invocation,
    /,
    files: tuple[Path, ...],
    limit: int,
    as_json: bool,
    **filters: Any,  # noqa: ANN401 - the fields of RecordFilters
) -> None:
    """Search the records of changes, tokens and refusals.

    The newest come first. Changes are those in the database; tokens and refusals are those in the
    files of the settings, with the files that they were rotated to.
    """
    _require_files_here(invocation, files)
    with invocation.operations() as carry_out:
        found = carry_out(search_trail, RecordFilters(**filters), files=files, limit=limit)
    if as_json:
        print_json(as_record(found))
        return
    rows = [
        {
            "time": timestamp(each.at),
            "event": each.event,
            "actor": shown(each.actor),
            "subject": shown(each.subject),
        }
        for each in found.records
    ]
    if rows:
        print_rows(rows, _COLUMNS, as_json=False)
    more = " There are older ones: use --until or --limit." if found.more else ""
    where = "" if found.files else " There is no file of audit records: changes only."
    echo_status(f"{len(rows)} records.{more}{where}")


@click.command(
    "export",
    cls=Command,
    remote=True,
    example="authz-server audit export --since -30d --output records.csv",
)
@_filter_options
@click.option(
    "--format",
    "form",
    type=click.Choice(get_args(ExportFormat)),
    default="csv",
    show_default=True,
    help="CSV, or a JSON object on each line.",
)
@click.option(
    "--output",
    type=click.Path(dir_okay=False, path_type=Path),
    show_default="standard output",
    help="A new file, which only you can read.",
)
@_files
@pass_invocation
def export(
    invocation: Invocation,
    /,
    files: tuple[Path, ...],
    form: ExportFormat,
    output: Path | None,
    **filters: Any,  # noqa: ANN401 - the fields of RecordFilters
) -> None:
    """Write the records of a search as CSV or JSON Lines.

    All that match are written, the newest first. A cell of CSV that a spreadsheet would take for a
    formula begins with an apostrophe.
    """
    _require_files_here(invocation, files)
    with invocation.operations() as carry_out:
        records = carry_out(iterate_records, RecordFilters(**filters), files=files)
        lines = export_lines(records, form)
        if output is None:
            for line in lines:
                sys.stdout.write(line)
            return
        write_private_file(output, b"")
        with output.open("a", newline="") as file:
            file.writelines(lines)
    click.echo(f"The records are written to {output}.")


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
@_files
@json_option
@pass_invocation
def who(
    invocation: Invocation, scope: str, at: datetime, files: tuple[Path, ...], as_json: bool
) -> None:
    """Show who could use a scope at a time, and who did.

    Who could: the clients that were permitted the scope, by the stored changes since then. Who did:
    the clients that had a token with it, by the records of issued tokens in the files.
    """
    _require_files_here(invocation, files)
    with invocation.operations() as carry_out:
        found = carry_out(find_who, scope, at, files=files)
    if as_json:
        print_json(as_record(found))
        return
    echo_lines(_who_lines(found))


@click.command("verify", cls=Command, remote=True, example="authz-server audit verify")
@click.argument("files", nargs=-1, type=_FILE)
@click.option(
    "--jwks",
    type=_FILE,
    multiple=True,
    help="Verify FILES alone, with the keys of this JWK set and without the database. Repeatable.",
)
@json_option
@pass_invocation
def verify(
    invocation: Invocation, files: tuple[Path, ...], jwks: tuple[Path, ...], as_json: bool
) -> None:
    """Verify that no audit record was changed or removed.

    The chains of the stored records and of the FILES are followed, and the signatures of their
    checkpoints verified. The first place that was changed, removed, reordered or cut off is named,
    and the exit status is 1. Without FILES, those of the settings are read, the rotated ones first.
    """
    _require_files_here(invocation, files)
    if jwks:
        if not files:
            raise click.UsageError("Name the FILES to verify with --jwks.")
        found = verify_files(files, jwks)
    else:
        with invocation.operations() as carry_out:
            found = carry_out(verify_audit, files)
    if as_json:
        print_json(as_record(found))
    else:
        for line in _verify_lines(found):
            click.echo(shown(line))
    click.get_current_context().exit(0 if found.intact else NOT_INTACT)


def _require_files_here(invocation: Invocation, files: tuple[Path, ...]) -> None:
    if files:
        invocation.require_here("Files of records")


def _verify_lines(found: AuditVerification) -> Iterator[str]:
    if found.lines is None:
        yield "There is no file of audit records here."
    else:
        yield from _file_lines(found.lines, len(found.files))
    if found.stored is not None:
        yield from _stored_lines(found.stored)
    if found.unknown_keys:
        yield f"NOTE {found.unknown_keys} checkpoints have a key that is not known."
    for each in found.findings[:SHOWN]:
        yield _finding_line(each)
    if len(found.findings) > SHOWN:
        yield f"ALARM and {len(found.findings) - SHOWN} more places"
    yield "The audit records are intact." if found.intact else "The audit records are NOT intact."


def _file_lines(lines: LineResult, files: int) -> Iterator[str]:
    yield (
        f"{lines.records} records of {lines.writers} processes in {files} files, "
        f"{_signed(lines.signed_until)}."
    )
    if lines.unsigned:
        yield f"NOTE {lines.unsigned} records are not covered by a checkpoint yet."
    if lines.unchained:
        yield f"NOTE {lines.unchained} records are from before the chain."
    if lines.unreadable:
        yield f"NOTE {lines.unreadable} lines cannot be read, as after a full disk."


def _stored_lines(stored: BlockResult) -> Iterator[str]:
    yield (
        f"{stored.records} stored records in {stored.blocks} blocks, "
        f"{_signed(stored.signed_until)}."
    )
    if stored.swept:
        yield f"NOTE {stored.swept} records were purged after audit.keep_days."
    if stored.unsealed:
        yield f"NOTE {stored.unsealed} records are not sealed yet."


def _signed(until: datetime | None) -> str:
    return "not signed" if until is None else f"signed until {timestamp(until)}"


def _finding_line(finding: Finding) -> str:
    return f"ALARM {finding.fault}: {finding.place}: {finding.detail}"


def _who_lines(found: WhoAnswer) -> Iterator[str]:
    yield f"{', '.join(found.scopes)} at {timestamp(found.at)}"
    yield f"Could: {len(found.could)} clients"
    for grant in found.could:
        since = f" since {timestamp(grant.granted_at)}" if grant.granted_at else ""
        by = f" by {grant.granted_by}" if grant.granted_by else ""
        yield shown(f"  {grant.client_id}: {', '.join(grant.scopes)}{since}{by}")
    for client_id in found.unknown:
        yield shown(f"  {client_id}: not known, since older records were purged")
    if not found.files:
        yield "Did: not known. There is no file of audit records here."
        return
    yield f"Had a token: {len(found.held)} clients"
    for each in found.held:
        revoked = f", {each.revoked} revoked" if each.revoked else ""
        yield shown(
            f"  {each.client_id}: {each.tokens} tokens{revoked}, "
            f"{timestamp(each.first_issued_at)} to {timestamp(each.last_issued_at)}"
        )
    if not found.complete:
        yield "NOTE the files begin too late to have every token of that time."


audit = add_all(
    Commands("audit", help="Search, export and verify the audit records."),
    [search, export, who, verify],
)
