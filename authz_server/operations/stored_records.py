"""List the stored audit records, newest first."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import select

from authz_server.assembly import Services
from authz_server.audit.sink import AuditRecord


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordView:
    """A stored audit record of a change.

    Attributes:
        id: its number; a later record has a higher one.
        at: the time of the change.
        actor: who made it, and which way.
        action: the event's name, for example ``client.created``.
        subject: the id of the changed object.
        detail: further facts.
    """

    id: int
    at: datetime
    actor: str
    action: str
    subject: str
    detail: Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordFilters:
    """The records to list; None does not filter.

    Attributes:
        actor: the whole actor.
        action: the event's name; with a trailing ``.`` every event of a kind, such as ``client.``.
        subject: the whole subject.
        since: the time of the first record.
        until: the time before which the last record lies.
    """

    actor: str | None = None
    action: str | None = None
    subject: str | None = None
    since: datetime | None = None
    until: datetime | None = None


def list_records(
    services: Services, filters: RecordFilters, *, before: int | None, limit: int
) -> tuple[RecordView, ...]:
    """Return up to ``limit`` records, newest first.

    Args:
        services: the parts of the server.
        filters: the records to list.
        before: the number below which the page begins; None: the first page.
        limit: the largest number of records.
    """
    query = select(AuditRecord).order_by(AuditRecord.id.desc()).limit(limit)
    if before is not None:
        query = query.where(AuditRecord.id < before)
    if filters.actor is not None:
        query = query.where(AuditRecord.actor == filters.actor)
    if filters.action is not None and filters.action.endswith("."):
        query = query.where(AuditRecord.action.startswith(filters.action, autoescape=True))
    elif filters.action is not None:
        query = query.where(AuditRecord.action == filters.action)
    if filters.subject is not None:
        query = query.where(AuditRecord.subject == filters.subject)
    if filters.since is not None:
        query = query.where(AuditRecord.at >= filters.since)
    if filters.until is not None:
        query = query.where(AuditRecord.at < filters.until)
    with services.database.reading() as session:
        return tuple(
            RecordView(
                id=each.id,
                at=each.at,
                actor=each.actor,
                action=each.action,
                subject=each.subject,
                detail=each.detail,
            )
            for each in session.scalars(query)
        )
