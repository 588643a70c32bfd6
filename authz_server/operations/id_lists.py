"""Conditions on many ids, and queries that find a few."""

from collections.abc import Iterable, Sequence
from typing import Any

from sqlalchemy import (
    ARRAY,
    ColumnElement,
    Select,
    String,
    any_,
    cast,
    false,
    func,
    literal,
    select,
    true,
)
from sqlalchemy.orm import InstrumentedAttribute, Session

#: The key, in a session, of what returns the subjects of the records that a limited caller sees;
#: None if these are many.
OWN_SUBJECTS = "own_subjects"
#: The key of the query of the spellings of the scopes that a limited caller sees, in a session.
SEEN_SPELLINGS = "seen_spellings"
#: The largest number of rows that are found before a list is read in its order.
_FOUND_FIRST = 20_000
#: The key of the first and the last id of the clients that a limited caller sees, if many.
CLIENT_RANGE = "client_range"


def is_one_of(
    column: ColumnElement[Any] | InstrumentedAttribute[str], ids: Sequence[str], *, is_sqlite: bool
) -> ColumnElement[bool]:
    """Return the condition that a column is one of some ids.

    Args:
        column: the column.
        ids: the ids.
        is_sqlite: whether the database is SQLite, which has no arrays.
    """
    if not ids:
        return false()
    if is_sqlite:
        return column.in_(ids)
    # An array is one parameter: psycopg takes longer for hundreds of them than the database.
    return column == any_(literal(list(ids), ARRAY(String)))


def is_found(
    column: ColumnElement[Any] | InstrumentedAttribute[str], ids: Select[Any], *, is_sqlite: bool
) -> ColumnElement[bool]:
    """Return the condition that a column is one of the ids of a query, which is run once.

    Args:
        column: the column.
        ids: the query of the ids.
        is_sqlite: whether the database is SQLite, which has no arrays.
    """
    if is_sqlite:
        return column.in_(ids)
    # PostgreSQL may join a query, and run a part of it for each row.
    return column == any_(func.array(ids.scalar_subquery(), type_=ARRAY(String)))


def is_in_range(
    session: Session,
    column: ColumnElement[Any] | InstrumentedAttribute[str],
    *,
    in_order: bool,
) -> ColumnElement[bool]:
    """Return the condition that a column is an id within the range of a limited caller.

    The clients before and after it are passed without reading their grants.

    Args:
        session: a session of the caller.
        column: the column.
        in_order: whether the query is in its order; SQLite does not read its index otherwise.
    """
    ends: tuple[str, str] | None = session.info.get(CLIENT_RANGE)
    if ends is None:
        return true()
    if not in_order and is_sqlite(session):
        column = cast(column, String)
    return column.between(*ends)


def has_others(
    column: ColumnElement[Any], own: Iterable[str], *, of_sqlite: bool
) -> ColumnElement[bool]:
    """Return the condition that a JSON list has a name that is not one of these."""
    if of_sqlite:
        each = func.json_each(column).table_valued("value")
    else:
        each = func.json_array_elements_text(column).table_valued("value").render_derived()
    return select(each.c.value).where(each.c.value.not_in(sorted(own))).exists()


def is_sqlite(session: Session) -> bool:
    """Return whether a session is of SQLite."""
    return session.get_bind().dialect.name == "sqlite"


def is_small_part(session: Session, query: Select[Any], everything: Select[Any]) -> bool:
    """Return whether a query returns rows of less than a fourth of all clients.

    Args:
        session: a session that is not narrowed.
        query: the query of the ids of clients, of which each may have several rows.
        everything: the query of the number of all clients.
    """
    each = query.with_only_columns(literal(1), maintain_column_froms=True)
    found = len(session.scalars(each.limit(_FOUND_FIRST + 1)).all())
    return found <= _FOUND_FIRST and 4 * found < (session.scalar(everything) or 0)


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
