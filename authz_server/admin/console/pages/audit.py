"""The screen *Audit*: who could do something at a moment, who did, and every record."""

import csv
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from io import StringIO
from typing import Any

import msgspec
from flask import Response

from authz_server.admin.console.desk import RefusedError
from authz_server.admin.console.views import SECURITY_HEADERS, View
from authz_server.admin.problems import Problem

_PAGE = 50
_EXPORT_PAGE = 500
#: The largest number of exported records; the command line has no limit.
MAXIMUM_EXPORTED = 20_000
_AROUND = timedelta(minutes=5)
_SHOWN = 100
FILTERS = ("client", "actor", "subject", "scope", "key", "action")
_TIMES = ("since", "until")
_COLUMNS = ("at", "event", "actor", "subject", "detail", "source")
#: A spreadsheet would run a cell that begins with one of them.
_FORMULAS = ("=", "+", "-", "@", "\t", "\r")


def show(view: View) -> Response:
    """Show the records that match, and the answer to the question about a moment."""
    filters = _filters(view)
    page = view.desk.get("/trail", **filters, cursor=view.arguments.get("cursor"), limit=_PAGE)
    return view.page(
        "audit.html",
        records=[_shown(each) for each in page["items"]],
        following=page["next"],
        filters={name: view.arguments.get(name, "") for name in (*FILTERS, *_TIMES)},
        question={name: view.arguments.get(name, "") for name in ("who", "moment")},
        answer=_answer(view),
        scopes=[each["name"] for each in view.desk.every("/scopes", "scopes:read")],
        chain=view.desk.get("/audit/verification") if "verify" in view.arguments else None,
    )


def export(view: View) -> Response:
    """Send the records that match, as CSV or as JSON Lines."""
    form = view.arguments.get("format", "")
    writers = {
        "csv": (_as_csv, "text/csv; charset=utf-8"),
        "jsonl": (_as_lines, "application/x-ndjson"),
    }
    if form not in writers:
        raise Problem("not-found")
    write, content_type = writers[form]
    answer = Response("".join(write(_every(view))), content_type=content_type)
    answer.headers.update(SECURITY_HEADERS)
    name = f"audit-{view.now:%Y%m%dT%H%M%SZ}.{form}"
    answer.headers["Content-Disposition"] = f'attachment; filename="{name}"'
    return answer


def _filters(view: View) -> dict[str, str]:
    given = {name: view.arguments.get(name, "").strip() for name in FILTERS}
    return given | {name: _as_utc(view.arguments.get(name, "")) for name in _TIMES}


def _as_utc(text: str) -> str:
    """Return a time as entered, without a zone or with one, as the API reads it."""
    return f"{text}Z" if text and text[-1:].isdigit() and "+" not in text else text


def _every(view: View) -> Iterator[dict[str, Any]]:
    filters, cursor, sent = _filters(view), None, 0
    while sent < MAXIMUM_EXPORTED:
        page = view.desk.get("/trail", **filters, cursor=cursor, limit=_EXPORT_PAGE)
        yield from page["items"]
        sent += len(page["items"])
        cursor = page["next"]
        if cursor is None:
            return


def _as_csv(records: Iterator[dict[str, Any]]) -> Iterator[str]:
    row = StringIO()
    writer = csv.writer(row, lineterminator="\r\n")

    def written(cells: list[str]) -> str:
        row.seek(0)
        row.truncate()
        writer.writerow(cells)
        return row.getvalue()

    yield written(list(_COLUMNS))
    for record in records:
        values = ({**record, "detail": _json(record["detail"])}[name] for name in _COLUMNS)
        yield written([_harmless(str(value)) for value in values])


def _as_lines(records: Iterator[dict[str, Any]]) -> Iterator[str]:
    for record in records:
        yield f"{_json(record)}\n"


def _harmless(text: str) -> str:
    return f"'{text}" if text.startswith(_FORMULAS) else text


def _json(value: object) -> str:
    return msgspec.json.encode(value).decode()


def _shown(record: Mapping[str, Any]) -> dict[str, Any]:
    """Return a record with the details that its other columns do not have."""
    known = {"time", "event", "chain", "actor", "client_id", "subject", "action"}
    detail = {name: each for name, each in record["detail"].items() if name not in known}
    return {**record, "facts": [(name, _text(each)) for name, each in detail.items() if each]}


def _text(value: object) -> str:
    return value if isinstance(value, str) else _json(value)


def _answer(view: View) -> dict[str, Any] | None:
    """Return who could use a scope, and who was issued a token with it around a moment."""
    scope, text = view.arguments.get("who", "").strip(), view.arguments.get("moment", "")
    if not scope or not text:
        return None
    try:
        moment = datetime.fromisoformat(text).replace(tzinfo=UTC)
    except ValueError:
        raise Problem("invalid-value", "moment: use a date and a time.") from None
    try:
        could = view.desk.find("/clients", "clients:read", scope=scope, limit=_SHOWN)
    except RefusedError as refusal:
        raise Problem("invalid-value", str(refusal.answer.body.get("detail", ""))) from None
    around = {"since": _stamp(moment - _AROUND), "until": _stamp(moment + _AROUND)}
    did = view.desk.get("/trail", scope=scope, action="token.issued", limit=_SHOWN, **around)
    since = view.desk.get(
        "/trail", scope=scope, action="client.", since=_stamp(moment), limit=_SHOWN
    )
    return {
        "scope": scope,
        "moment": moment,
        "could": could["items"] if could else [],
        "more": bool(could and could["next"]),
        "did": did["items"],
        "changed": since["items"],
    }


def _stamp(at: datetime) -> str:
    return f"{at:%Y-%m-%dT%H:%M:%SZ}"
