"""What commands print: tables for people, JSON for programs."""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import click
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

_WIDTH_WITHOUT_TERMINAL = 200
_WIDE = 150
_WHOLE = {"id", "kid"}

json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")


def print_json(value: object) -> None:
    """Print one JSON value; times as RFC 3339 in UTC."""
    click.echo(json.dumps(value, indent=2, default=_plain))


def print_rows(
    rows: Sequence[Mapping[str, Any]],
    columns: Mapping[str, str],
    *,
    as_json: bool,
    narrow: Mapping[str, str] | None = None,
) -> None:
    """Print rows as a table, or as JSON with every field.

    Args:
        rows: what is printed.
        columns: heading by field.
        as_json: whether JSON is wanted.
        narrow: the columns on a terminal on which all of them have no room.
    """
    if as_json:
        print_json(list(rows))
        return
    console = _console()
    if narrow is not None and console.width < _WIDE:
        columns = narrow
    table = Table(box=box.SIMPLE_HEAD)
    for field, heading in columns.items():
        # People copy and compare ids: they are neither cut nor folded.
        table.add_column(heading, overflow="fold", no_wrap=field in _WHOLE)
    for row in rows:
        table.add_row(*(_cell(row[field]) for field in columns))
    console.print(table)


def print_record(record: Mapping[str, Any], *, as_json: bool) -> None:
    """Print one record, a line for each field, or as JSON."""
    if as_json:
        print_json(record)
        return
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for field, value in record.items():
        table.add_row(Text(field.replace("_", " "), style="bold"), _cell(value))
    _console().print(table)


def echo_status(sentence: str) -> None:
    """Tell a person what happened, on the error stream, where it does not mix with JSON."""
    click.echo(sentence, err=True)


def print_change(
    record: Mapping[str, Any],
    sentence: str,
    *,
    as_json: bool,
    show: Callable[[], None] | None = None,
) -> None:
    """After a change: the record as JSON, or one sentence and what else is to be shown."""
    if as_json:
        print_json(record)
        return
    click.echo(sentence)
    if show is not None:
        show()


def timestamp(at: datetime | None) -> str | None:
    """Return RFC 3339 in UTC, to the second."""
    if at is None:
        return None
    return at.astimezone(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def _plain(value: object) -> object:
    if isinstance(value, datetime):
        return timestamp(value)
    if isinstance(value, Iterable):
        return list(value)
    raise TypeError(f"{type(value).__name__} cannot be printed as JSON")


def _cell(value: object) -> Text:
    if value in (None, "", [], ()):
        return Text("-", style="dim")
    return Text(_in_text(value))


def _in_text(value: object) -> str:
    match value:
        case bool():
            return "yes" if value else "no"
        case [dict(), *_]:
            return "\n".join(_in_words(each) for each in value if isinstance(each, dict))
        case list() | tuple():
            return "\n".join(str(each) for each in value)
        case dict():
            return json.dumps(value, default=_plain)
    return str(value)


def _in_words(record: Mapping[str, Any]) -> str:
    told = ((field.replace("_", " "), value) for field, value in record.items())
    return ", ".join(
        field if value is True else f"{field} {value}"
        for field, value in told
        if value not in (None, "", False)
    )


def _console() -> Console:
    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = _WIDTH_WITHOUT_TERMINAL
    return console
