"""The requests for audit records and reports."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields, replace
from datetime import datetime
from pathlib import Path
from typing import Any

from authz_server.cli.remote.api import PAGE, AdminApi, convert
from authz_server.cli.remote.table import carries_out
from authz_server.errors import InvalidChangeError
from authz_server.operations.audit.search import (
    TrailRecord,
    TrailSearch,
    iterate_records,
    search_trail,
)
from authz_server.operations.audit.verify import AuditVerification, verify_audit
from authz_server.operations.audit.who import WhoAnswer, find_who
from authz_server.operations.least_privilege import LeastPrivilege, report_least_privilege
from authz_server.operations.reports import NAMED_CLIENTS, Owners, report_owners
from authz_server.operations.stored_records import RecordFilters

_READ = "audit:read"
#: The largest part of an answer to who could use a scope: each takes as long as the whole.
_PART = 10_000


@carries_out(search_trail)
def _search_trail(
    api: AdminApi, filters: RecordFilters, *, files: Sequence[Path] = (), limit: int
) -> TrailSearch:
    del files
    items: list[Any] = []
    page: Mapping[str, Any] = {}
    for page in _pages(api, filters, most=limit):
        items += page["items"]
    return TrailSearch(
        records=tuple(convert(each, TrailRecord) for each in items[:limit]),
        more=page["next"] is not None or len(items) > limit,
        files=tuple(page["files"]),
    )


@carries_out(iterate_records)
def _iterate_records(
    api: AdminApi, filters: RecordFilters, *, files: Sequence[Path] = ()
) -> Iterator[TrailRecord]:
    del files
    for page in _pages(api, filters):
        yield from (convert(each, TrailRecord) for each in page["items"])


@carries_out(find_who)
def _find_who(api: AdminApi, scope: str, at: datetime, *, files: Sequence[Path] = ()) -> WhoAnswer:
    del files
    parts = _parts(api, _READ, "audit", "who", limit=_PART, scope=scope, at=at)
    found, *further = (convert(_counted(each), WhoAnswer) for each in parts)
    for part in further:
        found = replace(
            found,
            could=(*found.could, *part.could),
            unknown=(*found.unknown, *part.unknown),
            held=(*found.held, *part.held),
        )
    return replace(found, next=None)


@carries_out(verify_audit)
def _verify_audit(
    api: AdminApi, files: Sequence[Path] = (), jwks: Sequence[Path] = ()
) -> AuditVerification:
    del files, jwks
    return api.read(AuditVerification, _READ, "audit", "verify")


@carries_out(report_least_privilege)
def _report_least_privilege(api: AdminApi, *, days: int = 90) -> LeastPrivilege:
    parts = _parts(api, "clients:read", "reports", "least-privilege", limit=PAGE, days=days)
    found, *further = (convert(each, LeastPrivilege) for each in parts)
    for part in further:
        found = replace(
            found,
            unused_scopes=(*found.unused_scopes, *part.unused_scopes),
            dormant_clients=(*found.dormant_clients, *part.dormant_clients),
            secrets_due=(*found.secrets_due, *part.secrets_due),
        )
    return replace(found, next=None)


@carries_out(report_owners)
def _report_owners(api: AdminApi, *, limit: int = NAMED_CLIENTS) -> Owners:
    # A server of the release before knows no other number.
    asked = None if limit == NAMED_CLIENTS else limit
    return api.read(Owners, "clients:read", "reports", "owners", limit=asked)


def _parts(
    api: AdminApi, permission: str, *path: str, limit: int, **asked: object
) -> Iterator[dict[str, Any]]:
    """Yield the parts of an answer; a server of the release before has one, and no limit."""
    try:
        part = api.answer("GET", permission, path, query={**asked, "limit": limit})
    except InvalidChangeError:
        part = api.answer("GET", permission, path, query=asked)
    yield part
    while (cursor := part.get("next")) is not None:
        part = api.answer(
            "GET", permission, path, query={**asked, "limit": limit, "cursor": cursor}
        )
        yield part


def _counted(part: dict[str, Any]) -> dict[str, Any]:
    """Return an answer with the numbers of its lists, which the release before leaves out."""
    lists = ("could", "unknown", "held")
    return {f"{name}_count": len(part.get(name, ())) for name in lists} | part


def _pages(
    api: AdminApi, filters: RecordFilters, most: int | None = None
) -> Iterator[dict[str, Any]]:
    given = {field.name: getattr(filters, field.name) for field in fields(RecordFilters)}
    # The server finds the spellings of the scope.
    given.pop("spellings")
    return api.pages(_READ, "audit", "search", most=most, **given)
