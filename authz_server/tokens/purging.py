"""Purge expired rows in small batches that let other writers through."""

import socket
import sqlite3
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TypeVar

from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session

from authz_server.audit.notifier import Notify
from authz_server.audit.pending_changes import purge_settled_changes
from authz_server.audit.purging import purge_audit_chain, purge_audit_records
from authz_server.clients.counters.database import purge_counts
from authz_server.database.change_feed import purge_changes
from authz_server.database.clock import ClockCheck, ClockGuard
from authz_server.database.idempotency import purge_creations
from authz_server.database.operator_sessions import purge_sessions
from authz_server.database.orm import Database
from authz_server.database.single_use import delete_expired_values, find_expired_values
from authz_server.tokens.revocations import RevocationService
from authz_server.tokens.status_lists.purging import purge_status_lists
from keys.events import Alarm

T = TypeVar("T")

_MAXIMUM_BATCHES = 100_000
#: SQLite has one writer at a time; a waiting writer retries after up to 100 ms.
_SQLITE_BATCH_ROWS = 200
_SQLITE_PAUSE_SECONDS = 0.02
_PAUSES_PER_BATCH = 2.0
#: Longest wait of a purge for a locked database.
PATIENCE_SECONDS = 60.0
_RETRY_SECONDS = 0.1
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Purged:
    """The result of a purge.

    Attributes:
        rows: the number of deleted rows.
        reached: rows that expired before this time were due.
        trusted: whether the clock is free of leaps.
    """

    rows: int
    reached: datetime
    trusted: bool


class Purge:
    """Purges one database; safe to run in several threads, processes and nodes at once.

    Args:
        database: holds the rows.
        revocations: deletes expired revocations and reference tokens.
        purge_others: deletes the rows of other parts that expired by a time; returns how many.
        notify: receives the alarm ``clock.leapt``.
        batch_rows: the largest number of rows deleted in one transaction.
        clock: returns the present time.
        guard: compares the clock with the uptime; None: trust the clock.
        audit_days: how many days stored audit records are kept; 0: for ever.
        change_days: how many days settled changes are kept; 0: for ever.
    """

    def __init__(  # noqa: PLR0913 - its parts, by name
        self,
        *,
        database: Database,
        revocations: RevocationService,
        purge_others: Callable[[Session, datetime], int],
        notify: Notify,
        batch_rows: int,
        clock: Callable[[], datetime],
        guard: ClockGuard | None,
        audit_days: int = 0,
        change_days: int = 0,
    ) -> None:
        self._database = database
        self._revocations = revocations
        self._purge_others = purge_others
        self._notify = notify
        self.batch_rows = batch_rows
        self._clock = clock
        self._guard = guard
        self._audit_days = audit_days
        self._change_days = change_days
        #: The used value after which the next part begins; empty: the first one.
        self._used_value = b""

    def check_clock(self) -> ClockCheck:
        """Compare the clock with the uptime; raise an alarm if it leapt.

        Raises:
            sqlalchemy.exc.SQLAlchemyError: the database cannot answer.
        """
        guard = self._guard
        if guard is None:
            return ClockCheck(reached=self._clock(), leap=timedelta(0), trusted=True)
        check = _patiently(lambda: self._check_clock(guard))
        if not check.trusted:
            self._notify(Alarm("clock.leapt", socket.gethostname(), _explain(check)))
        return check

    def clock_is_trusted(self) -> bool:
        """Return whether the clock is free of leaps; see :meth:`check_clock`."""
        return self._guard is None or self.check_clock().trusted

    def limit(self, now: datetime) -> datetime:
        """Return ``now``; after a leap of the clock, at most the time that has certainly passed."""
        guard = self._guard
        if guard is None:
            return now
        check = _patiently(lambda: self._check_clock(guard))
        return now if check.trusted else min(now, check.reached)

    def run(self, is_stopped: Callable[[], bool] = bool) -> Purged:
        """Delete everything that is due.

        Args:
            is_stopped: returns whether to stop early.

        Raises:
            sqlalchemy.exc.SQLAlchemyError: the database cannot answer; deleted rows stay deleted.
        """
        check, total = self.check_clock(), 0
        for _ in range(_MAXIMUM_BATCHES):
            began = time.monotonic()
            deleted = _patiently(lambda: self._delete_batch(check.reached))
            total += deleted
            if is_stopped():
                return Purged(total, check.reached, check.trusted)
            if not deleted:
                break
            self._make_room(time.monotonic() - began)
        total += self._delete_used_values(check.reached, is_stopped)
        return Purged(total, check.reached, check.trusted)

    def _delete_used_values(self, reached: datetime, is_stopped: Callable[[], bool]) -> int:
        """Delete expired used values up to the end of their table; return how many.

        A run that is stopped leaves the rest of the table to the next one.
        """
        total = 0
        for _ in range(_MAXIMUM_BATCHES):
            began = time.monotonic()
            total += _patiently(lambda: self._delete_used_part(reached))
            if not self._used_value or is_stopped():
                break
            self._make_room(time.monotonic() - began)
        return total

    def _delete_used_part(self, reached: datetime) -> int:
        with self._database.reading() as session:
            expired = find_expired_values(session, reached, self._used_value, self._rows())
        deleted = 0
        if expired.digests:
            with self._database.transaction() as session:
                deleted = delete_expired_values(session, reached, expired.digests)
        self._used_value = expired.last
        return deleted

    def _check_clock(self, guard: ClockGuard) -> ClockCheck:
        with self._database.transaction() as session:
            return guard.check(session)

    def _delete_batch(self, reached: datetime) -> int:
        """Delete rows of the first kind with any due."""
        rows = self._rows()
        with self._database.transaction() as session:
            for deleted in self._kinds(session, reached, rows):
                if deleted:
                    return deleted
        return 0

    def _kinds(self, session: Session, reached: datetime, rows: int) -> Iterator[int]:
        yield self._revocations.purge(session, reached, rows)
        # Changes are dated by the machine that made them.
        now = min((reached - _EPOCH) // timedelta(microseconds=1), time.time_ns() // 1_000)
        yield purge_changes(session, now, rows)
        yield purge_status_lists(session, reached, rows)
        yield purge_counts(session, reached, rows)
        yield purge_creations(session, reached, rows)
        yield purge_sessions(session, reached, rows)
        yield self._purge_others(session, reached)
        if self._change_days:
            yield purge_settled_changes(session, reached - timedelta(days=self._change_days), rows)
        if self._audit_days:
            kept = reached - timedelta(days=self._audit_days)
            yield purge_audit_records(session, kept, rows)
            yield purge_audit_chain(session, kept, rows)

    def _rows(self) -> int:
        return min(self.batch_rows, _SQLITE_BATCH_ROWS) if self._is_sqlite() else self.batch_rows

    def _is_sqlite(self) -> bool:
        return self._database.connector is None

    def _make_room(self, took_seconds: float) -> None:
        if self._is_sqlite():
            time.sleep(max(_SQLITE_PAUSE_SECONDS, _PAUSES_PER_BATCH * took_seconds))


def _explain(check: ClockCheck) -> str:
    leap = check.leap.total_seconds()
    how = f"the clock leapt by {leap:+.0f} s against the uptime" if leap else "the clock had leapt"
    return (
        f"{how}: rows that expire after {check.reached:%Y-%m-%dT%H:%M:%SZ} are kept, and no key is "
        "rotated, until the clock is corrected or has run evenly for an hour"
    )


def _patiently(act: Callable[[], T]) -> T:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while True:
        try:
            return act()
        except OperationalError as error:
            if not _is_locked(error) or time.monotonic() > deadline:
                raise
            time.sleep(_RETRY_SECONDS)


def _is_locked(error: OperationalError) -> bool:
    code = getattr(error.orig, "sqlite_errorcode", None)
    # The lower byte is the primary result code; extended codes use the upper bytes.
    return code is not None and code & 0xFF in {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}
