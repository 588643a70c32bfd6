"""The audit log: a JSON line for each event, in a file or a stream."""

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

from authz_server.audit.chain import Head, RecordChain
from authz_server.audit.chain_events import AuditContinued
from authz_server.audit.destination import ends_with_a_line, open_destination
from authz_server.audit.event import Event
from authz_server.audit.notifier import AuditUnavailable
from authz_server.audit.records import CHANGES
from authz_server.logs import encode_line
from authz_server.settings import STREAMS
from keys.forks import on_fork

logger = logging.getLogger(__name__)

_ROTATION_CHECK_SECONDS = 1.0
_STREAM_TIMEOUT_SECONDS = 1.0


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
        # The event loop waits here, and with it requests that need no record: once, not for each
        # record.
        seconds = 0.0 if self.has_failed else _STREAM_TIMEOUT_SECONDS
        if not poll.poll(seconds * 1_000):
            raise AuditUnavailable("the sink's reader is stuck")


def _unwritable(error: OSError) -> AuditUnavailable:
    return AuditUnavailable(f"the sink cannot be written ({error.strerror})")


def _open(path: str) -> int:
    try:
        return open_destination(path)
    except OSError as error:
        raise AuditUnavailable(f"{path} cannot be opened ({error.strerror})") from error
