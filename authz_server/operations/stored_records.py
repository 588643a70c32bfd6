"""List the stored audit records, newest first."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from itertools import product
from typing import Any

from sqlalchemy import ColumnElement, String, and_, cast, or_, select, true
from sqlalchemy.orm import Session

from authz_server.assembly import Services
from authz_server.audit.models import AuditRecord
from authz_server.audit.stored_rows import read_records
from authz_server.operations.audit.spellings import find_spellings
from authz_server.operations.id_lists import OWN_CLIENTS, is_sqlite

#: Changes whose details have scopes.
_WITH_SCOPES = (
    "client.created",
    "client.updated",
    "client.registered",
    "scope.programme_defined",
    "scope.programme_deleted",
)
#: Conditions, of which a record has one.
_Alternatives = list[ColumnElement[bool]]


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
        found = find_newest(session, filters, before, limit)
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


def find_newest(
    session: Session, filters: RecordFilters, before: int | None, limit: int
) -> list[AuditRecord]:
    """Return up to ``limit`` records that match, newest first.

    On SQLite, alternatives are read apart, each in the order of an index and no further than the
    page: with OR, it reads and sorts all records of each. PostgreSQL knows how frequent they are.

    Args:
        session: for reading.
        filters: the records to find, with the spellings of the scope.
        before: the number below which the page begins; None: the first page.
        limit: the largest number of records.
    """
    of_sqlite = is_sqlite(session)
    # SQLite finds those of few clients by subject, unless an equality has another index.
    by_subject = of_sqlite and session.info.get(OWN_CLIENTS) is not None
    alternatives = _alternatives(filters, of_sqlite=of_sqlite, by_subject=by_subject)
    if by_subject or not of_sqlite:
        alternatives = [or_(*alternatives)]
    queries = [
        select(AuditRecord)
        .where(condition, *([] if before is None else [AuditRecord.id < before]))
        .order_by(AuditRecord.id.desc())
        .limit(limit)
        for condition in alternatives
    ]
    if len(queries) == 1:
        return read_records(session, queries[0])
    found: set[int] = set()
    for query in queries:
        found.update(session.scalars(query.with_only_columns(AuditRecord.id)))
    newest = select(AuditRecord).where(AuditRecord.id.in_(sorted(found, reverse=True)[:limit]))
    return read_records(session, newest.order_by(AuditRecord.id.desc()))


def _alternatives(filters: RecordFilters, *, of_sqlite: bool, by_subject: bool) -> _Alternatives:
    """Return the conditions of the records that match, each of which has one of them.

    Args:
        filters: the records to find, with the spellings of the scope.
        of_sqlite: whether the database is SQLite.
        by_subject: whether the indexes of the actions and of the actors are not read.
    """
    action: ColumnElement[str] = AuditRecord.action.expression
    actor: ColumnElement[str] = AuditRecord.actor.expression
    if by_subject:
        action, actor = cast(action, String), cast(actor, String)
    made: tuple[tuple[Any, Callable[[Any], _Alternatives]], ...] = (
        (filters.actor, lambda wanted: [actor == wanted]),
        (filters.action, lambda wanted: [_is_action(action, wanted)]),
        (filters.subject, lambda subject: [AuditRecord.subject == subject]),
        (filters.client, lambda client: _concerns_client(client, action)),
        (filters.scope, lambda _: _concerns_scopes(filters.spellings, action)),
        (filters.key, lambda key: [AuditRecord.subject.in_((key, f"key:{key}"))]),
        (filters.ring, lambda ring: [AuditRecord.subject == ring, _has_text(f'"ring": "{ring}"')]),
        (filters.jti, lambda jti: [_revokes_token(jti, of_sqlite=of_sqlite)]),
        (filters.since, lambda since: [AuditRecord.at >= since]),
        (filters.until, lambda until: [AuditRecord.at < until]),
    )
    items = product(*(of_filter(wanted) for wanted, of_filter in made if wanted is not None))
    return [and_(true(), *each) for each in items]


def _has_text(text: str) -> ColumnElement[bool]:
    """Return the condition that the details of a record have a text."""
    # As text: SQLite ends a query at a detail that is no JSON.
    return cast(AuditRecord.detail, String).contains(text, autoescape=True)


def _is_action(action: ColumnElement[str], wanted: str) -> ColumnElement[bool]:
    return action.startswith(wanted, autoescape=True) if wanted.endswith(".") else action == wanted


def _revokes_token(jti: str, *, of_sqlite: bool) -> ColumnElement[bool]:
    # SQLite would read every revocation.
    action = cast(AuditRecord.action, String) if of_sqlite else AuditRecord.action.expression
    return and_(action == "token.revoked", AuditRecord.subject == jti)


def _concerns_client(client: str, action: ColumnElement[str]) -> _Alternatives:
    return [
        AuditRecord.subject.in_((client, f"client:{client}", f"resource-server:{client}")),
        AuditRecord.actor == client,
        # Its revoked tokens; an id needs no escape in JSON.
        and_(action == "token.revoked", _has_text(f'"{client}"')),
    ]


def _concerns_scopes(spellings: frozenset[str], action: ColumnElement[str]) -> _Alternatives:
    subjects = [*spellings, *(f"scope:{each}" for each in spellings)]
    listed = or_(*(_has_text(f'"{each}"') for each in sorted(spellings)))
    # One comparison leaves most records out, and names that are no scopes.
    is_listed = and_(_has_text("scopes"), listed)
    in_detail = [and_(action == each, is_listed) for each in _WITH_SCOPES]
    return [AuditRecord.subject.in_(subjects), *in_detail]
