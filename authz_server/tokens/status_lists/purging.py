"""Delete status lists whose tokens have all expired."""

from datetime import datetime

from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from authz_server.tokens.status_lists.models import StatusBlock, StatusList, StatusRevocation


def purge_status_lists(session: Session, now: datetime, batch_rows: int) -> int:
    """Delete up to ``batch_rows`` rows of lists whose tokens have expired; return how many.

    Args:
        session: the transaction.
        now: a time that has certainly passed.
        batch_rows: the largest number of rows.
    """
    expired = session.scalars(
        select(StatusList.id).where(StatusList.expires_at < now).limit(1)
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
