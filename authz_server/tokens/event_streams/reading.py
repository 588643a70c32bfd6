"""Read the audit records of a stream: in order, at least once, and none is left out.

Records become visible in the order of their commits, which need not be that of their ids. A stream
that reads past an id which is not visible yet keeps the id, and looks for it for some minutes.
"""

from collections.abc import Callable, Iterable
from datetime import datetime
from typing import Any, NamedTuple

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from authz_server.audit.models import AuditRecord
from authz_server.audit.stored_rows import read_records
from authz_server.tokens.event_streams.contents import EventContents, SecurityEvent
from authz_server.tokens.event_streams.models import EventStream, UndeliveredEvent

#: How many undelivered events a stream holds before it reads further records.
MAXIMUM_PENDING = 1_000
#: How long an id that is not visible may belong to a transaction that is still open.
OPEN_TRANSACTION_SECONDS = 900
_EVENT, _GAP = "event", "gap"
_MAXIMUM_TEXT = 500
_RECORDS = 500
#: A database counts no further.
_MAXIMUM_DIGITS = 18

#: The resource server, the position and what is pending of a stream.
StreamState = tuple[str, int, dict[str, Any]]


class PendingEvent(NamedTuple):
    """An event that is to be delivered.

    Attributes:
        record: the audit record.
        event: what it means to the resource server.
    """

    record: AuditRecord
    event: SecurityEvent


class StreamReader:
    """Reads the events of streams; each method works on a locked row.

    Args:
        contents: makes events of records.
        clock: returns the present time.
    """

    def __init__(self, contents: EventContents, clock: Callable[[], datetime]) -> None:
        self._contents = contents
        self._clock = clock

    def jti(self, pending: PendingEvent, server_id: str) -> str:
        """Return the id of the token of an event."""
        return self._contents.jti(pending.record.id, server_id)

    def record_id(self, jti: str, server_id: str) -> int | None:
        """Return the id of the record of an event; None if the stream has no such event."""
        digits = jti.partition("-")[0]
        if not (digits.isascii() and digits.isdigit()) or len(digits) > _MAXIMUM_DIGITS:
            return None
        record_id = int(digits)
        return record_id if self._contents.jti(record_id, server_id) == jti else None

    def describe(self, record: AuditRecord) -> PendingEvent | None:
        """Return the event of a record; None if it is not one."""
        event = self._contents.describe(record)
        return PendingEvent(record, event) if event is not None else None

    def claim(self, session: Session, stream: EventStream, limit: int) -> list[PendingEvent]:
        """Return up to ``limit`` events to deliver, the oldest first.

        They stay pending until :meth:`settle`. Whether an event concerns the resource server is
        decided once, when its record is read.
        """
        pending = self._read_on(session, stream)
        claimed: list[PendingEvent] = []
        events: dict[str, list[str | int]] = {}
        for record in self._find_records(session, pending):
            kind, since = pending.pop(str(record.id))
            found = self.describe(record)
            if found is None or (kind == _GAP and not self._is_wanted(session, stream, record)):
                continue
            events[str(record.id)] = [_EVENT, since]
            if len(claimed) < limit:
                claimed.append(found)
        # A gap is dropped after it was looked up: its record may be visible since the last look.
        oldest = self._oldest_open()
        gaps = {
            name: each
            for name, each in pending.items()
            if each[0] == _GAP and int(each[1]) > oldest
        }
        stream.pending = events | gaps
        return claimed

    def find_with_work(self, session: Session, streams: Iterable[StreamState]) -> list[str]:
        """Return the ids of the streams for which :meth:`claim` has something to do.

        These have events, newer records, or an id whose record became visible or is waited for
        no longer.
        """
        latest, oldest = find_latest(session), self._oldest_open()
        return [
            server_id
            for server_id, position, pending in streams
            if latest > position
            or any(each[0] == _EVENT or each[1] <= oldest for each in pending.values())
            or self._is_visible(session, pending)
        ]

    def settle(
        self, stream: EventStream, delivered: Iterable[int], *, now: datetime | None = None
    ) -> None:
        """Forget the events that were delivered."""
        pending = dict(stream.pending)
        removed = [pending.pop(str(each), None) for each in delivered]
        if any(each is not None for each in removed):
            stream.delivered_at = now or self._clock()
            stream.pending = pending

    def give_up(
        self, session: Session, stream: EventStream, pending: PendingEvent, error: str
    ) -> None:
        """Keep an event for the operator instead of delivering it."""
        record = pending.record
        session.merge(
            UndeliveredEvent(
                resource_server_id=stream.resource_server_id,
                record_id=record.id,
                event=pending.event.name,
                subject=record.subject,
                error=error[:_MAXIMUM_TEXT],
                at=self._clock(),
            )
        )
        left = dict(stream.pending)
        left.pop(str(record.id), None)
        stream.pending = left

    def _read_on(self, session: Session, stream: EventStream) -> dict[str, list[str | int]]:
        """Return what is pending after the next records were read."""
        now = int(self._clock().timestamp())
        pending = dict(stream.pending)
        if sum(each[0] == _EVENT for each in pending.values()) >= MAXIMUM_PENDING:
            return pending
        newer = read_records(
            session,
            select(AuditRecord)
            .where(AuditRecord.id > stream.position)
            .order_by(AuditRecord.id)
            .limit(_RECORDS),
        )
        expected = stream.position + 1
        for record in newer:
            # A long gap is not of open transactions, but of records that were purged.
            first = max(expected, record.id - MAXIMUM_PENDING)
            for missing in range(first, record.id):
                pending[str(missing)] = [_GAP, now]
            if self._is_wanted(session, stream, record):
                pending[str(record.id)] = [_EVENT, now]
            expected = record.id + 1
        stream.position = expected - 1
        gaps = [name for name, each in pending.items() if each[0] == _GAP]
        for name in gaps[:-MAXIMUM_PENDING]:
            del pending[name]
        return pending

    def _is_wanted(self, session: Session, stream: EventStream, record: AuditRecord) -> bool:
        event = self._contents.find(session, record, stream.resource_server_id)
        return event is not None and (not stream.events or event.name in stream.events)

    def _oldest_open(self) -> int:
        return int(self._clock().timestamp()) - OPEN_TRANSACTION_SECONDS

    @staticmethod
    def _is_visible(session: Session, pending: Iterable[str]) -> bool:
        ids = [int(each) for each in pending]
        query = select(AuditRecord.id).where(AuditRecord.id.in_(ids)).limit(1)
        return bool(ids) and session.scalar(query) is not None

    @staticmethod
    def _find_records(session: Session, pending: Iterable[str]) -> list[AuditRecord]:
        ids = [int(each) for each in pending]
        query = select(AuditRecord).where(AuditRecord.id.in_(ids)).order_by(AuditRecord.id)
        return read_records(session, query) if ids else []


def find_latest(session: Session) -> int:
    """Return the id of the latest audit record; 0 if there is none."""
    # Of the table itself: the limits of an administrator do not narrow the position of a stream.
    return session.scalar(select(func.max(AuditRecord.__table__.c.id))) or 0
