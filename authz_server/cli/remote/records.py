"""The requests for audit records and reports."""

from collections.abc import Iterator, Sequence
from datetime import datetime
from pathlib import Path

from authz_server.cli.remote.api import AdminApi
from authz_server.cli.remote.table import carries_out
from authz_server.operations.audit.search import (
    TrailRecord,
    TrailSearch,
    iterate_records,
    search_trail,
)
from authz_server.operations.audit.verify import AuditVerification, verify_audit
from authz_server.operations.audit.who import WhoAnswer, find_who
from authz_server.operations.reports import (
    LeastPrivilege,
    Owners,
    report_least_privilege,
    report_owners,
)
from authz_server.operations.stored_records import RecordFilters, RecordView

_READ = "audit:read"


@carries_out(search_trail)
def _search_trail(
    api: AdminApi, filters: RecordFilters, *, files: Sequence[Path] = (), limit: int
) -> TrailSearch:
    del files
    found = _list_records(api, filters, most=limit + 1)
    return TrailSearch(
        records=tuple(map(_describe, found[:limit])), more=len(found) > limit, files=()
    )


@carries_out(iterate_records)
def _iterate_records(
    api: AdminApi, filters: RecordFilters, *, files: Sequence[Path] = ()
) -> Iterator[TrailRecord]:
    del files
    return map(_describe, _list_records(api, filters))


@carries_out(find_who)
def _find_who(api: AdminApi, scope: str, at: datetime, *, files: Sequence[Path] = ()) -> WhoAnswer:
    del files
    return api.read(WhoAnswer, _READ, "audit", "who", scope=scope, at=at)


@carries_out(verify_audit)
def _verify_audit(
    api: AdminApi, files: Sequence[Path] = (), jwks: Sequence[Path] = ()
) -> AuditVerification:
    del files, jwks
    return api.read(AuditVerification, _READ, "audit", "verify")


@carries_out(report_least_privilege)
def _report_least_privilege(api: AdminApi, *, days: int = 90) -> LeastPrivilege:
    return api.read(LeastPrivilege, "clients:read", "reports", "least-privilege", days=days)


@carries_out(report_owners)
def _report_owners(api: AdminApi) -> Owners:
    return api.read(Owners, "clients:read", "reports", "owners")


def _list_records(
    api: AdminApi, filters: RecordFilters, most: int | None = None
) -> tuple[RecordView, ...]:
    return api.list(
        RecordView,
        _READ,
        "audit",
        most=most,
        actor=filters.actor,
        action=filters.action,
        subject=filters.subject,
        client=filters.client,
        scope=filters.scope,
        key=filters.key,
        since=filters.since,
        until=filters.until,
    )


def _describe(record: RecordView) -> TrailRecord:
    return TrailRecord(
        at=record.at,
        event=record.action,
        actor=record.actor,
        subject=record.subject,
        detail=record.detail,
        source="stored",
    )
