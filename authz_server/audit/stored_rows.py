"""Read rows of the audit tables around what cannot be read.

Who writes to the database may store what no column of its type holds: SQLite takes anything. The
other rows are still read; ``audit verify`` names the altered one.
"""

import json
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, TypeVar, TypeVarTuple

from sqlalchemy import Row, Select, select
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session

from authz_server.audit.models import AuditRecord

#: The errors of values that are not of their column's type, or nested too deeply.
UNREADABLE_VALUES = (ValueError, TypeError, OverflowError, RecursionError)
#: The fact of a record that lists its unreadable fields.
UNREADABLE_FACT = "unreadable"
#: The time of a record whose own cannot be read.
UNKNOWN_TIME = datetime(1970, 1, 1, tzinfo=UTC)
_NOT_UTF_8 = "Could not decode to UTF-8"
_MAXIMUM_DEPTH = 100
#: The number of unreadable rows that are passed over.
_PASSED_OVER = 100
_EMPTY = {"at": UNKNOWN_TIME, "actor": "", "action": "", "subject": "", "detail": {}}
_Read = TypeVar("_Read")
_Columns = TypeVarTuple("_Columns")


def load(read: Callable[[], _Read]) -> _Read | None:
    """Return what ``read`` returns; None: a value cannot be read.

    Raises:
        sqlalchemy.exc.SQLAlchemyError: the database cannot answer.
    """
    try:
        return read()
    except UNREADABLE_VALUES:
        return None
    except OperationalError as error:
        if _NOT_UTF_8 in str(error.orig):
            return None
        raise


def read_first(session: Session, query: Select[*_Columns]) -> Row[*_Columns] | None:
    """Return the first row of a query that can be read; None: there is none.

    Args:
        session: for reading.
        query: selects rows, in an order.

    Raises:
        sqlalchemy.exc.SQLAlchemyError: the database cannot answer.
    """
    for number in range(_PASSED_OVER + 1):
        one = query.offset(number).limit(1)
        rows = load(lambda one=one: session.execute(one).all())  # type: ignore[misc]
        if rows is not None:
            return rows[0] if rows else None
    return None


def read_records(session: Session, query: Select[Any]) -> list[AuditRecord]:
    """Return the records of a query; an altered one with what can be read of it.

    The facts of each are an object. Those of an altered record name its unreadable fields; a detail
    of another type is in them as ``detail``.

    Args:
        session: for reading.
        query: selects records.

    Raises:
        sqlalchemy.exc.SQLAlchemyError: the database cannot answer.
    """
    rows = load(lambda: list(session.scalars(query)))
    if rows is not None:
        return [each if _is_sound(each) else _read_in_part(session, each.id) for each in rows]
    found = []
    for record_id in session.scalars(query.with_only_columns(AuditRecord.id)).all():
        one = select(AuditRecord).where(AuditRecord.id == record_id)
        row = load(lambda one=one: session.scalar(one))  # type: ignore[misc]
        if row is None or not _is_sound(row):
            row = _read_in_part(session, record_id)
        found.append(row)
    return found


def _read_in_part(session: Session, record_id: int) -> AuditRecord:
    """Return a record that is not of the session, with the fields that can be read."""
    values, unreadable = dict(_EMPTY), []
    for name, empty in _EMPTY.items():
        query = select(getattr(AuditRecord, name)).where(AuditRecord.id == record_id)
        row = load(lambda query=query: session.execute(query).first())  # type: ignore[misc]
        value = None if row is None else row[0]
        if row is not None and name == "detail" and not isinstance(value, dict):
            value = {name: value}
        if isinstance(value, type(empty)) and _is_shallow(value) and _is_text(value):
            values[name] = value
        else:
            unreadable.append(name)
    if unreadable:
        values["detail"] = {**values["detail"], UNREADABLE_FACT: unreadable}  # type: ignore[dict-item]
    return AuditRecord(id=record_id, **values)


def _is_sound(record: AuditRecord) -> bool:
    values = ((getattr(record, name), type(empty)) for name, empty in _EMPTY.items())
    return (
        all(isinstance(value, kind) for value, kind in values)
        and _is_shallow(record.detail)
        and _is_text(record.detail)
    )


def _is_shallow(value: object) -> bool:
    level = [value]
    for _ in range(_MAXIMUM_DEPTH):
        level = [
            one
            for each in level
            if isinstance(each, dict | list)
            for one in (each.values() if isinstance(each, dict) else each)
        ]
        if not level:
            return True
    return False


def _is_text(value: object) -> bool:
    """Return whether an answer may have it: without lone surrogates, and with numbers alone."""
    if isinstance(value, datetime):
        return True
    return load(lambda: json.dumps(value, ensure_ascii=False, allow_nan=False).encode()) is not None
