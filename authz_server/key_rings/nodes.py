"""Node reports: the epoch of each ring that a process holds, and its clock offset."""

from collections.abc import Mapping
from datetime import datetime, timedelta

from sqlalchemy import delete, func, select
from sqlalchemy.orm import Session

from authz_server.database.clock import read_database_time
from authz_server.key_rings.models import KeyNode
from keys.store import NodeReport

#: Reports older than this are deleted.
REPORTS_KEPT = timedelta(days=1)
#: A node without a report for this time issues no tokens any more.
REPORTS_LIVE = timedelta(minutes=10)


def load_reports(session: Session) -> tuple[NodeReport, ...]:
    """Return the latest report of every process and ring, by node and ring."""
    rows = session.scalars(select(KeyNode).order_by(KeyNode.node, KeyNode.ring))
    return tuple(
        NodeReport(
            node=row.node,
            ring=row.ring,
            epoch_seen=row.epoch_seen,
            seen_at=row.seen_at,
            clock_offset_seconds=row.clock_offset_seconds,
        )
        for row in rows
    )


def write_reports(
    session: Session, node: str, epochs: Mapping[str, int], offset_seconds: float
) -> None:
    """Replace the reports of ``node`` on these rings."""
    if not epochs:
        return
    session.execute(delete(KeyNode).where(KeyNode.node == node, KeyNode.ring.in_(epochs)))
    seen_at = read_database_time(session)
    session.add_all(
        KeyNode(
            node=node,
            ring=ring,
            epoch_seen=epoch,
            seen_at=seen_at,
            clock_offset_seconds=offset_seconds,
        )
        for ring, epoch in epochs.items()
    )


def find_lead_seconds(session: Session, tolerance_seconds: float) -> float:
    """Return by how much the clocks of nodes that issue tokens are ahead of the database's.

    That is the largest lead within the tolerance, because a node beyond it issues none. With
    SQLite, all processes have the same clock.
    """
    if session.get_bind().dialect.name == "sqlite":
        return 0.0
    lead: float | None = session.scalar(
        select(func.max(-KeyNode.clock_offset_seconds)).where(
            KeyNode.clock_offset_seconds >= -tolerance_seconds,
            KeyNode.seen_at > func.clock_timestamp() - REPORTS_LIVE,
        )
    )
    return max(0.0, lead or 0.0)


def forget_node(session: Session, node: str) -> None:
    """Delete the reports of ``node``, which has stopped."""
    session.execute(delete(KeyNode).where(KeyNode.node == node))


def purge_reports(session: Session, now: datetime) -> int:
    """Delete outdated reports; return the number of rows."""
    statement = delete(KeyNode).where(KeyNode.seen_at < now - REPORTS_KEPT)
    return session.execute(statement).rowcount  # type: ignore[attr-defined,no-any-return]
