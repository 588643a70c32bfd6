"""Shared counts in the database."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from functools import partial

from sqlalchemy import BigInteger, Index, LargeBinary, case
from sqlalchemy.orm import Mapped, Session, mapped_column

from authz_server.clients.counters.shared import Addition, Count, Store
from authz_server.database.deletions import delete_due
from authz_server.database.orm import Base, Database, insert_into
from authz_server.waiting import Lane, Step

#: A count is kept this much longer than it lasts, for clocks that differ.
_MARGIN = timedelta(seconds=60)


class SharedCount(Base):
    """A count and the time at which it begins again, in seconds since 1970 UTC."""

    __tablename__ = "shared_count"
    __table_args__ = (Index(None, "ends_at"),)

    key: Mapped[bytes] = mapped_column(LargeBinary(32), primary_key=True)
    number: Mapped[int] = mapped_column(BigInteger)
    ends_at: Mapped[int] = mapped_column(BigInteger)


class DatabaseCounters(Store):
    """Counts exactly over all processes and nodes; several counts share a commit.

    Args:
        database: stores the counts until they end.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    async def perform(self, values: Sequence[Addition]) -> Sequence[Count]:
        """Return each count after its addition.

        Raises:
            sqlalchemy.exc.SQLAlchemyError: the database cannot answer.
        """
        return await Step(Lane.DATABASE, partial(self._add, values))

    def _add(self, values: Sequence[Addition]) -> list[Count]:
        # The same order on every node prevents deadlocks.
        order = sorted(range(len(values)), key=lambda position: values[position].key)
        counts: dict[int, Count] = {}
        with self._database.transaction() as session:
            for position in order:
                counts[position] = _add_one(session, values[position])
        return [counts[position] for position in range(len(values))]


def _add_one(session: Session, addition: Addition) -> Count:
    has_ended = SharedCount.ends_at <= addition.now
    added = (
        insert_into(session, SharedCount)
        .values(key=addition.key, number=addition.number, ends_at=addition.ends_at)
        .on_conflict_do_update(
            index_elements=[SharedCount.key],
            set_={
                "number": case(
                    (has_ended, addition.number), else_=SharedCount.number + addition.number
                ),
                "ends_at": case((has_ended, addition.ends_at), else_=SharedCount.ends_at),
            },
        )
        .returning(SharedCount.number, SharedCount.ends_at)
    )
    return Count(*session.execute(added).one())


def purge_counts(session: Session, now: datetime, batch_rows: int) -> int:
    """Delete up to ``batch_rows`` counts that ended before ``now``; return how many.

    Args:
        session: the transaction.
        now: a time that has certainly passed.
        batch_rows: the largest number of rows.
    """
    due = SharedCount.ends_at < (now - _MARGIN).timestamp()
    return delete_due(session, SharedCount.key, due, batch_rows)
