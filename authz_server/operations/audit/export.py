"""Write audit records as CSV or as JSON Lines."""

import csv
import json
import re
from collections.abc import Iterable, Iterator
from datetime import UTC
from io import StringIO
from typing import Literal

from authz_server.operations.audit.search import TrailRecord

ExportFormat = Literal["csv", "jsonl"]
COLUMNS = ("time", "event", "actor", "subject", "source", "detail")
#: The beginning of a formula, also where a spreadsheet separates cells by semicolons or tabs.
_FORMULA = re.compile(r"(^|[;\t\r\n])(\s*)(?=[=+\-@])")


def export_lines(records: Iterable[TrailRecord], form: ExportFormat) -> Iterator[str]:
    """Yield the lines of an export, with their ends.

    A cell of CSV that a spreadsheet would take for a formula begins with an apostrophe.

    Args:
        records: the records.
        form: ``csv`` (RFC 4180, with a heading) or ``jsonl`` (a JSON object a line).
    """
    if form == "jsonl":
        for record in records:
            yield f"{json.dumps(_members(record), ensure_ascii=True)}\n"
        return
    yield _row(COLUMNS)
    for record in records:
        members = _members(record)
        detail = json.dumps(members["detail"], ensure_ascii=True)
        yield _row([*(str(members[name]) for name in COLUMNS[:-1]), detail])


def _members(record: TrailRecord) -> dict[str, object]:
    at = record.at.astimezone(UTC).isoformat(timespec="milliseconds")
    return {
        "time": at.replace("+00:00", "Z"),
        "event": record.event,
        "actor": record.actor,
        "subject": record.subject,
        "source": record.source,
        "detail": dict(record.detail),
    }


def _row(cells: Iterable[str]) -> str:
    text = StringIO()
    csv.writer(text).writerow([harmless(each) for each in cells])
    return text.getvalue()


def harmless(cell: str) -> str:
    """Return the text of a cell of CSV in which a spreadsheet finds no formula.

    An apostrophe stands before what would be one.
    """
    return _FORMULA.sub(r"\1\2'", cell)
