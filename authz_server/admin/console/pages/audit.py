"""The screen *Audit*: who could do something at a moment, who did, and every record."""

import csv
from collections.abc import Iterator, Mapping
from io import StringIO
from typing import Any

import msgspec
from flask import Response

from authz_server.admin.console.rendering import as_utc, shorten
from authz_server.admin.console.views import SECURITY_HEADERS, View
from authz_server.admin.problems import Problem
from authz_server.operations.audit.export import harmless
from authz_server.operations.permissions import UNLIMITED

_PAGE, _PAGE_BESIDE = 30, 10
#: The clients of a part of the answer who could use a scope.
_CLIENTS = 30
_FACTS = 5
_FACT_CHARACTERS = 80
_EXPORT_PAGE = 500
#: The largest number of exported records; the command line has no limit.
MAXIMUM_EXPORTED = 20_000
FILTERS = ("client", "actor", "subject", "scope", "key", "ring", "jti", "action")
_TIMES = ("since", "until")
#: The members of a line that the columns show, or that verify it.
_OF_LINES = frozenset({"time", "event", "chain"})
_COLUMNS = ("id", "at", "action", "actor", "subject", "detail")


def show(view: View) -> Response:
    """Show the records that match, and the answer to the question about a moment."""
    filters = _filters(view)
    answer = _answer(view)
    # Beside an answer, fewer records.
    limit = _PAGE if answer is None else _PAGE_BESIDE
    page = view.desk.get(_path(view), **filters, cursor=view.arguments.get("cursor"), limit=limit)
    return view.page(
        "audit.html",
        records=[_shown(_normal(each)) for each in page["items"]],
        following=page["next"],
        filters={name: view.arguments.get(name, "") for name in (*FILTERS, *_TIMES, "of")},
        searched=page if "files" in page else None,
        may_search=_may_search(view),
        question={
            "who": view.arguments.get("who", ""),
            # Of a moment of today, the hour alone is left to enter.
            "moment": view.arguments.get("moment", "") or f"{view.now:%Y-%m-%dT%H:%M:00}",
        },
        answer=answer,
        scopes=[each["name"] for each in view.desk.every("/scopes", "scopes:read")],
        chain=view.desk.get("/audit/verify") if "verify" in view.arguments else None,
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
    return given | {name: as_utc(view.arguments.get(name, "")) for name in _TIMES}


def _may_search(view: View) -> bool:
    """Return whether the operator may read the files of records: they are of the whole server."""
    return view.desk.caller.limits_for("audit:read") == UNLIMITED


def _path(view: View) -> str:
    searches = view.arguments.get("of") == "all" and _may_search(view)
    return "/audit/search" if searches else "/audit"


def _normal(record: dict[str, Any]) -> dict[str, Any]:
    """Return a record of a file with the members of one of the list."""
    if "event" not in record:
        return record
    detail = {name: each for name, each in record["detail"].items() if name not in _OF_LINES}
    return {**record, "id": record["source"], "action": record["event"], "detail": detail}


def _every(view: View) -> Iterator[dict[str, Any]]:
    filters, path, cursor, sent = _filters(view), _path(view), None, 0
    while sent < MAXIMUM_EXPORTED:
        page = view.desk.get(path, **filters, cursor=cursor, limit=_EXPORT_PAGE)
        yield from map(_normal, page["items"])
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
        yield written([harmless(str(value)) for value in values])


def _as_lines(records: Iterator[dict[str, Any]]) -> Iterator[str]:
    for record in records:
        yield f"{_json(record)}\n"


def _json(value: object) -> str:
    return msgspec.json.encode(value).decode()


def _shown(record: Mapping[str, Any]) -> dict[str, Any]:
    """Return a record with the first of its details as text."""
    detail: dict[str, Any] = dict(record["detail"])
    diff = detail.pop("diff", None)
    if isinstance(diff, dict):
        detail |= {name: _change(each) for name, each in diff.items() if name not in detail}
    facts = [(name, _text(each)) for name, each in detail.items() if each]
    shown = [(name, shorten(text, _FACT_CHARACTERS)) for name, text in facts[:_FACTS]]
    return {**record, "facts": shown, "further": len(facts) - len(shown)}


def _change(change: object) -> object:
    if not isinstance(change, dict) or not change.keys() >= {"before", "after"}:
        return change
    before, after = (_text(change[name]) for name in ("before", "after"))
    return after if change["before"] is None else f"{before} → {after}"


def _text(value: object) -> str:
    return value if isinstance(value, str) else _json(value)


def _answer(view: View) -> Any:  # noqa: ANN401 - any JSON
    """Return who could use a scope at a moment, and who had a token with it."""
    scope, moment = view.arguments.get("who", "").strip(), view.arguments.get("moment", "")
    if not scope or not moment:
        return None
    part = view.arguments.get("part")
    return view.desk.get("/audit/who", scope=scope, at=as_utc(moment), limit=_CLIENTS, cursor=part)
