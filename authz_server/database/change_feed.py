"""The change feed: how a change made on any node is in force on every process within a second.

Whoever changes what processes hold in memory calls :func:`record_change` in the same transaction.
It counts one row up, which serialises such writers, so revisions become visible in order and
without gaps; a process that has seen revision *n* asks only for what came later.
"""

import logging
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Literal

from sqlalchemy import BigInteger, Index, Row, String, delete, insert, select, update
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Mapped, Session, mapped_column

from authz_server.database.orm import Base
from authz_server.errors import OAuthError

logger = logging.getLogger(__name__)

Kind = Literal["client", "scope", "cut_off", "key"]

#: Longer than any process lives without having asked; one that slept longer loads everything anew.
CHANGES_KEPT_MICROSECONDS = 3_600 * 1_000_000


class Revision(Base):
    """One row: the number of the latest committed change."""

    __tablename__ = "revision"

    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    value: Mapped[int] = mapped_column(BigInteger)


class Change(Base):
    """What changed at a revision: a kind and the id of the thing."""

    __tablename__ = "change"
    __table_args__ = (Index(None, "at_microseconds"),)

    revision: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    kind: Mapped[str] = mapped_column(String(10))
    subject: Mapped[str] = mapped_column(String(200))
    at_microseconds: Mapped[int] = mapped_column(BigInteger)


def record_change(session: Session, kind: Kind, subject: str) -> int:
    """Note in this transaction that ``subject`` changed; return the new revision.

    The counter row stays locked until the transaction ends: call this last, commit soon.
    """
    revision = session.execute(
        update(Revision)
        .where(Revision.id == 1)
        .values(value=Revision.value + 1)
        .returning(Revision.value)
    ).scalar_one()
    session.execute(
        insert(Change).values(
            revision=revision, kind=kind, subject=subject, at_microseconds=time.time_ns() // 1_000
        )
    )
    return revision


def purge_changes(session: Session, now_microseconds: int, batch_rows: int) -> int:
    """Delete up to ``batch_rows`` changes that every living process has seen; return how many."""
    due = (
        select(Change.revision)
        .where(Change.at_microseconds < now_microseconds - CHANGES_KEPT_MICROSECONDS)
        .limit(batch_rows)
    )
    return session.execute(delete(Change).where(Change.revision.in_(due))).rowcount  # type: ignore[attr-defined,no-any-return]


@dataclass(frozen=True, slots=True)
class ChangeSet:
    """What a process has to read again: ``None`` for a kind means all of it."""

    everything: bool
    subjects: dict[str, tuple[str, ...]]


Subscriber = Callable[[Session, ChangeSet], None]


class ChangeFeed:
    """What one process has seen of the changes, and how it catches up.

    Args:
        reading: opens a session for reading.
        refresh_interval_seconds: how often :meth:`poll` is called in the background.
        staleness_limit_seconds: beyond this age the memory is not used (:meth:`require_fresh`).
    """

    def __init__(
        self,
        reading: Callable[[], AbstractContextManager[Session]],
        *,
        refresh_interval_seconds: float,
        staleness_limit_seconds: float,
    ) -> None:
        """Start having seen nothing: the first poll loads everything."""
        self._reading = reading
        self.refresh_interval_seconds = refresh_interval_seconds
        self._staleness_limit_seconds = staleness_limit_seconds
        self._subscribers: list[Subscriber] = []
        self._lock = threading.Lock()
        self._seen = -1
        self._fresh_until = 0.0
        self._retry_at = 0.0

    @property
    def seen(self) -> int:
        """The revision that this process's memory holds; -1 before the first load."""
        return self._seen

    def subscribe(self, subscriber: Subscriber) -> None:
        """Call ``subscriber`` with each set of changes, in the order of subscription."""
        self._subscribers.append(subscriber)

    def poll(self) -> None:
        """Bring the memory up to the latest committed change.

        Raises:
            sqlalchemy.exc.SQLAlchemyError: the database cannot answer; the memory stays as it was.
        """
        with self._lock:
            self._poll()

    def require_fresh(self) -> None:
        """Return when the memory is young enough to decide from, reading the database if it is not.

        While the database cannot answer, one request at a time finds that out; the others are
        refused at once rather than queued up behind it.

        Raises:
            OAuthError: ``temporarily_unavailable``: it is too old and the database does not answer.
            sqlalchemy.exc.SQLAlchemyError: likewise.
        """
        if not self.is_fresh():
            self._poll_unless(self.is_fresh)

    def require_seen(self, revision: int) -> None:
        """Return when the memory holds ``revision``; waits no longer than :meth:`require_fresh`.

        Raises:
            OAuthError: ``temporarily_unavailable``: it does not and the database does not answer.
            sqlalchemy.exc.SQLAlchemyError: likewise.
        """
        if revision > self._seen:
            self._poll_unless(lambda: revision <= self._seen)

    def is_fresh(self) -> bool:
        """Tell whether the memory is young enough, without reading anything."""
        return time.monotonic() <= self._fresh_until

    def _poll_unless(self, is_enough: Callable[[], bool]) -> None:
        if not self._lock.acquire(timeout=self._staleness_limit_seconds):
            raise OAuthError("temporarily_unavailable", "the database is slow to answer")
        try:
            if not is_enough():
                if time.monotonic() < self._retry_at:
                    raise OAuthError("temporarily_unavailable", "the database did not answer")
                self._poll()
        finally:
            self._lock.release()

    def _poll(self) -> None:
        started = time.monotonic()
        try:
            with self._reading() as session:
                self._catch_up(session)
        except SQLAlchemyError:
            self._retry_at = time.monotonic() + self.refresh_interval_seconds
            raise
        self._fresh_until = started + self._staleness_limit_seconds

    def _catch_up(self, session: Session) -> None:
        current = session.execute(select(Revision.value).where(Revision.id == 1)).scalar_one()
        if current == self._seen:
            return
        if current < self._seen:
            logger.error(
                "the database has gone back from change %d to %d: it was restored, or a fail-over "
                "lost changes, revocations among them perhaps; run `authz-server db check`",
                self._seen,
                current,
            )
        changes = session.execute(
            select(Change.revision, Change.kind, Change.subject)
            .where(Change.revision > self._seen)
            .order_by(Change.revision)
        ).all()
        reached = max([current, *(row.revision for row in changes)])
        complete = self._seen >= 0 and len(changes) == reached - self._seen
        change_set = _grouped(changes) if complete else ChangeSet(everything=True, subjects={})
        for subscriber in self._subscribers:
            subscriber(session, change_set)
        self._seen = reached


def _grouped(changes: Sequence[Row[int, str, str]]) -> ChangeSet:
    subjects: dict[str, dict[str, None]] = {}
    for _revision, kind, subject in changes:
        subjects.setdefault(kind, {})[subject] = None
    return ChangeSet(
        everything=False, subjects={kind: tuple(names) for kind, names in subjects.items()}
    )
