"""Purge audit records that are older than the configured age."""

from datetime import datetime

from sqlalchemy import delete, func, select
from sqlalchemy.orm import Session

from authz_server.audit.sink import AuditRecord


def purge_audit_records(session: Session, before: datetime, batch_rows: int) -> int:
    """Delete up to ``batch_rows`` of the oldest records; return the number of records.

    The latest record is always kept. The comparison with the audit file that detects a restored
    database starts at the oldest remaining record.

    Args:
        session: the transaction.
        before: records of this time and later ones are kept.
        batch_rows: the largest number of rows.
    """
    latest = select(func.max(AuditRecord.at)).scalar_subquery()
    # Oldest first, and waiting for other purges: the comparison needs records without gaps.
    due = (
        select(AuditRecord.id)
        .where(AuditRecord.at < before, AuditRecord.at < latest)
        .order_by(AuditRecord.at, AuditRecord.id)
        .limit(batch_rows)
        .with_for_update()
    )
    found = session.scalars(due).all()
    if found:
        session.execute(delete(AuditRecord).where(AuditRecord.id.in_(found)))
    return len(found)
