"""Locks by name, for what no row stands for."""

from hashlib import sha256

from sqlalchemy import BigInteger, func, literal, select
from sqlalchemy.orm import Session


def lock_name(session: Session, name: str) -> None:
    """Hold the lock of a name until the transaction ends, once no other one holds it.

    A transaction of SQLite has no other one beside it that changes anything.

    Args:
        session: the transaction.
        name: the name.
    """
    if session.get_bind().dialect.name == "postgresql":
        number = int.from_bytes(sha256(name.encode()).digest()[:8], signed=True)
        session.execute(select(func.pg_advisory_xact_lock(literal(number, BigInteger))))
