"""Output of commands: tables for people, JSON for programs.

The library of the tables is imported when one is printed; it takes a twentieth of a second.
"""

import json
import re
import shutil
import sys
import textwrap
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, is_dataclass
from typing import Any

import click

from authz_server.cli.plain_text import plain_value

# The text of a line begins after its indentation, and after a first column if there is one.
_TEXT = re.compile(r"\s*(?:\S.{0,21}?\s{2,})?")

json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")


def print_json(value: object) -> None:
    """Print one JSON value; times as RFC 3339 in UTC."""
    click.echo(json.dumps(value, indent=2, default=plain_value))


def print_rows(
    rows: Sequence[Any],
    columns: Mapping[str, str],
    *,
    as_json: bool,
    narrow: Mapping[str, str] | None = None,
) -> None:
    """Print rows as a table, or as JSON with every field; without rows, a note to standard error.

    Args:
        rows: dataclasses or mappings, one for each row.
        columns: the headings by field.
        as_json: print JSON.
        narrow: the columns on a terminal that is too narrow for all of them.
    """
    records = list(map(as_record, rows))
    if as_json:
        print_json(records)
        return
    if not records:
        echo_status("There are none.")
        return
    from authz_server.cli.tables import print_table

    print_table(records, columns, narrow)


def print_record(struct: Any, *, as_json: bool) -> None:  # noqa: ANN401 - any dataclass
    """Print one dataclass or mapping, a line for each field, or as JSON."""
    record = as_record(struct)
    if as_json:
        print_json(record)
        return
    from authz_server.cli.tables import print_fields

    print_fields(record)


def as_record(struct: Any) -> Mapping[str, Any]:  # noqa: ANN401 - any dataclass
    """Return the fields of a dataclass by name; a mapping is returned unchanged."""
    if is_dataclass(struct) and not isinstance(struct, type):
        return asdict(struct)
    record: Mapping[str, Any] = struct
    return record


def echo_lines(lines: Iterable[str], *, err: bool = False) -> None:
    """Print lines; at a terminal, fold long ones below their text without splitting words."""
    stream = sys.stderr if err else sys.stdout
    width = shutil.get_terminal_size().columns if stream.isatty() else 0
    for line in lines:
        begin = _TEXT.match(line)
        indent = " " * min(begin.end() if begin else 0, width // 2)
        if width and len(line) > width:
            line = textwrap.fill(  # noqa: PLW2901 - folded on purpose
                line,
                width,
                subsequent_indent=indent,
                break_long_words=False,
                break_on_hyphens=False,
            )
        click.echo(line, err=err)


def echo_status(text: str) -> None:
    """Print sentences to standard error, so that standard output has only JSON."""
    echo_lines(text.split("\n"), err=True)


def print_change(
    record: Mapping[str, Any],
    sentence: str,
    *,
    as_json: bool,
    show: Callable[[], None] | None = None,
) -> None:
    """Print the result of a change: a record as JSON, or a sentence and the output of ``show``."""
    if as_json:
        print_json(record)
        return
    echo_lines([sentence])
    if show is not None:
        show()
