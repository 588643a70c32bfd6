"""Deliver events by push (RFC 8935): in order, with retries, each stream on its own."""

import logging
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from time import monotonic
from typing import Protocol

from sqlalchemy import ColumnElement, or_, select, update
from sqlalchemy.orm import InstrumentedAttribute, Session

from authz_server.audit.events import EventUndelivered
from authz_server.audit.notifier import AuditUnavailable, Notify
from authz_server.clients.outbound import FetchError, Reply
from authz_server.database.change_feed import ChangeSet
from authz_server.database.orm import Database
from authz_server.metrics.events import EventDelivered
from authz_server.tokens.event_streams.models import EventStream
from authz_server.tokens.event_streams.reading import PendingEvent, StreamReader
from authz_server.tokens.event_streams.tokens import EVENT_TOKEN_TYPE, EventSigner
from keys.errors import KeysError, TokenRefusedError
from keys.jose.compact import parse_json_object

logger = logging.getLogger(__name__)

#: How often a process looks for events to push; a part of the time to the recipient.
PUSH_INTERVAL_SECONDS = 0.2
FIRST_RETRY_SECONDS = 1.0
LONGEST_RETRY_SECONDS = 300.0
_LONGEST_EXPONENT = 16
_LEASE_SECONDS = 60.0
#: A turn ends well before its lease.
_TURN_SECONDS = 30.0
_EVENTS_PER_TURN = 50
_STREAMS_AT_ONCE = 8
_MAXIMUM_TEXT = 500
_ACCEPTED = frozenset({200, 202})
_REFUSED = 400


class Post(Protocol):
    """Sends a body to a URL that an operator registered."""

    def __call__(self, url: str, body: bytes, content_type: str) -> Reply:
        """Return the answer; raise FetchError if there is none."""


class EventPusher:
    """Pushes the events of all streams of this database; safe on many nodes at once.

    A node leases a stream for a turn. An event whose turn is cut off is delivered again.

    Args:
        database: stores the streams.
        reader: reads the events.
        signer: signs them.
        post: sends them.
        notify: receives what is delivered, and what is not.
        clock: returns the present time.
        keep: how long an event is tried before the operator has to see to it.
    """

    def __init__(  # noqa: PLR0913 - its parts, by name
        self,
        *,
        database: Database,
        reader: StreamReader,
        signer: EventSigner,
        post: Post,
        notify: Notify,
        clock: Callable[[], datetime],
        keep: timedelta,
    ) -> None:
        self._database = database
        self._reader = reader
        self._signer = signer
        self._post = post
        self._notify = notify
        self._clock = clock
        self._keep = keep
        self._has_streams = False
        self._busy: set[str] = set()
        self._lock = threading.Lock()
        self._threads: ThreadPoolExecutor | None = None

    def apply(self, session: Session, changes: ChangeSet) -> None:
        """Note whether there are streams to push; without one, nothing is queried."""
        if changes.everything or "stream" in changes.subjects:
            query = select(EventStream.resource_server_id).where(EventStream.delivery == "push")
            self._has_streams = session.scalar(query.limit(1)) is not None

    def push(self) -> None:
        """Begin a turn of each stream that has events and is due; return at once.

        Raises:
            sqlalchemy.exc.SQLAlchemyError: the database cannot answer.
        """
        if not self._has_streams:
            return
        for server_id in self._find_due():
            with self._lock:
                if server_id in self._busy:
                    continue
                self._busy.add(server_id)
                if self._threads is None:
                    self._threads = ThreadPoolExecutor(
                        _STREAMS_AT_ONCE, thread_name_prefix="event-push"
                    )
                self._threads.submit(self._take_turn, server_id)

    def _find_due(self) -> list[str]:
        now = self._clock()
        with self._database.reading() as session:
            streams = session.execute(
                select(
                    EventStream.resource_server_id, EventStream.position, EventStream.pending
                ).where(
                    EventStream.delivery == "push",
                    _has_come(EventStream.retry_at, now, LONGEST_RETRY_SECONDS),
                    _has_come(EventStream.leased_until, now, _LEASE_SECONDS),
                )
            )
            return self._reader.find_with_work(session, streams)

    def _take_turn(self, server_id: str) -> None:
        try:
            self.push_one(server_id)
        except Exception as error:  # noqa: BLE001 - the next turn tries again
            logger.warning("pushing events to %s failed: %s", server_id, type(error).__name__)
        finally:
            with self._lock:
                self._busy.discard(server_id)

    def push_one(self, server_id: str) -> int:
        """Push the events of one stream that are due; return how many were delivered.

        Raises:
            sqlalchemy.exc.SQLAlchemyError: the database cannot answer.
        """
        # A machine that cannot sign would postpone the turns of the others.
        url, claimed = self._lease(server_id) if self._signer.can_sign() else ("", [])
        if not claimed:
            return 0
        began = monotonic()
        delivered: list[int] = []
        refused: list[tuple[PendingEvent, str]] = []
        failure: FetchError | KeysError | None = None
        for pending in claimed:
            if monotonic() > began + _TURN_SECONDS:
                break
            try:
                problem = self._send(url, pending, server_id)
            except (FetchError, KeysError) as error:
                failure = error
                break
            if problem:
                refused.append((pending, problem))
            else:
                delivered.append(pending.record.id)
        self._end_turn(server_id, claimed, delivered, refused, failure)
        return len(delivered)

    def _lease(self, server_id: str) -> tuple[str, list[PendingEvent]]:
        now = self._clock()
        with self._database.transaction() as session:
            leased = session.execute(
                update(EventStream)
                .where(
                    EventStream.resource_server_id == server_id,
                    EventStream.delivery == "push",
                    _has_come(EventStream.retry_at, now, LONGEST_RETRY_SECONDS),
                    _has_come(EventStream.leased_until, now, _LEASE_SECONDS),
                )
                .values(leased_until=now + timedelta(seconds=_LEASE_SECONDS))
                .returning(EventStream.resource_server_id)
            ).first()
            stream = session.get(EventStream, server_id) if leased is not None else None
            if stream is None:
                return "", []
            claimed = self._reader.claim(session, stream, _EVENTS_PER_TURN)
            if not claimed:
                stream.leased_until = None
            return stream.endpoint_url, claimed

    def _send(self, url: str, pending: PendingEvent, server_id: str) -> str:
        """Send one event; return the error if the recipient refuses it, else nothing."""
        token = self._signer.sign(pending, server_id)
        reply = self._post(url, token.encode(), f"application/{EVENT_TOKEN_TYPE}")
        if reply.status in _ACCEPTED:
            self._notify(EventDelivered("push", "delivered"))
            return ""
        if reply.status == _REFUSED:
            return _read_refusal(reply.body)
        raise reply.as_error()

    def _end_turn(
        self,
        server_id: str,
        claimed: list[PendingEvent],
        delivered: list[int],
        refused: list[tuple[PendingEvent, str]],
        failure: FetchError | KeysError | None,
    ) -> None:
        now = self._clock()
        given_up = list(refused)
        problem = "" if failure is None else str(failure) or type(failure).__name__
        with self._database.transaction() as session:
            stream = session.get(EventStream, server_id, with_for_update=True)
            if stream is None:
                return
            self._reader.settle(stream, delivered)
            if failure is not None:
                known = {*delivered, *(pending.record.id for pending, _ in refused)}
                given_up += [
                    (pending, problem)
                    for pending in claimed
                    if pending.record.id not in known and pending.record.at < now - self._keep
                ]
            for pending, error in given_up:
                self._reader.give_up(session, stream, pending, error)
            stream.leased_until = None
            stream.failures = 0 if failure is None else stream.failures + 1
            stream.last_error = problem[:_MAXIMUM_TEXT]
            stream.retry_at = None if failure is None else now + _pause(stream.failures, failure)
            failures = stream.failures
        self._report(server_id, given_up, problem, failures)

    def _report(
        self, server_id: str, given_up: list[tuple[PendingEvent, str]], failure: str, failures: int
    ) -> None:
        if failure:
            self._notify(EventDelivered("push", "failed"))
            if failures == 1:
                logger.warning("events cannot be pushed to %s: %s", server_id, failure)
        for pending, error in given_up:
            report_undelivered(self._notify, "push", server_id, pending, error)


def report_undelivered(
    notify: Notify, delivery: str, server_id: str, pending: PendingEvent, error: str
) -> None:
    """Count, log and record an event that is kept for the operator."""
    logger.error(
        "the event %d (%s) is not delivered to %s: %s; see `authz-server event-stream show %s`",
        pending.record.id,
        pending.event.name,
        server_id,
        error,
        server_id,
    )
    notify(EventDelivered(delivery, "undelivered"))
    try:
        notify(
            EventUndelivered(
                resource_server_id=server_id,
                security_event=pending.event.name,
                record_id=pending.record.id,
                detail=error[:_MAXIMUM_TEXT],
            )
        )
    except AuditUnavailable as fault:
        logger.warning("an undelivered event is recorded in the database alone: %s", fault.detail)


def _has_come(
    column: InstrumentedAttribute[datetime | None], now: datetime, longest_seconds: float
) -> ColumnElement[bool]:
    """Return whether a time has come; one that is too far was stored while a clock was ahead."""
    # Clocks that differ a little do not end the lease of another node.
    latest = now + 2 * timedelta(seconds=longest_seconds)
    return or_(column.is_(None), column <= now, column > latest)


def _pause(failures: int, failure: FetchError | KeysError) -> timedelta:
    seconds = FIRST_RETRY_SECONDS * 2 ** min(failures - 1, _LONGEST_EXPONENT)
    wanted = failure.retry_after_seconds if isinstance(failure, FetchError) else 0.0
    return timedelta(seconds=min(max(seconds, wanted), LONGEST_RETRY_SECONDS))


def _read_refusal(body: bytes) -> str:
    """Return the error of a recipient (RFC 8935, 2.3)."""
    try:
        return describe_refusal(parse_json_object(body))
    except TokenRefusedError:
        return describe_refusal(None)


def describe_refusal(error: object) -> str:
    """Return the text of an error of RFC 8935, 2.3 or RFC 8936, 2.6, which may be anything."""
    members = error if isinstance(error, dict) else {}
    parts = [members.get("err"), members.get("description")]
    text = ": ".join(
        each for each in parts if isinstance(each, str) and each.isprintable() and each
    )
    return text[:_MAXIMUM_TEXT] or "the recipient refuses it"
