"""List the stored audit records, newest first."""

import operator
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from itertools import product
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, String, and_, cast, exists, or_, select, true
from sqlalchemy.orm import Session

from authz_server.assembly import Services
from authz_server.audit.models import AUDIT_NAME, AuditRecord
from authz_server.audit.stored_rows import read_records
from authz_server.operations.audit.spellings import find_spellings
from authz_server.operations.id_lists import OWN_CLIENTS, is_sqlite

#: As far as the clocks of nodes may differ.
_CLOCK_STEP = timedelta(hours=1)
#: How many records on each side of the beginning and the end of a period give its numbers.
_NEXT = 100


class _Alternative(NamedTuple):
    """A condition, of which a record has one.

    Attributes:
        condition: the condition; it joins the names in records, if it is on these.
        record_id: the column by which its records are read in their order.
    """

    condition: ColumnElement[bool]
    record_id: ColumnElement[Any] = AuditRecord.id.expression


_Alternatives = Sequence[_Alternative]


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

    Alternatives are read apart, each in the order of an index and no further than the page: with
    OR, a database reads and sorts all records of each, or seeks rare ones among all.

    Args:
        session: for reading.
        filters: the records to find, with the spellings of the scope.
        before: the number below which the page begins; None: the first page.
        limit: the largest number of records.
    """
    # Those of few clients are found by subject: SQLite finds them unless an equality has another
    # index.
    by_subject = session.info.get(OWN_CLIENTS) is not None
    alternatives = _alternatives(filters, of_sqlite=is_sqlite(session), by_subject=by_subject)
    if by_subject:
        alternatives = [_Alternative(or_(*(each.condition for each in alternatives)))]
    numbers = [*_numbers(session, filters), *([] if before is None else [(operator.lt, before)])]
    queries = [
        select(AuditRecord)
        .where(condition, *(compare(record_id, number) for compare, number in numbers))
        .order_by(record_id.desc())
        .limit(limit)
        for condition, record_id in alternatives
    ]
    if len(queries) == 1:
        return read_records(session, queries[0])
    found: set[int] = set()
    for query in queries:
        found.update(session.scalars(query.with_only_columns(AuditRecord.id)))
    newest = select(AuditRecord).where(AuditRecord.id.in_(sorted(found, reverse=True)[:limit]))
    return read_records(session, newest.order_by(AuditRecord.id.desc()))


def _numbers(
    session: Session, filters: RecordFilters
) -> Iterable[tuple[Callable[[Any, int], Any], int]]:
    """Yield comparisons of the numbers of records in a period: those beyond it are not read.

    A record that is more than an hour before or after another one was stored before or after it.
    Where a clock was wrong for longer, the records on the other side give right numbers.
    """
    number, at = AuditRecord.__table__.c.id, AuditRecord.__table__.c.at

    def find_numbers(outside: ColumnElement[bool], *, is_end: bool) -> Sequence[int]:
        order, inverse = (at, at.desc()) if is_end else (at.desc(), at)
        beyond = session.scalars(select(number).where(outside).order_by(order).limit(_NEXT)).all()
        if not beyond:
            return ()
        within = select(number).where(~outside).order_by(inverse).limit(_NEXT)
        return [*beyond, *session.scalars(within)]

    with suppress(OverflowError):
        since = filters.since
        if since and (found := find_numbers(at < since - _CLOCK_STEP, is_end=False)):
            yield operator.ge, min(found)
    with suppress(OverflowError):
        until = filters.until
        if until and (found := find_numbers(at > until + _CLOCK_STEP, is_end=True)):
            yield operator.le, max(found)


def _alternatives(filters: RecordFilters, *, of_sqlite: bool, by_subject: bool) -> _Alternatives:
    """Return the conditions of the records that match, each of which has one of them.

    Args:
        filters: the records to find, with the spellings of the scope.
        of_sqlite: whether the database is SQLite.
        by_subject: whether no index but that of the subjects is read.
    """
    action: ColumnElement[str] = AuditRecord.action.expression
    actor: ColumnElement[str] = AuditRecord.actor.expression
    names = _has_name if by_subject else _join_names
    if by_subject and of_sqlite:
        action, actor = cast(action, String), cast(actor, String)
    made: tuple[tuple[Any, Callable[[Any], Iterable[_Alternative]]], ...] = (
        (filters.actor, lambda wanted: [_Alternative(actor == wanted)]),
        (filters.action, lambda wanted: [_Alternative(_is_action(action, wanted))]),
        (filters.subject, lambda subject: [_of_subject(subject)]),
        (
            filters.client,
            lambda client: [
                _of_subject(client, f"client:{client}", f"resource-server:{client}"),
                _Alternative(actor == client),
                *names("client", client),
            ],
        ),
        (filters.scope, lambda _: _concerns_scopes(filters.spellings, names)),
        (filters.key, lambda key: [_of_subject(key, f"key:{key}")]),
        (filters.ring, lambda ring: [_of_subject(ring), *names("ring", ring)]),
        (filters.jti, lambda jti: [_Alternative(_revokes_token(jti, of_sqlite=of_sqlite))]),
        (filters.since, lambda since: [_Alternative(AuditRecord.at >= since)]),
        (filters.until, lambda until: [_Alternative(AuditRecord.at < until)]),
    )
    items = product(*(of_filter(wanted) for wanted, of_filter in made if wanted is not None))
    return [_combine(each) for each in items]


def _combine(alternatives: _Alternatives) -> _Alternative:
    """Return the condition that a record has all of these conditions."""
    own = AuditRecord.id.expression
    ids = (each.record_id for each in alternatives if each.record_id is not own)
    return _Alternative(and_(true(), *(each.condition for each in alternatives)), next(ids, own))


def _of_subject(*subjects: str) -> _Alternative:
    return _Alternative(AuditRecord.subject.in_(subjects))


def _join_names(kind: str, *names: str) -> Iterable[_Alternative]:
    """Return the records whose details have one of the names, by the index of each name."""
    for name in names:
        row = AUDIT_NAME.alias().c
        yield _Alternative(
            and_(row.record_id == AuditRecord.id, row.kind == kind, row.name == name),
            row.record_id,
        )


def _has_name(kind: str, *names: str) -> Iterable[_Alternative]:
    """Return the condition that the details of a record have one of the names."""
    row = AUDIT_NAME.c
    of_record = exists().where(row.record_id == AuditRecord.id)
    yield _Alternative(of_record.where(row.kind == kind, row.name.in_(names)))


def _is_action(action: ColumnElement[str], wanted: str) -> ColumnElement[bool]:
    return action.startswith(wanted, autoescape=True) if wanted.endswith(".") else action == wanted


def _revokes_token(jti: str, *, of_sqlite: bool) -> ColumnElement[bool]:
    # SQLite would read every revocation.
    action = cast(AuditRecord.action, String) if of_sqlite else AuditRecord.action.expression
    return and_(action == "token.revoked", AuditRecord.subject == jti)


def _concerns_scopes(
    spellings: frozenset[str], names: Callable[..., Iterable[_Alternative]]
) -> _Alternatives:
    ordered = sorted(spellings)
    subjects = _of_subject(*ordered, *(f"scope:{each}" for each in ordered))
    return [subjects, *names("scope", *ordered)]
