"""List the stored audit records, newest first."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, String, and_, cast, or_, select

from authz_server.assembly import Services
from authz_server.audit.models import AuditRecord
from authz_server.audit.stored_rows import read_records
from authz_server.operations.audit.spellings import find_spellings

#: Changes whose details have scopes.
_WITH_SCOPES = (
    "client.created",
    "client.updated",
    "client.registered",
    "scope.programme_defined",
    "scope.programme_deleted",
)


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
        client: the id of a client or resource server that acted, or was changed.
        scope: a scope in any spelling; ``disburse`` and ``disburse/*`` stand for all below.
        key: the id of a key, or the name of a ring.
        ring: the name of a ring, with its keys.
        jti: the id of a token.
        since: the time of the first record.
        until: the time before which the last record lies.
        spellings: the spellings of ``scope``, which the search finds.
    """

    actor: str | None = None
    action: str | None = None
    subject: str | None = None
    client: str | None = None
    scope: str | None = None
    key: str | None = None
    ring: str | None = None
    jti: str | None = None
    since: datetime | None = None
    until: datetime | None = None
    spellings: frozenset[str] = frozenset()


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
    with services.database.reading() as session:
        if filters.scope is not None:
            filters = replace(filters, spellings=find_spellings(session, filters.scope))
        query = select(AuditRecord).where(*conditions_of(filters))
        if before is not None:
            query = query.where(AuditRecord.id < before)
        found = read_records(session, query.order_by(AuditRecord.id.desc()).limit(limit))
        return tuple(
            RecordView(
                id=each.id,
                at=each.at,
                actor=each.actor,
                action=each.action,
                subject=each.subject,
                detail=each.detail,
            )
            for each in found
        )


def conditions_of(filters: RecordFilters) -> list[ColumnElement[bool]]:
    """Return the conditions of the records that match."""
    made: tuple[tuple[Any, Callable[[Any], ColumnElement[bool]]], ...] = (
        (filters.actor, lambda actor: AuditRecord.actor == actor),
        (filters.action, _is_action),
        (filters.subject, lambda subject: AuditRecord.subject == subject),
        (filters.client, _concerns_client),
        (filters.scope, lambda _: _concerns_scopes(filters.spellings)),
        (filters.key, lambda key: AuditRecord.subject.in_((key, f"key:{key}"))),
        (filters.ring, _concerns_ring),
        (filters.jti, _revokes_token),
        (filters.since, lambda since: AuditRecord.at >= since),
        (filters.until, lambda until: AuditRecord.at < until),
    )
    return [condition(wanted) for wanted, condition in made if wanted is not None]


def _is_action(action: str) -> ColumnElement[bool]:
    if action.endswith("."):
        return AuditRecord.action.startswith(action, autoescape=True)
    return AuditRecord.action == action


def _concerns_ring(ring: str) -> ColumnElement[bool]:
    # As text: SQLite ends a query at a detail that is no JSON.
    named = cast(AuditRecord.detail, String).contains(f'"ring": "{ring}"', autoescape=True)
    return or_(AuditRecord.subject == ring, named)


def _revokes_token(jti: str) -> ColumnElement[bool]:
    return and_(AuditRecord.action == "token.revoked", AuditRecord.subject == jti)


def _concerns_client(client: str) -> ColumnElement[bool]:
    named = AuditRecord.subject.in_((client, f"client:{client}", f"resource-server:{client}"))
    # Its revoked tokens; an id needs no escape in JSON.
    detail = cast(AuditRecord.detail, String).contains(f'"{client}"', autoescape=True)
    revoked = and_(AuditRecord.action == "token.revoked", detail)
    return or_(named, AuditRecord.actor == client, revoked)


def _concerns_scopes(spellings: frozenset[str]) -> ColumnElement[bool]:
    subjects = [*spellings, *(f"scope:{each}" for each in spellings)]
    detail = cast(AuditRecord.detail, String)
    listed = [detail.contains(f'"{each}"', autoescape=True) for each in sorted(spellings)]
    # One comparison leaves most records out, before one for each spelling.
    has_scopes = and_(AuditRecord.action.in_(_WITH_SCOPES), detail.contains("scopes"))
    return or_(AuditRecord.subject.in_(subjects), and_(has_scopes, or_(*listed)))
