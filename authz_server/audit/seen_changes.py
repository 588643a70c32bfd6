"""Detect that the database lost a stored change which this process has seen."""

from datetime import datetime
from typing import NamedTuple

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from authz_server.audit.models import AuditRecord
from authz_server.audit.stored_rows import load, read_first


class SeenChange(NamedTuple):
    """A stored change, with the id of its row."""

    id: int
    at: datetime
    action: str
    subject: str


class SeenChanges:
    """Remembers the latest stored change.

    A restored copy, or a standby that lagged behind, lacks it, or has another one under its id.
    """

    def __init__(self) -> None:
        self._latest: SeenChange | None = None

    def find_lost(self, session: Session) -> SeenChange | None:
        """Return the latest seen change if the database lacks it, else None.

        Args:
            session: for reading.

        Raises:
            sqlalchemy.exc.SQLAlchemyError: the database cannot answer.
        """
        seen = self._latest
        if seen is not None and is_lost(session, seen):
            return seen
        self._latest = read_latest(session) or seen
        return None


def read_latest(session: Session) -> SeenChange | None:
    """Return the latest stored change; None: there is none."""
    statement = select(AuditRecord.id, AuditRecord.at, AuditRecord.action, AuditRecord.subject)
    row = read_first(session, statement.order_by(AuditRecord.id.desc()))
    return None if row is None else SeenChange(*row)


def is_lost(session: Session, seen: SeenChange) -> bool:
    """Return whether the database lacks a change that it had.

    It does not, if all tokens were revoked since then, or if all earlier rows are gone, too: these
    were purged, or deleted by an operator. A single row is of a restored copy, unless it is later.

    Args:
        session: for reading.
        seen: the change.

    Raises:
        sqlalchemy.exc.SQLAlchemyError: the database cannot answer.
    """
    if _is_stored(session, seen):
        return False
    limits = select(func.min(AuditRecord.id), func.max(AuditRecord.id))
    earliest, highest = session.execute(limits).one()
    if not earliest or earliest > seen.id:
        return False
    only = read_latest(session) if earliest == highest else None
    if only is not None and only.at > seen.at:
        return False  # SQLite counts from 1 again after all rows were deleted
    cut_off = find_cut_off(session)
    return cut_off is None or cut_off < seen.at


def find_cut_off(session: Session) -> datetime | None:
    """Return the time of the last revocation of all tokens; None: none can be read."""
    statement = select(AuditRecord.at).where(
        AuditRecord.action == "cut_off.recorded", AuditRecord.subject == "all:"
    )
    row = read_first(session, statement.order_by(AuditRecord.at.desc()))
    return None if row is None else row.at


def _is_stored(session: Session, seen: SeenChange) -> bool:
    """Return whether its row is there, also an altered one: ``audit verify`` names that."""
    statement = select(AuditRecord.at, AuditRecord.action, AuditRecord.subject)
    rows = load(lambda: session.execute(statement.where(AuditRecord.id == seen.id)).all())
    if not rows:
        return rows is None  # it cannot be read
    at, *change = rows[0]
    # With a later time it may be the same change, made again after the other one was lost.
    return at == seen.at or (at < seen.at and change == [seen.action, seen.subject])
