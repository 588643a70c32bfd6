"""Detect that the database lost a stored change which this process has seen."""

from datetime import UTC, datetime
from typing import NamedTuple

from sqlalchemy import func, not_, or_, select
from sqlalchemy.orm import Session

from authz_server.audit.models import AuditRecord

#: SQLite stores any text and bytes as a time.
IS_DATED = AuditRecord.at.between(datetime(1, 1, 1, tzinfo=UTC), datetime(9999, 12, 31, tzinfo=UTC))


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

        None as well, if all tokens were revoked since then, or if all earlier rows are gone, too:
        these were purged.

        Args:
            session: for reading.

        Raises:
            sqlalchemy.exc.SQLAlchemyError: the database cannot answer.
        """
        seen = self._latest
        if seen is not None and _is_lost(session, seen):
            return seen
        statement = (
            select(AuditRecord.id, AuditRecord.at, AuditRecord.action, AuditRecord.subject)
            .where(IS_DATED)
            .order_by(AuditRecord.id.desc())
        )
        row = session.execute(statement.limit(1)).first()
        self._latest = seen if row is None else SeenChange(*row)
        return None


def _is_lost(session: Session, seen: SeenChange) -> bool:
    # An altered row is not lost: `audit verify` names it.
    is_seen = or_(AuditRecord.at == seen.at, not_(IS_DATED))
    if session.scalar(select(AuditRecord.id).where(AuditRecord.id == seen.id, is_seen)) is not None:
        return False
    earliest = session.scalar(select(func.min(AuditRecord.id)))
    if earliest is None or earliest > seen.id:
        return False
    cut_off = select(AuditRecord.id).where(
        AuditRecord.action == "cut_off.recorded",
        AuditRecord.subject == "all:",
        AuditRecord.at >= seen.at,
        IS_DATED,
    )
    return session.scalar(cut_off.limit(1)) is None
