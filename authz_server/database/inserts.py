"""INSERT with ON CONFLICT, which SQLAlchemy has once for each dialect."""

from typing import TYPE_CHECKING

from sqlalchemy.orm import Session

from authz_server.database.orm import Base

if TYPE_CHECKING:
    from sqlalchemy.dialects import postgresql, sqlite


def insert_into(session: Session, table: type[Base]) -> "postgresql.dml.Insert | sqlite.dml.Insert":
    """Return an INSERT of the session's dialect, and import only that dialect."""
    if session.get_bind().dialect.name == "postgresql":
        from sqlalchemy.dialects.postgresql import insert as insert_postgresql  # noqa: PLC0415

        return insert_postgresql(table)
    from sqlalchemy.dialects.sqlite import insert as insert_sqlite  # noqa: PLC0415

    return insert_sqlite(table)
