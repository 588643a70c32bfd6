"""Load the history of a ring: its changes with time, key, actor and reason."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import and_, func, or_, select
from sqlalchemy.orm import Session

from authz_server.audit.models import AuditRecord
from authz_server.audit.stored_rows import read_records
from authz_server.key_rings.models import KeyEvent
from keys.signing_key import RingSnapshot

#: The number of changes to load, the latest first.
MOST_CHANGES = 50
#: Stored as audit records; all other changes are events of the ring's chain.
_TIMED, _CUT_OFF = "key.revocation_timed", "cut_off.recorded"
#: The prefix of the subject of a cut-off of a key's tokens.
_KEY = "key:"


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """A change of a ring or of a key; ``kid`` and ``version`` are None for a ring."""

    at: datetime
    event: str
    kid: str | None
    version: int | None
    actor: str
    reason: str


@dataclass(frozen=True, slots=True)
class History:
    """The latest changes of a ring, newest first, and the number of older ones."""

    changes: tuple[Change, ...]
    older: int


def load_history(session: Session, ring: RingSnapshot) -> History:
    """Return the changes of ``ring`` and of its keys.

    Args:
        session: a session for reading.
        ring: the ring with its keys.
    """
    versions = {key.kid: key.version for key in ring.keys}
    is_event = KeyEvent.ring == ring.name
    events = select(KeyEvent).where(is_event).order_by(KeyEvent.id.desc()).limit(MOST_CHANGES)
    counted = select(func.count()).select_from(KeyEvent).where(is_event)
    is_timed = and_(AuditRecord.action == _TIMED, AuditRecord.subject.in_([*versions]))
    cut_off = [f"{_KEY}{kid}" for kid in versions]
    is_cut_off = and_(AuditRecord.action == _CUT_OFF, AuditRecord.subject.in_(cut_off))
    # These are one row per revocation. No index has them, so that one query finds both.
    few = select(AuditRecord).where(or_(is_timed, is_cut_off)).order_by(AuditRecord.id.desc())
    records = read_records(session, few)
    changes = [
        *(_of_record(each, versions) for each in records),
        *(_of_event(each, versions) for each in session.scalars(events)),
    ]
    total = (session.scalar(counted) or 0) + len(records)
    # The sort is stable: changes at one time keep the order in which they were written.
    newest = sorted(changes, key=lambda change: change.at, reverse=True)[:MOST_CHANGES]
    return History(tuple(newest), total - len(newest))


def _of_event(event: KeyEvent, versions: Mapping[str, int]) -> Change:
    return Change(
        at=event.at,
        event=event.event,
        kid=event.kid,
        version=versions.get(event.kid or ""),
        actor=event.actor,
        reason=event.reason,
    )


def _of_record(record: AuditRecord, versions: Mapping[str, int]) -> Change:
    kid = record.subject.removeprefix(_KEY)
    return Change(
        at=record.at,
        event=record.action,
        kid=kid,
        version=versions.get(kid),
        actor=record.actor,
        reason=str(record.detail.get("reason", "")),
    )
