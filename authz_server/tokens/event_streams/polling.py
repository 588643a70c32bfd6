"""Deliver events by poll (RFC 8936)."""

from collections.abc import Mapping, Sequence
from time import monotonic, sleep
from typing import NamedTuple

from sqlalchemy import select
from sqlalchemy.orm import Session

from authz_server.audit.models import AuditRecord
from authz_server.audit.notifier import Notify
from authz_server.audit.stored_rows import read_records
from authz_server.database.orm import Database
from authz_server.metrics.events import EventDelivered
from authz_server.tokens.event_streams.models import EventStream
from authz_server.tokens.event_streams.pushing import report_undelivered
from authz_server.tokens.event_streams.reading import PendingEvent, StreamReader, StreamState
from authz_server.tokens.event_streams.tokens import EventSigner

#: How often a waiting poll looks for events; a part of the time to the recipient.
LOOK_SECONDS = 0.2


class Poll(NamedTuple):
    """A poll (RFC 8936, 2.2).

    Attributes:
        maximum_events: the largest number of events to return.
        acknowledged: the ids of received events.
        refused: the errors of refused events, by their ids.
        wait_seconds: how long to wait for an event; 0: not at all.
    """

    maximum_events: int
    acknowledged: Sequence[str] = ()
    refused: Mapping[str, str] = {}
    wait_seconds: float = 0.0


class Polled(NamedTuple):
    """The events for a poll.

    Attributes:
        tokens: security event tokens by their ids, the oldest first.
        more: whether there are further events.
    """

    tokens: dict[str, str]
    more: bool


class EventPolls:
    """Answers polls; an event is returned again until it is acknowledged.

    Args:
        database: stores the streams.
        reader: reads the events.
        signer: signs them.
        notify: receives what is delivered, and what is not.
    """

    def __init__(
        self, database: Database, reader: StreamReader, signer: EventSigner, notify: Notify
    ) -> None:
        self._database = database
        self._reader = reader
        self._signer = signer
        self._notify = notify

    def answer(self, server_id: str, poll: Poll) -> Polled | None:
        """Return the events of a resource server; None: it has no stream to poll.

        Raises:
            sqlalchemy.exc.SQLAlchemyError: the database cannot answer.
            KeysError: no key can sign.
        """
        deadline = monotonic() + poll.wait_seconds
        while True:
            found = self._take(server_id, poll)
            if found is None:
                return None
            claimed, state, refused = found
            for each, error in refused:
                report_undelivered(self._notify, "poll", server_id, each, error)
            if claimed or not self._wait(state, deadline):
                break
            poll = poll._replace(acknowledged=(), refused={})
        shown = claimed[: poll.maximum_events]
        tokens = {
            self._reader.jti(each, server_id): self._signer.sign(each, server_id) for each in shown
        }
        return Polled(tokens, len(claimed) > len(shown))

    def _take(
        self, server_id: str, poll: Poll
    ) -> tuple[list[PendingEvent], StreamState, list[tuple[PendingEvent, str]]] | None:
        with self._database.transaction() as session:
            stream = session.get(EventStream, server_id, with_for_update=True)
            if stream is None or stream.delivery != "poll":
                return None
            before = len(stream.pending)
            refused = self._settle(session, stream, poll)
            for _ in range(before - len(stream.pending) - len(refused)):
                self._notify(EventDelivered("poll", "delivered"))
            # One more than wanted shows whether there are further ones.
            claimed = self._reader.claim(session, stream, poll.maximum_events + 1)
            return claimed, (server_id, stream.position, stream.pending), refused

    def _settle(
        self, session: Session, stream: EventStream, poll: Poll
    ) -> list[tuple[PendingEvent, str]]:
        server_id = stream.resource_server_id
        ids = [self._reader.record_id(each, server_id) for each in poll.acknowledged]
        self._reader.settle(stream, [each for each in ids if each is not None])
        refused: list[tuple[PendingEvent, str]] = []
        for jti, error in poll.refused.items():
            record_id = self._reader.record_id(jti, server_id)
            if record_id is None or str(record_id) not in stream.pending:
                continue
            records = read_records(session, select(AuditRecord).where(AuditRecord.id == record_id))
            pending = self._reader.describe(records[0]) if records else None
            if pending is None:
                self._reader.settle(stream, [record_id])
            else:
                self._reader.give_up(session, stream, pending, error)
                refused.append((pending, error))
        return refused

    def _wait(self, state: StreamState, deadline: float) -> bool:
        """Wait until a stream has work; return whether it has before the deadline."""
        while monotonic() + LOOK_SECONDS < deadline:
            sleep(LOOK_SECONDS)
            with self._database.reading() as session:
                if self._reader.find_with_work(session, [state]):
                    return True
        return False
