"""Audit records: a JSON line for each event, and a stored row for each change."""

import logging
import os
import select
import stat
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

from msgspec import structs
from sqlalchemy import BigInteger, Index, String, text
from sqlalchemy.orm import Mapped, Session, mapped_column

from authz_server.audit.chain import Head, RecordChain
from authz_server.audit.chain_events import AuditContinued
from authz_server.audit.change_events import CHANGE_EVENTS, make_event
from authz_server.audit.destination import ends_with_a_line, open_destination
from authz_server.audit.event import STORED, WITHOUT_DIFF, Act, Event
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
from authz_server.audit.notifier import Notify
from authz_server.audit.operator_events import OperatorChanged
from authz_server.database.orm import Base, BigIntegerKey
from authz_server.errors import OAuthError
from authz_server.logs import encode_line
from authz_server.settings import STREAMS
from keys.forks import on_fork

logger = logging.getLogger(__name__)

#: The key in ``session.info`` of facts that every record of the transaction has.
CONTEXT = "audit_context"
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
_ROTATION_CHECK_SECONDS = 1.0
_STREAM_TIMEOUT_SECONDS = 1.0


class AuditRecord(Base):
    """A change, stored in the transaction that made it."""

    __tablename__ = "audit_record"
    __table_args__ = (
        Index(None, "at"),
        Index(None, "subject", "id"),
        Index(None, "actor", "id"),
        Index(None, "action", "id"),
        Index(
            "ix_audit_record_unsealed",
            "id",
            # On PostgreSQL as well: naming its option here would import its dialect on SQLite.
            sqlite_where=text("block IS NULL"),
        ),
    )

    id: Mapped[int] = mapped_column(BigIntegerKey, primary_key=True)
    at: Mapped[datetime]
    actor: Mapped[str] = mapped_column(String(200))
    action: Mapped[str] = mapped_column(String(60))
    subject: Mapped[str] = mapped_column(String(300))
    detail: Mapped[dict[str, Any]]
    # The block of the chain that lists it; None: it is not sealed yet.
    block: Mapped[int | None] = mapped_column(BigInteger)


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
    facts = {**session.info.get(CONTEXT, {}), **detail}
    record = AuditRecord(at=at, actor=actor, action=action, subject=subject, detail=facts)
    session.add(record)
    session.info.setdefault(STORED, []).append(record)
    session.info.setdefault(WITHOUT_DIFF, []).append(record)


def event_of(record: AuditRecord) -> Event:
    """Return the event for a stored change, with its approval and its diff."""
    event = _event_of(record)
    if not isinstance(event, Act):
        return event
    names = ("change", "approved_by", "diff")
    facts = {name: record.detail[name] for name in names if name in record.detail}
    return structs.replace(event, **facts)


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


class AuditUnavailable(OAuthError):  # noqa: N818 - the state of the sink, by which operators search
    """An event could not be recorded, so that the request fails with 503."""

    def __init__(self, detail: str) -> None:
        super().__init__("temporarily_unavailable", f"audit: {detail}")


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


class AuditSink:
    """Writes each event as one line in one system call, before the response is sent.

    The lines of a process are a hash chain. Several processes may share a destination. A file is
    opened for appending, and reopened within a second after it was renamed or removed. Threads and
    forked processes may share a sink.

    Args:
        destination: ``stderr``, ``stdout`` or the path of a file.
        clock: returns the present time in UTC.
        monotonic: returns monotonic seconds, for the rotation check.

    Raises:
        AuditUnavailable: the file cannot be opened.
    """

    def __init__(
        self,
        destination: str,
        clock: Callable[[], datetime],
        *,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._clock = clock
        self._monotonic = monotonic
        self._next_check = 0.0
        self._torn = False
        self._seen_bytes = 0
        # Set until the record that links a new file to the one before is written.
        self._must_continue = False
        # The number of the latest record when one could not be written.
        self._failed_at = -1
        self._together = threading.local()
        self._path = "" if destination in STREAMS else destination
        self._descriptor = STREAMS[destination] if not self._path else _open(destination)
        self._waits = not stat.S_ISREG(os.fstat(self._descriptor).st_mode)
        self._chain = RecordChain()
        self._lock = threading.Lock()
        on_fork(self._begin_again)

    @property
    def head(self) -> Head:
        """The latest record of this process."""
        with self._lock:
            return self._chain.head

    def write(self, event: Event) -> None:
        """Record the event: ``{"time": ..., "event": ..., ...}``.

        The record of a change is on disk when this returns.

        Raises:
            AuditUnavailable: the event is not recorded: no space, or the reader is gone or stuck.
        """
        opening = self._opening(event)
        try:
            if self._waits:
                self._write_stream(opening)
            else:
                self._write_file(opening)
                if type(event) in CHANGES and not getattr(self._together, "open", False):
                    os.fdatasync(self._descriptor)
        except AuditUnavailable:
            self._failed_at = self._chain.head.sequence
            raise
        except OSError as error:
            self._failed_at = self._chain.head.sequence
            raise _unwritable(error) from error

    @property
    def has_failed(self) -> bool:
        """True if an event could not be recorded, and none has been since, as far as known."""
        return self._chain.head.sequence <= self._failed_at

    def try_again(self) -> None:
        """After a failure, write an empty line, without waiting for the next event.

        Raises:
            AuditUnavailable: nothing can be written yet.
        """
        if not self._lock.acquire(timeout=_STREAM_TIMEOUT_SECONDS):
            raise AuditUnavailable("the sink's reader is stuck")
        try:
            if self._waits:
                self._await_reader()
            elif self._path:
                self._follow_rotation()
                self._continue()
            os.write(self._descriptor, b"\n")
            self._torn, self._failed_at = False, -1
        except OSError as error:
            raise _unwritable(error) from error
        finally:
            self._lock.release()

    @contextmanager
    def one_sync(self) -> Iterator[None]:
        """Bring the changes that this thread records in the block to disk together, at its end."""
        self._together.open = True
        try:
            yield
        finally:
            self._together.open = False
            try:
                if not self._waits:
                    os.fdatasync(self._descriptor)
            except OSError as error:
                logger.warning("changes are recorded in the database alone: %s", error.strerror)

    def close(self) -> None:
        """Close the file; a standard stream stays open."""
        if self._path:
            closed, self._descriptor = self._descriptor, -1  # the number may become another file's
            os.close(closed)

    def _begin_again(self) -> None:
        self._lock = threading.Lock()
        self._chain.begin()
        self._must_continue = False
        self._failed_at = -1

    def _opening(self, event: Event) -> bytes:
        """Return the record without its closing brace."""
        at = self._clock().isoformat(timespec="milliseconds")[:23]
        return b'{"time":"%bZ",%b' % (at.encode(), encode_line(event)[1:-1])

    def _write_file(self, opening: bytes) -> None:
        # One record after another, in the order of the chain.
        with self._lock:
            if self._path and self._monotonic() >= self._next_check:
                self._follow_rotation()
            self._continue()
            self._write_once(opening)

    def _write_once(self, opening: bytes) -> None:
        line = self._chain.link(opening)
        # A line cut off by a full disk must not merge with the next one.
        torn = self._torn
        whole = b"\n%b\n" % line if torn else b"%b\n" % line
        written = os.write(self._descriptor, whole)
        if written < len(whole):
            self._torn = True
            if written == len(whole) - 1:  # a whole record, but for the line end
                self._chain.append(line)
            raise AuditUnavailable("the sink took only a part of the record")
        self._chain.append(line)
        if torn:
            self._torn = False

    def _follow_rotation(self) -> None:
        self._next_check = self._monotonic() + _ROTATION_CHECK_SECONDS
        ours = os.fstat(self._descriptor)
        try:
            current = Path(self._path).stat()
        except FileNotFoundError:
            current = None
        if current is None or (current.st_dev, current.st_ino) != (ours.st_dev, ours.st_ino):
            self._reopen()
            continues = True
        else:
            self._torn = bool(ours.st_size) and not ends_with_a_line(self._path)
            continues = ours.st_size < self._seen_bytes
        if continues and self._chain.head.sequence:
            self._must_continue = True
        self._seen_bytes = os.fstat(self._descriptor).st_size

    def _continue(self) -> None:
        # A process whose records do not begin so in a file lacks the first of them.
        if self._must_continue:
            self._write_once(self._opening(AuditContinued()))
            self._must_continue = False

    def _reopen(self) -> None:
        opened = _open(self._path)
        # Changes that are to be brought to disk later are in the old file.
        os.fdatasync(self._descriptor)
        # One step: a thread that writes meanwhile uses the old file or the new one, never none.
        os.dup2(opened, self._descriptor, inheritable=False)
        os.close(opened)
        self._torn = False

    def _write_stream(self, opening: bytes) -> None:
        """Write to a pipe, a terminal or a socket, with a time limit for a slow reader."""
        if not self._lock.acquire(timeout=_STREAM_TIMEOUT_SECONDS):
            raise AuditUnavailable("the sink's reader is stuck")
        try:
            self._await_reader()
            self._write_once(opening)
        finally:
            self._lock.release()

    def _await_reader(self) -> None:
        poll = select.poll()
        poll.register(self._descriptor, select.POLLOUT)
        if not poll.poll(_STREAM_TIMEOUT_SECONDS * 1_000):
            raise AuditUnavailable("the sink's reader is stuck")


def _unwritable(error: OSError) -> AuditUnavailable:
    return AuditUnavailable(f"the sink cannot be written ({error.strerror})")


def _open(path: str) -> int:
    try:
        return open_destination(path)
    except OSError as error:
        raise AuditUnavailable(f"{path} cannot be opened ({error.strerror})") from error
