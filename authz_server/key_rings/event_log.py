"""The events of the key rings: append-only, and each ring's chained, so that a hand edit shows.

An event's hash covers the hash before it, so changing, removing or inserting one breaks the chain;
the ring's row holds the latest hash, so the end cannot be cut off unseen. Whoever can write both
tables can write a whole new chain: the hashes stand in the audit trail too, which others keep.
"""

import hashlib
import json
from dataclasses import dataclass
from datetime import UTC, datetime

from sqlalchemy import select
from sqlalchemy.orm import Session

from authz_server.key_rings.models import NO_HASH, KeyEvent, KeyRing


@dataclass(frozen=True, slots=True, kw_only=True)
class EventFacts:
    """What an event's hash covers, besides the hash before it."""

    ring: str
    epoch: int
    kid: str | None
    event: str
    actor: str
    reason: str
    at: datetime


def chain_hash(previous_hash: str, facts: EventFacts) -> str:
    """Return the event's hash: SHA-256 of the hash before it and its facts as JSON, in hex.

    The JSON is ASCII, without spaces, its members sorted by name; ``at`` is in UTC to the
    microsecond. The migration that added the chain computes the same.
    """
    members = {
        "ring": facts.ring,
        "epoch": facts.epoch,
        "kid": facts.kid,
        "event": facts.event,
        "actor": facts.actor,
        "reason": facts.reason,
        "at": facts.at.astimezone(UTC).isoformat(timespec="microseconds"),
    }
    document = json.dumps(members, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(previous_hash.encode() + document.encode()).hexdigest()


def append_event(session: Session, previous_hash: str, facts: EventFacts) -> str:
    """Write one event after the one with ``previous_hash``; return its hash.

    Only within a transaction that has advanced the ring's epoch: that lets in one writer at a time.
    """
    digest = chain_hash(previous_hash, facts)
    session.add(
        KeyEvent(
            ring=facts.ring,
            epoch=facts.epoch,
            kid=facts.kid,
            event=facts.event,
            actor=facts.actor,
            reason=facts.reason,
            at=facts.at,
            previous_hash=previous_hash,
            hash=digest,
        )
    )
    session.flush()  # ids in the order of the chain
    return digest


def load_events(session: Session, ring: str) -> tuple[KeyEvent, ...]:
    """Return the events of ``ring``, oldest first."""
    statement = select(KeyEvent).where(KeyEvent.ring == ring).order_by(KeyEvent.id)
    return tuple(session.scalars(statement))


def verify_event_chain(session: Session, ring: str) -> int | None:
    """Return the id of the first event of ``ring`` that breaks the chain, or None if none does.

    Where the end was cut off, that is the last event left, or 0 if none is.
    """
    # In one statement, so that nothing is written between the two.
    statement = (
        select(KeyEvent, KeyRing.event_hash)
        .join(KeyRing, KeyEvent.ring == KeyRing.name)
        .where(KeyRing.name == ring)
        .order_by(KeyEvent.id)
    )
    rows = session.execute(statement).all()
    previous, last = NO_HASH, 0
    for event, _ in rows:
        if event.previous_hash != previous or event.hash != chain_hash(previous, _facts(event)):
            return event.id
        previous, last = event.hash, event.id
    if rows:
        latest = rows[-1].event_hash
    else:
        latest = session.scalar(select(KeyRing.event_hash).where(KeyRing.name == ring)) or NO_HASH
    return None if latest == previous else last


def _facts(event: KeyEvent) -> EventFacts:
    return EventFacts(
        ring=event.ring,
        epoch=event.epoch,
        kid=event.kid,
        event=event.event,
        actor=event.actor,
        reason=event.reason,
        at=event.at,
    )
