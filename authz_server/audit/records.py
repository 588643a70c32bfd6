"""Records of changes: a row in the transaction of each change, and its event after the commit."""

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import datetime
from typing import Any

import msgspec
from sqlalchemy.orm import Session

from authz_server.audit.change_events import CHANGE_EVENTS, make_event
from authz_server.audit.event import STORED, Act, Event
from authz_server.audit.events import (
    ClientChanged,
    CutOffRecorded,
    DeclarationApplied,
    KeyChanged,
    RegistrationChanged,
    ScopeChanged,
    StopLifted,
    StopSet,
    TokenRevoked,
)
from authz_server.audit.models import AuditRecord
from authz_server.audit.notifier import AuditUnavailable, Notify
from authz_server.audit.operator_events import OperatorChanged

logger = logging.getLogger(__name__)

#: The key in ``session.info`` of facts that every record of the transaction has.
CONTEXT = "audit_context"
_approval: ContextVar[Mapping[str, str]] = ContextVar("audit_approval")
#: The key of the stored records that may get a diff of what the transaction did.
_WITHOUT_DIFF = "audit_records_without_diff"
#: Durably committed changes; their records are written as durably.
CHANGES: frozenset[type[Event]] = frozenset(
    {
        ClientChanged,
        CutOffRecorded,
        DeclarationApplied,
        KeyChanged,
        OperatorChanged,
        RegistrationChanged,
        ScopeChanged,
        StopLifted,
        StopSet,
        TokenRevoked,
        *CHANGE_EVENTS.values(),
    }
)
#: Changes whose subject is a kind and a name.
_OF_SUBJECTS: dict[str, type[CutOffRecorded | StopSet | StopLifted]] = {
    "cut_off.recorded": CutOffRecorded,
    "stop.set": StopSet,
    "stop.lifted": StopLifted,
}
#: Members that differ with every change, or without one.
_NOT_COMPARED = frozenset(
    {
        *("updated_at", "last_used_at", "last_used_from", "pepper_fingerprint"),
        # Of an event stream: the record of a change is unread.
        *("unread", "failures", "last_error", "retry_at"),
    }
)


@contextmanager
def recorded_with(facts: Mapping[str, str]) -> Iterator[None]:
    """Give the records of the block these facts, also of transactions that it knows nothing of."""
    before = _approval.set(facts)
    try:
        yield
    finally:
        _approval.reset(before)


def store_audit_record(
    session: Session, *, at: datetime, actor: str, action: str, subject: str, **detail: object
) -> None:
    """Add the record of a change to its transaction.

    Args:
        session: the transaction.
        at: the time in UTC.
        actor: a client id, or ``operator:NAME via cli`` for the command line.
        action: the event's name, for example ``client.created``.
        subject: the id of the changed object.
        detail: further facts; never a secret, token or key.
    """
    facts = {**_approval.get({}), **session.info.get(CONTEXT, {}), **detail}
    record = AuditRecord(at=at, actor=actor, action=action, subject=subject, detail=facts)
    session.add(record)
    session.info.setdefault(STORED, []).append(record)
    session.info.setdefault(_WITHOUT_DIFF, []).append(record)


def difference(before: object, after: object) -> dict[str, Any]:
    """Return the members that differ, each with both values.

    Args:
        before: a view; None: there was none.
        after: another of the same class; None: there is none.
    """
    old, new = (
        {} if each is None else msgspec.to_builtins(each, order="deterministic")
        for each in (before, after)
    )
    return {
        name: {"before": old.get(name), "after": new.get(name)}
        for name in {**old, **new}
        if name not in _NOT_COMPARED and old.get(name) != new.get(name)
    }


def record_difference(
    session: Session, before: object, after: object, *, subject: str | None = None
) -> None:
    """Give the records of an act the members that it changed.

    Args:
        session: the transaction, after the records were added.
        before: the view of the object before; None: there was none.
        after: the view after; None: there is none.
        subject: the id or the name of the object, by which the records of further acts in the
            transaction are left out; None: there are none.
    """
    record_diff(session, difference(before, after), subject=subject)


def record_diff(session: Session, diff: object, *, subject: str | None = None) -> None:
    """Give the records of an act its diff; those of an earlier act keep theirs.

    Args:
        session: the transaction, after the records were added.
        diff: the changed members with their values before and after.
        subject: as for :func:`record_difference`.
    """
    plain = msgspec.to_builtins(diff)
    left = []
    for record in session.info.get(_WITHOUT_DIFF, ()):
        if "diff" in record.detail:
            continue
        if subject is None or subject in {record.subject, record.subject.partition(":")[2]}:
            record.detail = {**record.detail, "diff": plain}
        else:
            left.append(record)
    session.info[_WITHOUT_DIFF] = left


def event_of(record: AuditRecord) -> Event:
    """Return the event for a stored change, with its approval and its diff."""
    event = _event_of(record)
    if not isinstance(event, Act):
        return event
    names = ("change", "approved_by", "diff")
    facts = {name: record.detail[name] for name in names if name in record.detail}
    return msgspec.structs.replace(event, **facts)


def _event_of(record: AuditRecord) -> Event:  # noqa: PLR0911 - one for each kind
    actor, action, subject = record.actor, record.action, record.subject
    if action == "token.revoked":
        return TokenRevoked(actor=actor, client_id=record.detail["client_id"], jti=subject)
    if action in CHANGE_EVENTS:
        return make_event(actor, action, subject, record.detail)
    if action in _OF_SUBJECTS:
        return _event_of_subject(record)
    if action == "declaration.applied":
        facts = {name: record.detail[name] for name in ("files", "added", "changed", "removed")}
        return DeclarationApplied(actor=actor, digest=subject, **facts)
    if "event_hash" in record.detail:
        return KeyChanged(
            actor=actor,
            action=action,
            ring=record.detail["ring"],
            kid=record.detail["kid"],
            reason=record.detail["reason"],
            event_hash=record.detail["event_hash"],
        )
    if action.startswith("scope."):
        return ScopeChanged(actor=actor, action=action, scope=subject)
    if action.startswith("operator."):
        return OperatorChanged(actor=actor, action=action, operator=subject)
    if action.startswith("registration."):
        changed: Event = RegistrationChanged(actor=actor, action=action, subject=subject)
    else:
        changed = ClientChanged(actor=actor, action=action, client_id=subject)
    return changed


def _event_of_subject(record: AuditRecord) -> Event:
    kind, _, name = record.subject.partition(":")
    event = _OF_SUBJECTS[record.action]
    facts = {each: record.detail[each] for each in event.__struct_fields__ if each in record.detail}
    return event(actor=record.actor, kind=kind, subject=name, **facts)


def report_changes(notify: Notify, session: Session) -> None:
    """Notify of the events of what a committed transaction changed.

    The stored rows are the record in any case: one that cannot be recorded elsewhere is logged.

    Args:
        notify: passes an event on.
        session: the transaction's.
    """
    for stored in session.info.pop(STORED, ()):
        try:
            notify(event_of(stored))
        except AuditUnavailable as error:
            logger.warning("a change is recorded in the database alone: %s", error.detail)
