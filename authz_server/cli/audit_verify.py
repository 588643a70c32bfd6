"""``audit verify``: check that no record was changed or removed."""

from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import click

from authz_server.audit.block_check import BlockResult
from authz_server.audit.findings import Finding
from authz_server.audit.line_check import LineResult
from authz_server.cli.audit_files import FILE, NO_FILE, require_files_here
from authz_server.cli.commands import Command
from authz_server.cli.invocation import Invocation, pass_invocation
from authz_server.cli.output import as_record, json_option, print_json
from authz_server.cli.plain_text import shown, timestamp
from authz_server.operations.audit.verify import AuditVerification, verify_audit, verify_files
from keys.plurals import counted

NOT_INTACT = 1
#: The number of findings that are printed.
SHOWN = 20


@click.command("verify", cls=Command, remote=True, example="authz-server audit verify")
@click.argument("files", nargs=-1, type=FILE)
@click.option(
    "--jwks",
    type=FILE,
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
    require_files_here(invocation, files)
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


def _verify_lines(found: AuditVerification) -> Iterator[str]:
    if found.lines is None:
        yield NO_FILE
    else:
        yield from _file_lines(found.lines, len(found.files))
    if found.stored is not None:
        yield from _stored_lines(found.stored)
    if found.unknown_keys:
        unknown = counted(found.unknown_keys, "checkpoint has", "checkpoints have")
        yield f"NOTE {unknown} a key that is not known."
    for each in found.findings[:SHOWN]:
        yield _finding_line(each)
    if len(found.findings) > SHOWN:
        yield f"ALARM and {counted(len(found.findings) - SHOWN, 'more place')}"
    yield "The audit records are intact." if found.intact else "The audit records are NOT intact."


def _file_lines(lines: LineResult, files: int) -> Iterator[str]:
    yield (
        f"{counted(lines.records, 'record')} of "
        f"{counted(lines.writers, 'process', 'processes')} in {counted(files, 'file')}, "
        f"{_signed(lines.signed_until)}."
    )
    if lines.unsigned:
        yield f"NOTE {_records_are(lines.unsigned)} not covered by a checkpoint yet."
    if lines.unchained:
        yield f"NOTE {_records_are(lines.unchained)} from before the chain."
    if lines.unreadable:
        yield f"NOTE {counted(lines.unreadable, 'line')} cannot be read, as after a full disk."


def _records_are(number: int) -> str:
    return counted(number, "record is", "records are")


def _stored_lines(stored: BlockResult) -> Iterator[str]:
    yield (
        f"{counted(stored.records, 'stored record')} in {counted(stored.blocks, 'block')}, "
        f"{_signed(stored.signed_until)}."
    )
    if stored.swept:
        swept = counted(stored.swept, "record was", "records were")
        yield f"NOTE {swept} purged after audit.keep_days."
    if stored.unsealed:
        yield f"NOTE {_records_are(stored.unsealed)} not sealed yet."


def _signed(until: datetime | None) -> str:
    return "not signed" if until is None else f"signed until {timestamp(until)}"


def _finding_line(finding: Finding) -> str:
    return f"ALARM {finding.fault}: {finding.place}: {finding.detail}"
