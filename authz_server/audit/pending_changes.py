"""The table of changes that need a second person, and its upkeep."""

import logging
from collections.abc import Callable, Collection, Iterable
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import JSON, Index, String, Text, delete, func, or_, select, update
from sqlalchemy.orm import Mapped, Session, mapped_column

from authz_server.audit.records import store_audit_record
from authz_server.database.orm import Base, Transaction

logger = logging.getLogger(__name__)

#: The state of a change that waits for an approval.
PENDING = "pending"
#: The state of an act that was done without one, and waits for a confirmation.
UNCONFIRMED = "unconfirmed"
#: The kind of a change that one person carried out at once, and that would have waited.
BREAK_GLASS = "break_glass"
#: The recorded actor of expiries.
SERVER = "server"
MAXIMUM_REASON_CHARACTERS = 500
MAXIMUM_SUBJECT_CHARACTERS = 300
_WARNING_INTERVAL = timedelta(minutes=10)


class PendingChange(Base):
    """A change that needs a second person; it is kept after it is settled."""

    __tablename__ = "pending_change"
    __table_args__ = (Index(None, "state", "requested_at"), Index(None, "decided_at"))

    id: Mapped[str] = mapped_column(String(32), primary_key=True)
    state: Mapped[str] = mapped_column(String(20))
    # "approval", or why it was done without one: "emergency", "break_glass" or "command".
    kind: Mapped[str] = mapped_column(String(20))
    acts: Mapped[list[str]]
    subject: Mapped[str] = mapped_column(String(MAXIMUM_SUBJECT_CHARACTERS))
    organisation: Mapped[str | None] = mapped_column(String(200))  # None: of the whole server
    resource_servers: Mapped[list[str]]
    operation: Mapped[str] = mapped_column(String(60))
    arguments: Mapped[dict[str, Any]]
    diff: Mapped[Any] = mapped_column(JSON, nullable=False)
    # The revision of what it rests on; empty: it rests on nothing.
    basis: Mapped[str] = mapped_column(String(60))
    # A new secret, by its id and the record that verifies it; of several, a JSON object.
    secret_id: Mapped[str | None] = mapped_column(String(32))
    secret_record: Mapped[str | None] = mapped_column(Text)
    # The names and texts of declarative files until the change is settled; its approval reads them.
    files: Mapped[list[dict[str, str]] | None] = mapped_column(
        JSON(none_as_null=True), deferred=True
    )
    reason: Mapped[str] = mapped_column(String(MAXIMUM_REASON_CHARACTERS))
    requested_by: Mapped[str] = mapped_column(String(200))
    # The key of the caller: another person decides.
    requester: Mapped[str] = mapped_column(String(320))
    # The groups of the latest log-in of the requester, none after a log-out by an operator; None: a
    # release before filed the change, and they are not known.
    requester_groups: Mapped[list[str] | None] = mapped_column(JSON(none_as_null=True))
    requested_at: Mapped[datetime]
    expires_at: Mapped[datetime | None]
    decided_by: Mapped[str | None] = mapped_column(String(200))
    decided_at: Mapped[datetime | None]
    decision_reason: Mapped[str] = mapped_column(String(MAXIMUM_REASON_CHARACTERS))
    # Of a decision by an operator: the log-in, and the groups that gave the roles.
    authenticated_at: Mapped[datetime | None]
    groups: Mapped[list[str]]
    problem: Mapped[str] = mapped_column(String(MAXIMUM_REASON_CHARACTERS))
    warned_at: Mapped[datetime | None]


def settle(  # noqa: PLR0913 - the facts of a decision, by name
    session: Session,
    change: PendingChange,
    state: str,
    *,
    actor: str,
    at: datetime,
    reason: str = "",
    problem: str = "",
) -> None:
    """Give a change its final state, and store the record ``change.STATE``.

    Args:
        session: the transaction, in which the row is locked.
        change: the change.
        state: ``approved``, ``rejected``, ``withdrawn``, ``expired``, ``failed`` or ``confirmed``.
        actor: the recorded actor.
        at: the present time.
        reason: the reason of the decision.
        problem: why an approved change could not be carried out.
    """
    change.state = state
    change.decided_by, change.decided_at, change.decision_reason = actor, at, reason
    change.problem = problem[:MAXIMUM_REASON_CHARACTERS]
    change.secret_record, change.files = None, None
    record(session, change, state, actor=actor, at=at, reason=reason, problem=change.problem)


def record(
    session: Session,
    change: PendingChange,
    event: str,
    *,
    actor: str,
    at: datetime,
    **facts: object,
) -> None:
    """Store the audit record ``change.EVENT`` of a change, with its act and its diff."""
    store_audit_record(
        session,
        at=at,
        actor=actor,
        action=f"change.{event}",
        subject=change.id,
        kind=change.kind,
        acts=list(change.acts),
        concerns=change.subject,
        requested_by=change.requested_by,
        diff=change.diff,
        **facts,
    )


def lock_change(session: Session, change_id: str) -> PendingChange | None:
    """Return a change as it is now, locked until the transaction ends; None if there is none."""
    return session.get(PendingChange, change_id, with_for_update=True, populate_existing=True)


def count_changes(session: Session) -> dict[str, int]:
    """Return the number of changes in each state that waits for a second person."""
    query = (
        select(PendingChange.state, func.count())
        .where(PendingChange.state.in_([PENDING, UNCONFIRMED]))
        .group_by(PendingChange.state)
    )
    counted = {state: count for state, count in session.execute(query)}  # noqa: C416 - typed rows
    return {PENDING: 0, UNCONFIRMED: 0} | counted


def count_waiting(session: Session, requester: str, operations: Collection[str] = ()) -> int:
    """Return the number of changes of a requester that wait for an approval.

    Args:
        session: a database session.
        requester: the key of the caller.
        operations: the operations to count; empty: all.
    """
    query = select(func.count()).where(
        PendingChange.state == PENDING, PendingChange.requester == requester
    )
    if operations:
        query = query.where(PendingChange.operation.in_(operations))
    return session.scalar(query) or 0


def set_requester_groups(session: Session, requester: str, groups: Iterable[str]) -> None:
    """Set the groups by which a requester may do what waits for an approval.

    Args:
        session: a transaction, which has locked no session of an operator.
        requester: the key of the caller.
        groups: the groups.
    """
    waits = select(PendingChange.id).where(
        PendingChange.state == PENDING, PendingChange.requester == requester
    )
    # The same order in every transaction prevents deadlocks.
    locked = waits.order_by(PendingChange.id).with_for_update()
    session.execute(
        update(PendingChange)
        .where(PendingChange.id.in_(locked))
        .values(requester_groups=list(groups))
        .execution_options(synchronize_session=False)
    )


def purge_settled_changes(session: Session, before: datetime, batch_rows: int) -> int:
    """Delete up to ``batch_rows`` changes that were settled before a time; return how many."""
    due = select(PendingChange.id).where(PendingChange.decided_at < before).limit(batch_rows)
    spent = delete(PendingChange).where(PendingChange.id.in_(due))
    return session.execute(spent).rowcount  # type: ignore[attr-defined,no-any-return]


class ChangeDuties:
    """Does the background work for changes; safe on many nodes at once.

    Args:
        reading: opens a session that reads.
        transaction: opens the transaction of a change, which is reported.
        clock: returns the present time.
        clock_is_trusted: returns whether the clock is free of leaps.
    """

    def __init__(
        self,
        *,
        reading: Transaction,
        transaction: Transaction,
        clock: Callable[[], datetime],
        clock_is_trusted: Callable[[], bool],
    ) -> None:
        self._reading = reading
        self._transaction = transaction
        self._clock = clock
        self._clock_is_trusted = clock_is_trusted

    def expire_changes(self) -> None:
        """End the changes whose time to be approved has passed, each in its own transaction.

        Raises:
            sqlalchemy.exc.SQLAlchemyError: the database cannot answer.
            AuditUnavailable: an expiry cannot be recorded; it is not made.
        """
        now = self._clock()
        due = select(PendingChange.id).where(
            PendingChange.state == PENDING, PendingChange.expires_at <= now
        )
        with self._reading() as session:
            found = session.scalars(due).all()
        if not found or not self._clock_is_trusted():
            return
        for change_id in found:
            with self._transaction() as session:
                change = lock_change(session, change_id)
                if change is not None and change.state == PENDING:
                    settle(session, change, "expired", actor=SERVER, at=now)

    def warn_of_unconfirmed(self) -> None:
        """Log each act that waits for a confirmation, every ten minutes over all nodes.

        Raises:
            sqlalchemy.exc.SQLAlchemyError: the database cannot answer.
        """
        now = self._clock()
        due = (
            update(PendingChange)
            .where(
                PendingChange.state == UNCONFIRMED,
                or_(
                    PendingChange.warned_at.is_(None),
                    PendingChange.warned_at <= now - _WARNING_INTERVAL,
                ),
            )
            .values(warned_at=now)
            .returning(PendingChange)
        )
        with self._reading() as session:
            waits = session.scalar(
                select(PendingChange.id).where(PendingChange.state == UNCONFIRMED).limit(1)
            )
        if waits is None:
            return
        with self._transaction() as session:
            for change in session.scalars(due):
                logger.warning(
                    "%s was done without an approval (%s, %s) and is not confirmed: a second person"
                    " runs `authz-server changes confirm %s`",
                    ", ".join(change.acts),
                    change.subject,
                    change.requested_by,
                    change.id,
                )
