"""SQLite files: durable writes, detection of a removed or replaced file, owner-only mode."""

import math
import os
import sqlite3
import stat
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from sqlalchemy import Connection, Engine, event, text
from sqlalchemy.engine.interfaces import DBAPIConnection, Dialect, ExceptionContext
from sqlalchemy.exc import DisconnectionError, OperationalError
from sqlalchemy.pool import ConnectionPoolEntry, PoolProxiedConnection

from authz_server.database.errors import DatabaseFileError
from authz_server.settings.sources import describe_user

FileIdentity = tuple[int, int] | None
_FILE = "file"
#: The pages in the write-ahead log (16 MB) at which they are copied to the file. Values that are
#: used once change random pages; a longer log more often holds a page twice, which is copied once.
_CHECKPOINT_PAGES = 4_000


def find_file(path: str) -> FileIdentity:
    """Return the identity of the file at ``path``, to detect a replacement; None without one."""
    try:
        found = os.stat(path)  # noqa: PTH116 - runs for every request
    except OSError:
        return None
    return found.st_dev, found.st_ino


def make_durable(engine: Engine, busy_timeout_milliseconds: int) -> None:
    """Use a write-ahead log, sync at each commit, and take the write lock when a change begins.

    Without the early lock, two processes that read first and write later fail at once with
    SQLITE_BUSY_SNAPSHOT, regardless of the busy time-out.
    """

    @event.listens_for(engine, "connect")
    def configure(connection: DBAPIConnection, _record: object) -> None:
        connection.isolation_level = None
        cursor = connection.cursor()
        cursor.execute(f"PRAGMA busy_timeout = {busy_timeout_milliseconds}")
        cursor.execute("PRAGMA journal_mode = WAL")
        cursor.execute("PRAGMA synchronous = FULL")
        cursor.execute(f"PRAGMA wal_autocheckpoint = {_CHECKPOINT_PAGES}")
        cursor.execute("PRAGMA foreign_keys = ON")
        cursor.close()

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        if connection.get_execution_options().get("isolation_level") != "AUTOCOMMIT":
            connection.exec_driver_sql("BEGIN IMMEDIATE")


def open_to_others(path: str) -> str:
    """Return the octal mode of a file that others than its owner can access; else empty."""
    with suppress(OSError):
        mode = stat.S_IMODE(Path(path).stat().st_mode)
        if mode & (stat.S_IRWXG | stat.S_IRWXO):
            return f"{mode:04o}"
    return ""


def follow_file(engine: Engine, path: str, *, may_create: bool) -> None:
    """Drop connections to a file that was removed or replaced, without creating an empty one.

    A connection keeps the file that it opened. After a replacement, its changes would be
    acknowledged and lost, and changes of other processes would not be seen.

    Args:
        engine: of SQLite.
        path: the file.
        may_create: whether to create a file that is missing at the first connection, readable
            only by its owner; SQLite gives its write-ahead log the same mode.
    """
    opened: set[FileIdentity] = set()

    @event.listens_for(engine, "do_connect")
    def require_file(
        _dialect: Dialect, _record: object, _arguments: object, _options: object
    ) -> None:
        if find_file(path) is None:
            if opened:
                raise DatabaseFileError(f"The database file {path} is gone.")
            if not may_create:
                raise DatabaseFileError(
                    f"There is no database file {path}. Check database.url; `authz-server init` "
                    "and `authz-server db upgrade` make a new file."
                )
            os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
        _require_access(path)

    @event.listens_for(engine, "handle_error")
    def name_file(context: ExceptionContext) -> None:
        context.original_exception.add_note(f"the database file {path}")

    @event.listens_for(engine, "connect")
    def remember(_connection: DBAPIConnection, record: ConnectionPoolEntry) -> None:
        record.info[_FILE] = find_file(path)
        opened.add(record.info[_FILE])

    @event.listens_for(engine, "checkout")
    def require_same(
        _connection: DBAPIConnection, record: ConnectionPoolEntry, _proxy: PoolProxiedConnection
    ) -> None:
        if record.info.get(_FILE) != find_file(path):
            raise DisconnectionError("the database file was replaced")


class WriteCheck:
    """Checks that a file takes writes, by a durable one at most once a second.

    Args:
        engine: of SQLite.
        monotonic: returns monotonic seconds.
    """

    def __init__(self, engine: Engine, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._engine = engine
        self._monotonic = monotonic
        self._written_at = -math.inf

    def __call__(self) -> None:
        """Raise unless the file takes writes; a change by another process in progress is fine.

        Raises:
            sqlalchemy.exc.OperationalError: the file, its folder or the disk takes no writes.
        """
        now = self._monotonic()
        if now - self._written_at < 1:
            return
        try:
            with self._engine.begin() as connection:
                # A full disk and a file that takes no writes are only noticed by a write.
                connection.exec_driver_sql("UPDATE alembic_version SET version_num = version_num")
        except OperationalError as error:
            if getattr(error.orig, "sqlite_errorcode", None) != sqlite3.SQLITE_BUSY:
                raise
        self._written_at = now


def _require_access(path: str) -> None:
    """Refuse a file that this process cannot write, or a folder that cannot hold its log."""
    folder = str(Path(path).parent)
    for name, needed in ((path, os.R_OK | os.W_OK), (folder, os.W_OK | os.X_OK)):
        if not _is_accessible(name, needed):
            status = Path(name).stat()
            raise DatabaseFileError(
                f"{'The folder ' if name == folder else ''}{name} cannot be written by "
                f"{describe_user(os.geteuid())}: it belongs to {describe_user(status.st_uid)}, "
                f"mode {stat.S_IMODE(status.st_mode):04o}."
            )


def _is_accessible(path: str, mode: int) -> bool:
    return os.access(path, mode)


def copy_sqlite(engine: Engine, file: Path) -> None:
    """Copy the database into an empty file, consistently.

    Raises:
        SQLAlchemyError: the database cannot be read, or the file cannot be written.
    """
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text("VACUUM INTO :file"), {"file": str(file)})
