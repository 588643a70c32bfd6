"""Purge audit records that are older than the configured age, and their part of the chain."""

from datetime import datetime

from sqlalchemy import delete, func, or_, select
from sqlalchemy.orm import Session

from authz_server.audit.models import AuditBlock, AuditRecord, AuditWriter

_LATEST = select(AuditRecord.at).order_by(AuditRecord.id.desc()).limit(1).scalar_subquery()


def purge_audit_records(session: Session, before: datetime, batch_rows: int) -> int:
    """Delete up to ``batch_rows`` of the oldest records; return the number of records.

    The record with the highest id, whose id SQLite would use again, and those of its time and later
    are kept. The comparison with the audit file that detects a restored database starts at the
    oldest remaining record.

    Args:
        session: the transaction.
        before: records of this time and later ones are kept.
        batch_rows: the largest number of rows.
    """
    # Oldest first, and waiting for other purges: the comparison needs records without gaps.
    due = (
        select(AuditRecord.id)
        .where(AuditRecord.at < before, AuditRecord.at < _LATEST)
        .order_by(AuditRecord.at, AuditRecord.id)
        .limit(batch_rows)
        .with_for_update()
    )
    found = session.scalars(due).all()
    if found:
        session.execute(delete(AuditRecord).where(AuditRecord.id.in_(found)))
    return len(found)


def purge_audit_chain(session: Session, before: datetime, batch_rows: int) -> int:
    """Delete up to ``batch_rows`` blocks and heads of the chain whose records are purged.

    The last block whose records are purged is kept: it stands for all before it, since the signed
    blocks after it include its hash.

    Args:
        session: the transaction, after :func:`purge_audit_records` found nothing to purge.
        before: the time of the oldest record that is kept.
        batch_rows: the largest number of rows.

    Returns:
        The number of deleted rows.
    """
    first = select(func.min(AuditBlock.number)).where(
        or_(AuditBlock.last_at >= before, AuditBlock.last_at >= _LATEST)
    )
    number = session.scalar(first) or session.scalar(select(func.max(AuditBlock.number))) or 0
    due = select(AuditBlock.number).where(AuditBlock.number < number - 1).limit(batch_rows)
    blocks = session.execute(delete(AuditBlock).where(AuditBlock.number.in_(due)))
    ended = select(AuditWriter.writer).where(
        AuditWriter.at < before, AuditWriter.checkpoint.is_not(None)
    )
    writers = session.execute(
        delete(AuditWriter).where(AuditWriter.writer.in_(ended.limit(batch_rows)))
    )
    return int(blocks.rowcount + writers.rowcount)  # type: ignore[attr-defined]
