"""Output of commands: tables for people, JSON for programs."""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, is_dataclass
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
    rows: Sequence[Any],
    columns: Mapping[str, str],
    *,
    as_json: bool,
    narrow: Mapping[str, str] | None = None,
) -> None:
    """Print rows as a table, or as JSON with every field.

    Args:
        rows: dataclasses or mappings, one a row.
        columns: heading by field.
        as_json: whether to print JSON.
        narrow: the columns on a terminal that is too narrow for all of them.
    """
    records = list(map(as_record, rows))
    if as_json:
        print_json(records)
        return
    console = _console()
    if narrow is not None and console.width < _WIDE:
        columns = narrow
    table = Table(box=box.SIMPLE_HEAD)
    for field, heading in columns.items():
        # People copy and compare ids: they are neither cut nor folded.
        table.add_column(heading, overflow="fold", no_wrap=field in _WHOLE)
    for record in records:
        table.add_row(*(_cell(record[field]) for field in columns))
    console.print(table)


def print_record(struct: Any, *, as_json: bool) -> None:  # noqa: ANN401 - any dataclass
    """Print one dataclass or mapping, a line for each field, or as JSON."""
    record = as_record(struct)
    if as_json:
        print_json(record)
        return
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for field, value in record.items():
        table.add_row(Text(field.replace("_", " "), style="bold"), _cell(value))
    _console().print(table)


def as_record(struct: Any) -> Mapping[str, Any]:  # noqa: ANN401 - any dataclass
    """Return the fields of a dataclass by name; a mapping as it is."""
    if is_dataclass(struct) and not isinstance(struct, type):
        return asdict(struct)
    record: Mapping[str, Any] = struct
    return record


def echo_status(sentence: str) -> None:
    """Print a sentence to standard error; standard output is for JSON."""
    click.echo(sentence, err=True)


def print_change(
    record: Mapping[str, Any],
    sentence: str,
    *,
    as_json: bool,
    show: Callable[[], None] | None = None,
) -> None:
    """Print the result of a change: the record as JSON, or a sentence and what ``show`` prints."""
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
        case datetime():
            return str(timestamp(value))
        case [dict(), *_]:
            return "\n".join(_in_words(each) for each in value if isinstance(each, dict))
        case list() | tuple():
            return "\n".join(str(each) for each in value)
        case dict():
            return json.dumps(value, default=_plain)
    return str(value)


def _in_words(record: Mapping[str, Any]) -> str:
    named = ((field.replace("_", " "), value) for field, value in record.items())
    return ", ".join(
        field if value is True else f"{field} {_in_text(value)}"
        for field, value in named
        if value not in (None, "", False)
    )


def _console() -> Console:
    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = _WIDTH_WITHOUT_TERMINAL
    return console
