"""List the stored audit records, newest first."""

import operator
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import partial
from itertools import product
from typing import Any, NamedTuple

from sqlalchemy import (
    ColumnElement,
    Select,
    String,
    and_,
    cast,
    or_,
    select,
    true,
)
from sqlalchemy.orm import Session

from authz_server.assembly import Services
from authz_server.audit.models import AUDIT_NAME, AuditRecord
from authz_server.audit.stored_rows import read_records
from authz_server.operations.audit.actions import find_actions, fits, is_kind, may_see
from authz_server.operations.audit.spellings import find_spellings
from authz_server.operations.id_lists import OWN_SUBJECTS, is_one_of, is_sqlite

#: As far as the clocks of nodes may differ.
_CLOCK_STEP = timedelta(hours=1)
#: How many records on each side of the beginning and the end of a period give its numbers.
_NEXT = 100
#: The largest number of records of one filter that are found first, before the other filters.
_FEW = 500
#: The largest number of ids in one query.
_CHUNK = 5_000
#: The actions whose records alone have a kind of names in their details; other kinds, any may have.
_ACTIONS_WITH_NAMES = {
    "client": ("token.revoked",),
    "scope": (
        "client.created",
        "client.updated",
        "client.registered",
        "scope.programme_defined",
        "scope.programme_deleted",
    ),
}
_Numbers = Sequence[tuple[Callable[[Any, int], Any], int]]


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
    numbers: _Numbers = [
        *_numbers(session, filters),
        *([] if before is None else [(operator.lt, before)]),
    ]
    find_subjects = session.info.get(OWN_SUBJECTS)
    if find_subjects is not None and filters.action and not may_see(filters.action):
        return []
    subjects = None if find_subjects is None else find_subjects()
    few = _find_few(session, filters, numbers)
    if few is None and subjects is not None:
        few = _find_of_subjects(session, subjects, filters, numbers)
    if few is not None:
        return _read_among(session, sorted(few, reverse=True), filters, limit)
    queries = _queries(session, _alternatives(session, filters), numbers, limit)
    if len(queries) == 1:
        return read_records(session, queries[0])
    found: set[int] = set()
    for query in queries:
        found.update(session.scalars(query.with_only_columns(AuditRecord.id)))
    newest = select(AuditRecord).where(AuditRecord.id.in_(sorted(found, reverse=True)[:limit]))
    return read_records(session, newest.order_by(AuditRecord.id.desc()))


def _find_few(
    session: Session, filters: RecordFilters, numbers: _Numbers
) -> Collection[int] | None:
    """Return the ids of the records that one of several filters selects, if they are few.

    Otherwise a database may read all records of a frequent name for those of a rare one. They are
    not narrowed to what the caller sees, which may be a small part.

    Returns:
        None: there is one filter alone, or each of them selects many.
    """
    wanted = _indexed(filters)
    for name in wanted if len(wanted) > 1 else ():
        each = RecordFilters(spellings=filters.spellings, **{name: wanted[name]})
        found: set[int] = set()
        for query in _queries(session, _alternatives(session, each), numbers, _FEW + 1):
            found.update(session.connection().scalars(query.with_only_columns(AuditRecord.id)))
            if len(found) > _FEW:
                break
        else:
            return found
    return None


def _find_of_subjects(
    session: Session, subjects: Sequence[str], filters: RecordFilters, numbers: _Numbers
) -> Collection[int]:
    """Return the ids of the records of subjects that match: an index has those of each subject."""
    is_own = is_one_of(AuditRecord.subject, subjects, is_sqlite=is_sqlite(session))
    condition = or_(*(each.condition for each in _alternatives(session, filters, at_once=True)))
    (query,) = _queries(session, [_Alternative(and_(is_own, condition))], numbers, None)
    ids = query.with_only_columns(AuditRecord.id).order_by(None)
    return session.connection().scalars(ids).all()


def _read_among(
    session: Session, ids: Sequence[int], filters: RecordFilters, limit: int
) -> list[AuditRecord]:
    """Return the first records with these ids that match and that the caller sees."""
    condition = or_(*(each.condition for each in _alternatives(session, filters, at_once=True)))
    found: list[AuditRecord] = []
    begin, number = 0, 2 * limit
    while begin < len(ids) and len(found) < limit:
        chunk = AuditRecord.id.in_(ids[begin : begin + number])
        query = select(AuditRecord).where(chunk, condition).order_by(AuditRecord.id.desc())
        found += read_records(session, query.limit(limit - len(found)))
        begin, number = begin + number, min(2 * number, _CHUNK)
    return found


def _indexed(filters: RecordFilters) -> Mapping[str, Any]:
    """Return the filters that an index has, by their names; the rarest first, as a rule."""
    names = ("subject", "jti", "key", "client", "actor", "action", "ring", "scope")
    return {name: wanted for name in names if (wanted := getattr(filters, name)) is not None}


def _queries(
    session: Session, alternatives: _Alternatives, numbers: _Numbers, limit: int | None
) -> Sequence[Select[Any]]:
    """Return the query of the newest records of each alternative."""
    # PostgreSQL may begin with the records, and SQLite begins with the names.
    others = () if is_sqlite(session) else (AuditRecord.id.expression,)
    return [
        select(AuditRecord)
        .where(
            condition,
            *(
                compare(each, n)
                for each in dict.fromkeys((record_id, *others))
                for compare, n in numbers
            ),
        )
        .order_by(record_id.desc())
        .limit(limit)
        for condition, record_id in alternatives
    ]


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


def _alternatives(
    session: Session, filters: RecordFilters, *, at_once: bool = False
) -> _Alternatives:
    """Return the conditions of the records that match, each of which has one of them.

    Args:
        session: for reading.
        filters: the records to find, with the spellings of the scope.
        at_once: whether the records are found by their ids or subjects.
    """
    of_sqlite = is_sqlite(session)
    action: ColumnElement[str] = AuditRecord.action.expression
    actor: ColumnElement[str] = AuditRecord.actor.expression
    names = _has_name if at_once else partial(_join_names, filters.action)
    if at_once and of_sqlite:
        action, actor = cast(action, String), cast(actor, String)

    def of_action(wanted: str) -> Iterable[_Alternative]:
        # A caller with limits may see the records of one event, and few of another one.
        is_one = OWN_SUBJECTS in session.info or at_once or len(_indexed(filters)) > 1
        is_one = is_one or not is_kind(wanted)
        actions = None if is_one else find_actions(session, wanted)
        if actions is None:
            return [_Alternative(_is_action(action, wanted))]
        return [_Alternative(action == each) for each in actions or (wanted,)]

    made: tuple[tuple[Any, Callable[[Any], Iterable[_Alternative]]], ...] = (
        (filters.actor, lambda wanted: [_Alternative(actor == wanted)]),
        (filters.action, of_action),
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


def _join_names(action: str | None, kind: str, *names: str) -> Iterable[_Alternative]:
    """Return the records whose details have one of the names, by the index of each name."""
    of_actions = _ACTIONS_WITH_NAMES.get(kind, ())
    if action is not None and of_actions and not any(fits(each, action) for each in of_actions):
        return
    for name in names:
        row = AUDIT_NAME.alias().c
        yield _Alternative(
            and_(row.record_id == AuditRecord.id, row.kind == kind, row.name == name),
            row.record_id,
        )


def _has_name(kind: str, *names: str) -> Iterable[_Alternative]:
    """Return the condition that the details of a record have one of the names."""
    row = AUDIT_NAME.c
    of_record = select(row.record_id).where(row.record_id == AuditRecord.id)
    one = of_record.where(row.kind == kind, row.name.in_(names)).limit(1)
    # With EXISTS, PostgreSQL may read all records of a name for few of these.
    yield _Alternative(one.scalar_subquery().is_not(None))


def _is_action(action: ColumnElement[str], wanted: str) -> ColumnElement[bool]:
    return action.startswith(wanted, autoescape=True) if is_kind(wanted) else action == wanted


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
