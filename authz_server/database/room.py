"""Notice that PostgreSQL has no room for changes: reading still works, and each write fails.

A disk that is full for the write-ahead log stops the server, which every check notices.
"""

import time
from collections.abc import Callable

from sqlalchemy import Connection, Engine, event
from sqlalchemy.engine.interfaces import ExceptionContext
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from authz_server.database.errors import describe_failure
from authz_server.logs import redact

#: The pause between two attempts to take room: each is work for a disk that has none.
TRY_SECONDS = 5.0
# PostgreSQL, appendix A: disk_full and io_error.
_NO_ROOM = frozenset({"53100", "58030"})
_FORBIDDEN = "42501"
# Temporary tables may be on a disk of their own.
_ON_THE_TABLES_DISK = """
SELECT set_config('temp_tablespaces', quote_ident(current_setting('default_tablespace')), true)
"""
# A new file, because tables have room that earlier rows have left.
_TAKE_ROOM = (
    "CREATE TEMPORARY TABLE authz_server_room ON COMMIT DROP AS"
    " SELECT repeat('x', 1000) AS text FROM generate_series(1, 1000)"
)
# For a role without temporary tables: a megabyte of rows, which expired long ago.
_TAKE_ROWS = (
    "INSERT INTO single_use (digest, expires_at)"
    " SELECT sha256(convert_to('room ' || number, 'UTF8')), 0"
    " FROM generate_series(1, 15000) AS number ON CONFLICT DO NOTHING"
)


class RoomCheck:
    """Remembers that a statement of this process found no room, until there is room again.

    Args:
        engine: of PostgreSQL.
        monotonic: returns monotonic seconds.

    Attributes:
        has_failed: whether the last statement that needed room found none.
    """

    def __init__(self, engine: Engine, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._engine = engine
        self._monotonic = monotonic
        self._tried_at = -TRY_SECONDS
        self._reason = ""
        self.has_failed = False

        @event.listens_for(engine, "handle_error")
        def remember(context: ExceptionContext) -> None:
            error = context.original_exception
            if getattr(error, "sqlstate", None) in _NO_ROOM:
                self._reason, self.has_failed = redact(describe_failure(error)), True

    def find_problem(self) -> str:
        """Return why there is no room; empty if there is room again.

        After a failure, takes and gives back a megabyte, at most once in :data:`TRY_SECONDS`. In
        between, and while the database does not answer, the last failure is returned.
        """
        now = self._monotonic()
        if self.has_failed and now >= self._tried_at + TRY_SECONDS:
            self._tried_at = now
            self._try()
        return self._reason if self.has_failed else ""

    def require(self) -> None:
        """Take and give back a megabyte.

        Raises:
            sqlalchemy.exc.SQLAlchemyError: there is no room, or the database does not answer.
        """
        with self._engine.connect() as connection:
            _take_room(connection)
            connection.rollback()

    def _try(self) -> None:
        try:
            self.require()
        except SQLAlchemyError as error:
            self._reason = redact(describe_failure(error))
        else:
            self.has_failed = False


def _take_room(connection: Connection) -> None:
    try:
        connection.exec_driver_sql(_ON_THE_TABLES_DISK)
        connection.exec_driver_sql(_TAKE_ROOM)
    except DBAPIError as error:
        if getattr(error.orig, "sqlstate", None) != _FORBIDDEN:
            raise
        connection.rollback()
        connection.exec_driver_sql(_TAKE_ROWS)
