"""The change feed: apply a change made on any node in every process within a second.

A change of data that processes cache calls :func:`record_change` in its transaction. It increments
a counter row, which serialises such transactions, so that revisions become visible in order and
without gaps. A process that has seen revision *n* reads only later changes.
"""

import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Literal

from sqlalchemy import BigInteger, Index, Row, String, delete, insert, select, update
from sqlalchemy.orm import Mapped, Session, mapped_column

from authz_server.database.orm import Base
from authz_server.errors import OAuthError

logger = logging.getLogger(__name__)

Kind = Literal["client", "scope", "cut_off", "key", "stop", "stream", "token"]

# The key in ``session.info`` of the changes that are recorded later.
_DEFERRED = "deferred_changes"
#: Longer than the interval between two polls of a process; after a longer pause it reloads all.
CHANGES_KEPT_MICROSECONDS = 3_600 * 1_000_000


class Revision(Base):
    """One row: the number of the latest committed change."""

    __tablename__ = "revision"

    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    value: Mapped[int] = mapped_column(BigInteger)


class Change(Base):
    """A change at a revision: the kind and the id of the changed object."""

    __tablename__ = "change"
    __table_args__ = (Index(None, "at_microseconds"),)

    revision: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    kind: Mapped[str] = mapped_column(String(10))
    subject: Mapped[str] = mapped_column(String(200))
    at_microseconds: Mapped[int] = mapped_column(BigInteger)


def record_change(session: Session, kind: Kind, subject: str) -> int:
    """Record in this transaction that ``subject`` changed; return the new revision.

    The counter row stays locked until the transaction ends: call this last and commit soon.
    Within :func:`defer_changes`, the change is recorded at the end of the block, and 0 returned.
    """
    deferred = session.info.get(_DEFERRED)
    if deferred is not None and kind != "cut_off":
        deferred[kind, subject] = None
        return 0
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


@contextmanager
def defer_changes(session: Session, *, discard: bool = False) -> Iterator[None]:
    """Record the changes of clients and scopes at the end of the block, each object once.

    A long transaction holds the counter row, for which other changes wait, only at its end. If the
    block raises, nothing is recorded.

    Args:
        session: the transaction.
        discard: record nothing, because the transaction is undone.
    """
    deferred: dict[tuple[Kind, str], None] = {}
    session.info[_DEFERRED] = deferred
    try:
        yield
    finally:
        del session.info[_DEFERRED]
    if deferred and not discard:
        _record_all(session, list(deferred))


def _record_all(session: Session, changed: Sequence[tuple[Kind, str]]) -> None:
    """Record several changes by two statements, with consecutive revisions."""
    session.flush()
    latest = session.execute(
        update(Revision)
        .where(Revision.id == 1)
        .values(value=Revision.value + len(changed))
        .returning(Revision.value)
    ).scalar_one()
    first, at = latest - len(changed) + 1, time.time_ns() // 1_000
    session.execute(
        insert(Change),
        [
            {"revision": revision, "kind": kind, "subject": subject, "at_microseconds": at}
            for revision, (kind, subject) in enumerate(changed, first)
        ],
    )


def purge_changes(session: Session, now_microseconds: int, batch_rows: int) -> int:
    """Delete up to ``batch_rows`` changes that every running process has seen; return how many."""
    due = (
        select(Change.revision)
        .where(Change.at_microseconds < now_microseconds - CHANGES_KEPT_MICROSECONDS)
        .limit(batch_rows)
    )
    return session.execute(delete(Change).where(Change.revision.in_(due))).rowcount  # type: ignore[attr-defined,no-any-return]


@dataclass(frozen=True, slots=True)
class ChangeSet:
    """The objects to reload, by kind; everything if ``everything`` is set."""

    everything: bool
    subjects: dict[str, tuple[str, ...]]


Subscriber = Callable[[Session, ChangeSet], None]


class ChangeFeed:
    """Keeps the caches of one process up to date.

    Args:
        reading: opens a session for reading.
        refresh_interval_seconds: the interval of :meth:`poll` in the background.
        staleness_limit_seconds: the age at which the caches are no longer used
            (:meth:`require_fresh`).
    """

    def __init__(
        self,
        reading: Callable[[], AbstractContextManager[Session]],
        *,
        refresh_interval_seconds: float,
        staleness_limit_seconds: float,
    ) -> None:
        """Start at no revision: the first poll loads everything."""
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
        """The revision of this process's caches; -1 before the first load."""
        return self._seen

    def subscribe(self, subscriber: Subscriber) -> None:
        """Call ``subscriber`` with each set of changes, in the order of subscription.

        One that cannot apply the changes raises: it is called with them again.
        """
        self._subscribers.append(subscriber)

    def poll(self) -> None:
        """Bring the caches up to the latest committed change.

        Raises:
            sqlalchemy.exc.SQLAlchemyError: the database cannot answer; the caches are unchanged.
        """
        with self._lock:
            self._poll()

    def require_fresh(self) -> None:
        """Refresh the caches if they are too old.

        While the database cannot answer, one request at a time tries; the others are refused at
        once instead of waiting behind it.

        Raises:
            OAuthError: ``temporarily_unavailable``: too old, and the database does not answer.
            sqlalchemy.exc.SQLAlchemyError: likewise.
        """
        if not self.is_fresh():
            self._poll_unless(self.is_fresh)

    def require_seen(self, revision: int) -> None:
        """Refresh the caches if they are older than ``revision``; wait as :meth:`require_fresh`.

        Raises:
            OAuthError: ``temporarily_unavailable``: older, and the database does not answer.
            sqlalchemy.exc.SQLAlchemyError: likewise.
        """
        if revision > self._seen:
            self._poll_unless(lambda: revision <= self._seen)

    def is_fresh(self) -> bool:
        """Return whether the caches are fresh enough, without reading anything."""
        return time.monotonic() <= self._fresh_until

    def find_problem(self) -> str:
        """Return why the caches are too old; empty if they are not."""
        if self.is_fresh():
            return ""
        return "changes cannot be read" if self._fresh_until else "changes are not read yet"

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
        except Exception:
            self._retry_at = time.monotonic() + self.refresh_interval_seconds
            raise
        self._fresh_until = started + self._staleness_limit_seconds

    def _catch_up(self, session: Session) -> None:
        current = session.execute(select(Revision.value).where(Revision.id == 1)).scalar_one()
        if current == self._seen:
            return
        if current < self._seen:
            logger.error(
                "the database went back from change %d to %d: it was restored, or a fail-over lost "
                "changes, possibly revocations; run `authz-server revoke --before now`",
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
