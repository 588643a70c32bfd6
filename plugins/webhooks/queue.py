"""The queue of events to deliver: an SQLite file that the processes of a machine share."""

import os
import sqlite3
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

#: How long a process that claimed an event may take to deliver it.
LEASE_SECONDS = 60.0
#: The longest pause between two attempts. A later time was stored while the clock was ahead.
LONGEST_PAUSE_SECONDS = 3_600.0
#: How long another process may hold the file.
WAIT_SECONDS = 4.0
_SCHEMA = """
CREATE TABLE IF NOT EXISTS delivery (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    receiver TEXT NOT NULL,
    message_id TEXT NOT NULL,
    event TEXT NOT NULL,
    body BLOB NOT NULL,
    created_at REAL NOT NULL,
    due_at REAL NOT NULL,
    attempts INTEGER NOT NULL DEFAULT 0,
    error TEXT NOT NULL DEFAULT '',
    is_dead INTEGER NOT NULL DEFAULT 0
);
CREATE INDEX IF NOT EXISTS delivery_due ON delivery (receiver, is_dead, due_at);
CREATE TABLE IF NOT EXISTS silence (
    receiver TEXT PRIMARY KEY,
    failures INTEGER NOT NULL,
    until REAL NOT NULL
);
"""
# The index gives either at once; ordered by id, all that waits would be sorted for each claim.
_FIND = """
SELECT coalesce(
    (SELECT id FROM delivery WHERE receiver = ?1 AND is_dead = 0 AND due_at <= ?2
     ORDER BY due_at, id LIMIT 1),
    (SELECT id FROM delivery WHERE receiver = ?1 AND is_dead = 0 AND due_at > ?3
     ORDER BY due_at, id LIMIT 1)
)
"""
_CLAIM = f"""
UPDATE delivery SET due_at = ?4 WHERE id = ({_FIND})
RETURNING id, receiver, message_id, event, body, created_at, attempts, error
"""  # noqa: S608 - of constants
_COUNT = "SELECT count(*) FROM delivery WHERE receiver = ? AND is_dead = 0"
_OLD = "receiver = ? AND is_dead = 0 AND created_at < ?"
_FIND_OLD = f"SELECT 1 FROM delivery WHERE {_OLD} LIMIT 1"  # noqa: S608 - of constants
_GIVE_UP_OLD = f"UPDATE delivery SET is_dead = 1 WHERE {_OLD}"  # noqa: S608 - of constants
_SILENCE = "SELECT failures, until FROM silence WHERE receiver = ?"


class QueueFullError(Exception):
    """The queue holds as many events for a receiver as the settings permit."""


class Message(NamedTuple):
    """An event to send.

    Attributes:
        receivers: the names of its receivers.
        message_id: the id that they see.
        event: the name of the event.
        body: the body.
    """

    receivers: Sequence[str]
    message_id: str
    event: str
    body: bytes


class Delivery(NamedTuple):
    """An event for a receiver.

    Attributes:
        id: its number.
        receiver: the receiver's name in the settings.
        message_id: the id that the receiver sees, the same at each attempt.
        event: the name of the event.
        body: the body.
        created_at: the time at which it was queued, in seconds since 1970.
        attempts: how often it was tried.
        error: why the last attempt failed.
    """

    id: int
    receiver: str
    message_id: str
    event: str
    body: bytes
    created_at: float
    attempts: int
    error: str


class Counts(NamedTuple):
    """The events of a receiver: those that wait, those given up, and the oldest that waits."""

    receiver: str
    waiting: int
    dead: int
    oldest_at: float | None


class DeliveryQueue:
    """Stores events until they are delivered; safe for threads and processes.

    Args:
        path: the file; its folder exists.
        maximum: how many events of a receiver may wait, and how many given up ones are kept.
    """

    def __init__(self, path: Path, maximum: int) -> None:
        self._path = path
        self._maximum = maximum
        self._lock = threading.Lock()
        self._connection: sqlite3.Connection | None = None
        self._process_id = 0

    def add(self, message: Message) -> None:
        """Store an event for its receivers; it is on disk when this returns.

        Raises:
            QueueFullError: too many wait for some receivers; the others have it.
            sqlite3.Error: the file cannot be written.
        """
        if full := self.add_all([message]):
            raise QueueFullError(f"{self._maximum} events wait for {', '.join(full)}")

    def add_all(self, messages: Iterable[Message]) -> dict[str, int]:
        """Store events by one transaction; they are on disk when this returns.

        Returns:
            how many of them each receiver does not get, because too many wait for it.

        Raises:
            sqlite3.Error: the file cannot be written; no event is stored.
        """
        now = time.time()
        waiting: dict[str, int] = {}
        lost: dict[str, int] = {}
        with self._transaction() as connection:
            for receivers, message_id, event, body in messages:
                for receiver in receivers:
                    if receiver not in waiting:
                        waiting[receiver] = connection.execute(_COUNT, (receiver,)).fetchone()[0]
                    if waiting[receiver] >= self._maximum:
                        lost[receiver] = lost.get(receiver, 0) + 1
                        continue
                    waiting[receiver] += 1
                    connection.execute(
                        "INSERT INTO delivery"
                        " (receiver, message_id, event, body, created_at, due_at)"
                        " VALUES (?, ?, ?, ?, ?, ?)",
                        (receiver, message_id, event, body, now, now),
                    )
        return lost

    def claim(self, receiver: str) -> Delivery | None:
        """Return the first event that is due for a receiver, and lease it.

        Returns:
            the event; None: there is none, or the receiver is left alone.
        """
        now = time.time()
        place = receiver, now, now + LONGEST_PAUSE_SECONDS
        with self._locked():
            # Most looks find nothing, and reading takes no lock from those who write.
            connection = self._open()
            _, until = connection.execute(_SILENCE, (receiver,)).fetchone() or (0, 0.0)
            if _is_coming(until, now) or connection.execute(_FIND, place).fetchone() == (None,):
                return None
        with self._transaction() as connection:
            row = connection.execute(_CLAIM, (*place, now + LEASE_SECONDS)).fetchone()
        return None if row is None else Delivery(*row)

    def remove(self, delivery: Delivery) -> int:
        """Remove a delivered event, and end the silence of its receiver.

        Returns:
            how often the receiver had failed in a row.
        """
        with self._transaction() as connection:
            connection.execute("DELETE FROM delivery WHERE id = ?", (delivery.id,))
            return _end_silence(connection, delivery.receiver)

    def leave_alone(self, receiver: str, pause: Callable[[int], float]) -> bool:
        """Claim no event of a receiver that failed, in any process, for some time.

        Args:
            receiver: its name.
            pause: returns the seconds after so many earlier failures in a row.

        Returns:
            whether it had not failed since its last success.
        """
        now = time.time()
        with self._transaction() as connection:
            row = connection.execute(_SILENCE, (receiver,)).fetchone()
            failures, until = row or (0, 0.0)
            if _is_coming(until, now):
                # This attempt was under way already when another one failed.
                until = max(until, now + pause(failures - 1))
            else:
                failures, until = failures + 1, now + pause(failures)
            connection.execute(
                "INSERT OR REPLACE INTO silence VALUES (?, ?, ?)", (receiver, failures, until)
            )
        return row is None

    def expire(self, receiver: str, seconds: float) -> int:
        """Give up the events of a receiver that wait for longer; return their number."""
        old = receiver, time.time() - seconds
        with self._locked():
            if self._open().execute(_FIND_OLD, old).fetchone() is None:
                return 0
        with self._transaction() as connection:
            changed = connection.execute(_GIVE_UP_OLD, old)
            self._drop_dead(connection, receiver)
            return changed.rowcount

    def postpone(self, delivery: Delivery, error: str, *, seconds: float, is_dead: bool) -> None:
        """Note a failed attempt.

        A dead event stays until an operator retries or purges it, or until there are too many for
        its receiver; the oldest is then removed.
        """
        with self._transaction() as connection:
            connection.execute(
                "UPDATE delivery SET attempts = attempts + 1, error = ?, due_at = ?, is_dead = ?"
                " WHERE id = ?",
                (error[:300], time.time() + seconds, int(is_dead), delivery.id),
            )
            if is_dead:
                self._drop_dead(connection, delivery.receiver)

    def _drop_dead(self, connection: sqlite3.Connection, receiver: str) -> None:
        connection.execute(
            "DELETE FROM delivery WHERE id IN (SELECT id FROM delivery WHERE receiver = ?"
            " AND is_dead = 1 ORDER BY id DESC LIMIT -1 OFFSET ?)",
            (receiver, self._maximum),
        )

    def retry(self, receiver: str) -> int:
        """Make the dead and the waiting events of a receiver due now; return their number.

        A receiver that was not called for a while, because it failed, is called at once.
        """
        with self._transaction() as connection:
            _end_silence(connection, receiver)
            changed = connection.execute(
                "UPDATE delivery SET is_dead = 0, due_at = ?, created_at = ? WHERE receiver = ?",
                (time.time(), time.time(), receiver),
            )
            return changed.rowcount

    def hasten(self, receiver: str) -> None:
        """Make due, before later events, those that failed and wait for another attempt.

        One that another process sends at this moment may be sent twice.
        """
        with self._transaction() as connection:
            connection.execute(
                "UPDATE delivery SET due_at = min(created_at, ?)"
                " WHERE receiver = ? AND is_dead = 0 AND attempts > 0",
                (time.time(), receiver),
            )

    def close(self) -> None:
        """Close the file; it is opened again when it is used."""
        with self._locked():
            if self._connection is not None and self._process_id == os.getpid():
                self._connection.close()
            self._connection = None

    def purge(self, receiver: str) -> int:
        """Remove the dead events of a receiver; return their number."""
        with self._transaction() as connection:
            return connection.execute(
                "DELETE FROM delivery WHERE receiver = ? AND is_dead = 1", (receiver,)
            ).rowcount

    def count(self) -> list[Counts]:
        """Return the number of events for each receiver that has one."""
        with self._transaction() as connection:
            rows = connection.execute(
                "SELECT receiver, sum(is_dead = 0), sum(is_dead), min(created_at)"
                " FROM delivery GROUP BY receiver ORDER BY receiver"
            ).fetchall()
        return [Counts(*row) for row in rows]

    def list_dead(self, limit: int) -> list[Delivery]:
        """Return events that were given up, the latest first."""
        with self._transaction() as connection:
            rows = connection.execute(
                "SELECT id, receiver, message_id, event, body, created_at, attempts, error"
                " FROM delivery WHERE is_dead = 1 ORDER BY id DESC LIMIT ?",
                (limit,),
            ).fetchall()
        return [Delivery(*row) for row in rows]

    @contextmanager
    def _locked(self) -> Iterator[None]:
        if not self._lock.acquire(timeout=WAIT_SECONDS):
            raise sqlite3.OperationalError("another thread holds the queue")
        try:
            yield
        finally:
            self._lock.release()

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with self._locked():
            connection = self._open()
            connection.execute("BEGIN IMMEDIATE")
            try:
                yield connection
            except BaseException:
                connection.execute("ROLLBACK")
                raise
            connection.execute("COMMIT")

    def _open(self) -> sqlite3.Connection:
        # A connection does not survive a fork.
        if self._connection is None or self._process_id != os.getpid():
            self._path.touch(0o600)
            connection = sqlite3.connect(
                self._path,
                timeout=WAIT_SECONDS,
                isolation_level=None,
                check_same_thread=False,
            )
            try:
                connection.execute("PRAGMA journal_mode = WAL")
                connection.execute("PRAGMA synchronous = FULL")
                connection.executescript(_SCHEMA)
            except BaseException:
                connection.close()
                raise
            self._connection, self._process_id = connection, os.getpid()
        return self._connection


def _is_coming(until: float, now: float) -> bool:
    """Return whether a time is to come; one too far ahead was stored by a wrong clock."""
    return now < until <= now + LONGEST_PAUSE_SECONDS


def _end_silence(connection: sqlite3.Connection, receiver: str) -> int:
    """End the silence of a receiver; return how often it had failed in a row."""
    ended = connection.execute(
        "DELETE FROM silence WHERE receiver = ? RETURNING failures", (receiver,)
    ).fetchone()
    return 0 if ended is None else int(ended[0])
