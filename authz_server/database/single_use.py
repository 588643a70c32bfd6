"""Values that are accepted once over all processes and nodes, such as the ``jti`` of an assertion.

A value is stored, and durable, before its use is answered. Values that arrive while others are
being committed share the next commit.
"""

from collections.abc import Sequence
from datetime import datetime, timedelta
from functools import partial
from hashlib import sha256
from math import ceil
from typing import Any, NamedTuple

from sqlalchemy import BigInteger, LargeBinary, and_, select
from sqlalchemy.orm import Mapped, Session, mapped_column

from authz_server.database.deletions import delete_due
from authz_server.database.orm import Base, Database
from authz_server.database.prepared_queries import PreparedQueries
from authz_server.waiting import Batch, BatchedStep, Lane, Step

#: A value is kept this much longer than it can be accepted, for clocks that differ.
_MARGIN = timedelta(seconds=60)
#: The year 9999; a later expiry counts as this one.
_LATEST_SECONDS = 253_402_300_799
#: How many rows the purge reads at a time: a millisecond or two.
_PART_ROWS = 1_000
_DIGEST_BYTES = 32
_EXPIRY_BYTES = 8

_INSERT_SQLITE = "INSERT INTO single_use (digest, expires_at) VALUES (?, ?) ON CONFLICT DO NOTHING"
# All values of a batch or none: the parameter holds a digest and an expiry of 12 digits for each.
_INSERT_ALL_SQLITE = """
WITH RECURSIVE use (place) AS (
    VALUES (1) UNION ALL SELECT place + 44 FROM use WHERE place + 44 < length(?1)
)
INSERT INTO single_use (digest, expires_at)
SELECT substr(?1, place, 32), CAST(CAST(substr(?1, place + 32, 12) AS TEXT) AS INTEGER) FROM use
"""
# The parameter holds a digest and an expiry for each value. The order prevents deadlocks.
_INSERT_POSTGRESQL = """
WITH stored AS (
    INSERT INTO single_use (digest, expires_at)
    SELECT substring(sent FROM place FOR 32) AS digest,
           ('x' || encode(substring(sent FROM place + 32 FOR 8), 'hex'))::bit(64)::bigint
    FROM (SELECT ?::bytea AS sent) AS parameter,
         generate_series(1, octet_length(sent), 40) AS place
    ORDER BY 1
    ON CONFLICT DO NOTHING
    RETURNING digest
)
SELECT string_agg(digest, ''::bytea) FROM stored
"""


class UsedValue(Base):
    """A used value, by the SHA-256 of its kind and itself."""

    __tablename__ = "single_use"
    # Without a row id, SQLite keeps the rows in the primary key itself.
    __table_args__ = {"sqlite_with_rowid": False}  # noqa: RUF012 - as SQLAlchemy declares it

    digest: Mapped[bytes] = mapped_column(LargeBinary(_DIGEST_BYTES), primary_key=True)
    expires_at: Mapped[int] = mapped_column(BigInteger)


class _Use(NamedTuple):
    digest: bytes
    expires_at: int


class SingleUse:
    """Accepts each value once, on SQLite and on PostgreSQL.

    Args:
        database: stores the values until they expire.
    """

    def __init__(self, database: Database) -> None:
        self._uses = _Uses(database)

    async def use(self, kind: str, value: bytes, expires_at: float) -> bool:
        """Return True for the first use of a value, and False for every further one.

        Args:
            kind: the kind of the value; each kind has values of its own.
            value: the value, of any length, such as a client id and a ``jti``.
            expires_at: the end of the time in which the value is accepted, in seconds since 1970.
                Afterwards the value is forgotten.

        Raises:
            sqlalchemy.exc.SQLAlchemyError: the database cannot store the value, or its answer is
                lost.
            OAuthError: ``temporarily_unavailable``: too many requests wait.
        """
        digest = sha256(b"%b\0%b" % (kind.encode(), value)).digest()
        return await BatchedStep(self._uses, _Use(digest, ceil(min(expires_at, _LATEST_SECONDS))))


class _Uses(Batch[_Use, bool]):
    """Stores several values in one transaction."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._is_sqlite = database.connector is None
        # The sync of a file takes this process the time of several values; PostgreSQL's does not.
        self.enough = 16 if self._is_sqlite else 0

    async def perform(self, values: Sequence[_Use]) -> Sequence[bool]:
        """Return which of the values were not stored before."""
        if self._is_sqlite:
            store = partial(_store_in_sqlite, self._database.prepared_queries, values)
            return await Step(Lane.DATABASE, store)
        sent = b"".join(
            use.digest + use.expires_at.to_bytes(_EXPIRY_BYTES, "big") for use in values
        )
        row = await self._database.fetch_one(_INSERT_POSTGRESQL, sent)
        stored = row[0] if row is not None and row[0] is not None else b""
        starts = range(0, len(stored), _DIGEST_BYTES)
        new = {stored[start : start + _DIGEST_BYTES] for start in starts}
        return [_remove(new, use.digest) for use in values]


def _store_in_sqlite(queries: PreparedQueries, values: Sequence[_Use]) -> list[bool]:
    # One call for the usual case that every value is new: between two calls of the driver, the
    # thread waits for the interpreter, and holds the lock of the file.
    sent = b"".join(b"%b%012d" % use for use in values)
    if queries.insert(_INSERT_ALL_SQLITE, sent):
        return [True] * len(values)
    return queries.write(partial(_store_one_by_one, values))


def _store_one_by_one(values: Sequence[_Use], connection: Any) -> list[bool]:  # noqa: ANN401 - the driver's
    return [connection.execute(_INSERT_SQLITE, use).rowcount == 1 for use in values]


def _remove(new: set[bytes], digest: bytes) -> bool:
    """Return whether a digest is in the set; only the first of equal values finds it."""
    if digest not in new:
        return False
    new.remove(digest)
    return True


class ExpiredValues(NamedTuple):
    """Values of one part of the table that may be deleted.

    Attributes:
        digests: their primary keys, in order.
        last: the primary key after which the next part begins; empty: the table ends here.
    """

    digests: Sequence[bytes]
    last: bytes


def find_expired_values(
    session: Session, now: datetime, after: bytes, batch_rows: int
) -> ExpiredValues:
    """Return the next values that expired before ``now``; read a bounded part of the table.

    The values have no index of their expiry, which would cost each use more than the purge saves.

    Args:
        session: reads.
        now: a time that has certainly passed.
        after: the primary key after which the part begins; empty: the table begins here.
        batch_rows: the largest number of returned values.
    """
    expired_before = (now - _MARGIN).timestamp()
    columns = select(UsedValue.digest, UsedValue.expires_at)
    part = columns.where(UsedValue.digest > after).order_by(UsedValue.digest).limit(_PART_ROWS)
    rows = session.execute(part).all()
    expired = [digest for digest, expires_at in rows if expires_at < expired_before]
    if len(expired) > batch_rows:
        return ExpiredValues(expired[:batch_rows], expired[batch_rows - 1])
    return ExpiredValues(expired, rows[-1].digest if len(rows) == _PART_ROWS else b"")


def delete_expired_values(session: Session, now: datetime, digests: Sequence[bytes]) -> int:
    """Delete those of the values that expired before ``now``; return how many.

    Args:
        session: the transaction.
        now: a time that has certainly passed.
        digests: their primary keys. Another purge may have deleted a value, which was then used.
    """
    expired = UsedValue.expires_at < (now - _MARGIN).timestamp()
    due = and_(UsedValue.digest.in_(digests), expired)
    return delete_due(session, UsedValue.digest, due, len(digests))
