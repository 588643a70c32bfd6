"""``audit search`` and ``audit export``: find records."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar, get_args

import click

from authz_server.cli.audit_files import NO_FILE, files_option, require_files_here
from authz_server.cli.commands import Command
from authz_server.cli.invocation import Invocation, pass_invocation
from authz_server.cli.output import as_record, echo_status, json_option, print_json, print_rows
from authz_server.cli.plain_text import shown, timestamp
from authz_server.cli.values import PAST_INSTANT
from authz_server.operations.audit.export import ExportFormat, export_lines
from authz_server.operations.audit.search import iterate_records, search_trail
from authz_server.operations.private_files import write_private_file
from authz_server.operations.stored_records import RecordFilters
from keys.plurals import counted

F = TypeVar("F", bound=Callable[..., Any])

_COLUMNS = {"time": "Time", "event": "Event", "actor": "Actor", "subject": "Subject"}


def _filter_options(command: F) -> F:
    for option in reversed(
        (
            click.option("--client", help="A client that acted or was changed."),
            click.option("--by", "actor", help="Who acted, such as operator:ana via cli."),
            click.option(
                "--event", "action", help="The event, or all of a kind by a trailing dot: client."
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
@files_option
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
    require_files_here(invocation, files)
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
    where = "" if found.files else f" Changes only. {NO_FILE}"
    echo_status(f"{counted(len(rows), 'record')}.{more}{where}")


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
@files_option
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
    require_files_here(invocation, files)
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
