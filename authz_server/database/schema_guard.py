"""Keep the commands of one release from changing the schema of another."""

import re
from collections.abc import Callable
from typing import Any

from sqlalchemy import Connection, event, text
from sqlalchemy.engine.interfaces import DBAPICursor
from sqlalchemy.exc import OperationalError

from authz_server.database.orm import Database
from authz_server.database.schema import HEAD, SchemaError, describe_schema
from authz_server.settings.database import DatabaseSettings

# Statements that change nothing begin so; every other one may be a change.
_HARMLESS = re.compile(
    r"[\s(]*(SELECT|SHOW|PRAGMA|BEGIN|COMMIT|ROLLBACK|SAVEPOINT|RELEASE)\b", re.IGNORECASE
)
_REVISION = "SELECT version_num FROM alembic_version"
_MISSING_TABLE = "42P01"


class SchemaGuard:
    """Reads the revision before the first statement, and refuses statements that may change rows.

    Args:
        database: the database of a command.
        settings: name it.

    Attributes:
        refused: whether a change was refused.
        explanation: the problem and the remedy; empty if the schema is this release's, or no
            statement was executed yet.
    """

    def __init__(self, database: Database, settings: DatabaseSettings) -> None:
        self._database = database
        self._settings = settings
        self._is_known = False
        self.refused = False
        self.explanation = ""
        event.listen(database.engine, "before_cursor_execute", self._check)

    def _check(
        self,
        connection: Connection,
        _cursor: DBAPICursor,
        statement: str,
        _parameters: Any,  # noqa: ANN401 - SQLAlchemy's signature
        _context: Any,  # noqa: ANN401
        _executemany: bool,  # noqa: FBT001
    ) -> None:
        if not self._is_known:
            revision, self._is_known = _read_revision(connection), True
            if revision == HEAD:
                return
            self.explanation = describe_schema(revision, self._settings).explain()
            if revision is None:
                self.refused = True
                raise SchemaError(self.explanation)
        if self.explanation and not _HARMLESS.match(statement):
            self.refused = True
            raise SchemaError(self.explanation)

    def require(self) -> None:
        """Raise unless rows may be changed, before anything outside of the database is.

        Raises:
            SchemaError: the schema is another release's, or there is none.
            sqlalchemy.exc.SQLAlchemyError: the database cannot answer.
        """
        with self._database.reading() as session:
            session.execute(text("SELECT 1"))
        if self.explanation:
            self.refused = True
            raise SchemaError(self.explanation)

    def report(self, warn: Callable[[str], None]) -> None:
        """Report a schema of another release that was only read."""
        if self.explanation and not self.refused:
            warn(f"Warning: {self.explanation} Until then, only reading is possible.")


def _read_revision(connection: Connection) -> str | None:
    """Return the revision on the driver's own connection, within its transaction if it has one."""
    cursor = connection.connection.cursor()
    try:
        cursor.execute(_REVISION)
        row = cursor.fetchone()
    except connection.dialect.loaded_dbapi.Error as error:
        if getattr(error, "sqlstate", None) == _MISSING_TABLE or "no such table" in str(error):
            return None
        raise OperationalError(_REVISION, None, error) from error
    finally:
        cursor.close()
    return None if row is None else str(row[0])
