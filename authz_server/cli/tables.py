"""Prints tables for a terminal: records under headings, and the fields of one record."""

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from rich import box
from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

from authz_server.cli.plain_text import plain_value, timestamp

_WIDTH_WITHOUT_TERMINAL = 200
_WIDE = 150
#: A column of text is not narrower than this, unless all of its texts are.
_LEAST_WIDTH = 10
#: Columns that are neither cut nor folded, because people copy and compare ids, events and times.
_WHOLE = frozenset({"event", "id", "jti", "kid", "subject", "time"})
#: What separates two columns.
_GAP = 3


def print_table(
    records: Sequence[Mapping[str, Any]],
    columns: Mapping[str, str],
    narrow: Mapping[str, str] | None = None,
) -> None:
    """Print records under headings; on a narrower terminal, the fields of each record in lines.

    Args:
        records: the rows.
        columns: the headings by field.
        narrow: the columns on a terminal that is too narrow for all of them.
    """
    console = _console()
    if narrow is not None and console.width < _WIDE:
        columns = narrow
    widths = _find_widths(records, columns, console.width)
    if not widths:
        for number, record in enumerate(records):
            if number:
                console.print()
            print_fields({heading: record[field] for field, heading in columns.items()})
        return
    table = Table(box=box.SIMPLE_HEAD)
    for field, heading in columns.items():
        table.add_column(heading, overflow="fold", width=widths[field])
    for record in records:
        table.add_row(*(_cell(record[field]) for field in columns))
    console.print(table)


def _is_whole(field: str, records: Sequence[Mapping[str, Any]]) -> bool:
    """Return whether a column is not folded: ids, times, and lists, such as of scopes."""
    named = field in _WHOLE or field.endswith(("_id", "_at"))
    return named or any(isinstance(record[field], list | tuple) for record in records)


def _find_widths(
    records: Sequence[Mapping[str, Any]], columns: Mapping[str, str], room: int
) -> dict[str, int]:
    """Return the width of each column: no id and no word of a heading is broken.

    Empty if there is too little room.
    """
    widths, words, lines = {}, {}, {}
    for field, heading in columns.items():
        texts = [line for record in records for line in _in_text(record[field]).split("\n")]
        longest = max(map(cell_len, texts), default=0)
        heading_word = max(map(cell_len, heading.split(" ")))
        whole = longest if _is_whole(field, records) else min(longest, _LEAST_WIDTH)
        widths[field] = max(whole, heading_word)
        words[field] = max(
            heading_word, *(cell_len(word) for text in texts for word in text.split(" "))
        )
        lines[field] = max(longest, cell_len(heading))
    left = room - _GAP - sum(width + _GAP for width in widths.values())
    if left < 0:
        return {}
    # First, words are not cut; then, texts are not folded.
    for wanted in (words, lines):
        left = _widen(widths, wanted, left)
    return widths


def _widen(widths: dict[str, int], wanted: Mapping[str, int], left: int) -> int:
    """Give characters to the columns that want more, in turn; return how many are left."""
    while left and (growing := [field for field in widths if widths[field] < wanted[field]]):
        for field in growing[:left]:
            widths[field] += 1
        left -= len(growing[:left])
    return left


def print_fields(record: Mapping[str, Any]) -> None:
    """Print one record, a line for each field."""
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for field, value in record.items():
        table.add_row(Text(field.replace("_", " "), style="bold"), _cell(value))
    _console().print(table)


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
            return json.dumps(value, default=plain_value)
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
