"""Deletes due rows in batches, beside other nodes that do the same."""

from typing import Any

from sqlalchemy import ColumnElement, delete, select
from sqlalchemy.orm import InstrumentedAttribute, Session


def delete_due(
    session: Session, key: InstrumentedAttribute[Any], due: ColumnElement[bool], batch_rows: int
) -> int:
    """Delete up to ``batch_rows`` rows of one table; return how many.

    Args:
        session: the transaction.
        key: the primary key of the table.
        due: the condition of the rows.
        batch_rows: the largest number of rows.
    """
    # Several nodes may purge at once: each skips rows that another has locked.
    rows = select(key).where(due).limit(batch_rows).with_for_update(skip_locked=True)
    found = session.scalars(rows).all()
    if found:
        session.execute(delete(key.class_).where(key.in_(found)))
    return len(found)
