"""Delete status lists whose tokens have all expired."""

from datetime import datetime

from sqlalchemy import delete, func, select
from sqlalchemy.orm import Session

from authz_server.tokens.status_lists.models import StatusBlock, StatusList, StatusRevocation


def purge_status_lists(session: Session, now: datetime, batch_rows: int) -> int:
    """Delete up to ``batch_rows`` rows of lists whose tokens have expired; return how many.

    The list with the highest id is kept: SQLite would use the id again, and a resource server that
    holds the list of that address would take it for the new one.

    Args:
        session: the transaction.
        now: a time that has certainly passed.
        batch_rows: the largest number of rows.
    """
    latest = select(func.max(StatusList.id)).scalar_subquery()
    expired = session.scalars(
        select(StatusList.id).where(StatusList.expires_at < now, StatusList.id < latest).limit(1)
    ).first()
    if expired is None:
        return 0
    for table, column in (
        (StatusBlock, StatusBlock.start),
        (StatusRevocation, StatusRevocation.position),
    ):
        due = session.scalars(
            select(column).where(table.list_id == expired).limit(batch_rows)
        ).all()
        if due:
            session.execute(delete(table).where(table.list_id == expired, column.in_(due)))
            return len(due)
    session.execute(delete(StatusList).where(StatusList.id == expired))
    return 1
