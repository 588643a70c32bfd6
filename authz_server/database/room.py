"""Notice that PostgreSQL has no room for changes: reading still works, and each write fails.

A disk that is full for the write-ahead log stops the server, which every check notices.
"""

from sqlalchemy import Engine, event
from sqlalchemy.engine.interfaces import ExceptionContext
from sqlalchemy.exc import DBAPIError

# PostgreSQL, appendix A: disk_full and io_error.
_NO_ROOM = frozenset({"53100", "58030"})
_FORBIDDEN = "42501"
# A new file, because tables have room that earlier rows have left.
_TAKE_ROOM = (
    "CREATE TEMPORARY TABLE authz_server_room ON COMMIT DROP AS"
    " SELECT repeat('x', 1000) AS text FROM generate_series(1, 1000)"
)


class RoomCheck:
    """Remembers that a statement of this process found no room, until there is room again.

    Args:
        engine: of PostgreSQL.

    Attributes:
        has_failed: whether the last statement that needed room found none.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self.has_failed = False

        @event.listens_for(engine, "handle_error")
        def remember(context: ExceptionContext) -> None:
            if getattr(context.original_exception, "sqlstate", None) in _NO_ROOM:
                self.has_failed = True

    def try_again(self) -> None:
        """Take and give back a megabyte.

        Raises:
            sqlalchemy.exc.SQLAlchemyError: there is no room, or the database cannot answer.
        """
        try:
            with self._engine.connect() as connection:
                connection.exec_driver_sql(_TAKE_ROOM)
                connection.rollback()
        except DBAPIError as error:
            # A role without temporary tables has no way to know: the next failure counts.
            if getattr(error.orig, "sqlstate", None) != _FORBIDDEN:
                raise
        self.has_failed = False
