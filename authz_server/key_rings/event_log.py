"""The event log of the key rings: append-only, with a hash chain that reveals manual changes.

The hash of an event covers the previous hash, so that changing, removing or inserting an event
breaks the chain. The ring's row holds the latest hash, so that the end cannot be removed unnoticed.
With write access to both tables one can forge a whole chain. The audit trail therefore contains the
hashes, too.
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
    """The fields of an event that its hash covers, besides the previous hash."""

    ring: str
    epoch: int
    kid: str | None
    event: str
    actor: str
    reason: str
    at: datetime


def chain_hash(previous_hash: str, facts: EventFacts) -> str:
    """Return the event's hash: SHA-256 of the previous hash and the fields as JSON, in hex.

    The JSON is ASCII without spaces, with its members sorted by name; ``at`` is in UTC to the
    microsecond. The migration that added the chain computes the same hash.
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
    """Append an event after the one with ``previous_hash``; return its hash.

    Call it only in a transaction that has advanced the ring's epoch, which admits one writer.
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
    session.flush()  # assigns ids in the order of the chain
    return digest


def load_events(session: Session, ring: str) -> tuple[KeyEvent, ...]:
    """Return the events of ``ring``, oldest first."""
    statement = select(KeyEvent).where(KeyEvent.ring == ring).order_by(KeyEvent.id)
    return tuple(session.scalars(statement))


def verify_event_chain(session: Session, ring: str) -> int | None:
    """Return the id of the first event of ``ring`` that breaks the chain; None if it is intact.

    If the end is missing, this is the last remaining event, or 0 if there is none.
    """
    # One statement, so that nothing is written between two reads.
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
