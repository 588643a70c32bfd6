"""The requests for audit records and reports."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields, replace
from datetime import datetime
from pathlib import Path
from typing import Any

from authz_server.cli.remote.api import PAGE, AdminApi, convert
from authz_server.cli.remote.table import carries_out
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
    asked = {"scope": scope, "at": at, "limit": _PART}
    found = part = api.read(WhoAnswer, _READ, "audit", "who", **asked)
    while part.next is not None:
        part = api.read(WhoAnswer, _READ, "audit", "who", **asked, cursor=part.next)
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
    path = ("clients:read", "reports", "least-privilege")
    found = part = api.read(LeastPrivilege, *path, days=days, limit=PAGE)
    while part.next is not None:
        part = api.read(LeastPrivilege, *path, days=days, limit=PAGE, cursor=part.next)
        found = replace(
            found,
            unused_scopes=(*found.unused_scopes, *part.unused_scopes),
            dormant_clients=(*found.dormant_clients, *part.dormant_clients),
            secrets_due=(*found.secrets_due, *part.secrets_due),
        )
    return replace(found, next=None)


@carries_out(report_owners)
def _report_owners(api: AdminApi, *, limit: int = NAMED_CLIENTS) -> Owners:
    return api.read(Owners, "clients:read", "reports", "owners", limit=limit)


def _pages(
    api: AdminApi, filters: RecordFilters, most: int | None = None
) -> Iterator[dict[str, Any]]:
    given = {field.name: getattr(filters, field.name) for field in fields(RecordFilters)}
    # The server finds the spellings of the scope.
    given.pop("spellings")
    return api.pages(_READ, "audit", "search", most=most, **given)
