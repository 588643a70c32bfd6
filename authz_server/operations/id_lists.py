"""Conditions on many ids, and queries that find a few."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import ARRAY, ColumnElement, Select, String, any_, literal, select
from sqlalchemy.orm import InstrumentedAttribute, Session

#: The key of the ids of the clients that a limited caller may change, if few, in a session.
OWN_CLIENTS = "own_clients"


def is_one_of(
    column: ColumnElement[Any] | InstrumentedAttribute[str], ids: Sequence[str], *, is_sqlite: bool
) -> ColumnElement[bool]:
    """Return the condition that a column is one of some ids.

    Args:
        column: the column.
        ids: the ids.
        is_sqlite: whether the database is SQLite, which has no arrays.
    """
    if is_sqlite:
        return column.in_(ids)
    # An array is one parameter: psycopg takes longer for hundreds of them than the database.
    return column == any_(literal(list(ids), ARRAY(String)))


def is_sqlite(session: Session) -> bool:
    """Return whether a session is of SQLite."""
    return session.get_bind().dialect.name == "sqlite"


def find_few(
    session: Session, query: Select[Any], most: int, rows: int = 1
) -> tuple[str, ...] | None:
    """Return the distinct ids of a query, sorted; None: it returns more than ``most``.

    Args:
        session: a database session; with several rows of an id, it is not narrowed.
        query: the query.
        most: the largest number of ids.
        rows: how many rows of an id it has at most.
    """
    if rows > 1:
        # So many rows are of more ids than those.
        found_rows = query.limit(most * rows + 1).subquery()
        query = select(*found_rows.c).distinct()
    found = session.scalars(query.limit(most + 1)).all()
    return tuple(sorted(set(found))) if len(found) <= most else None
