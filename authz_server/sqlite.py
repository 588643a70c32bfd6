"""What a database in a file needs beside SQLite: durable writes, and that the file stays there."""

import os

from sqlalchemy import Connection, Engine, event
from sqlalchemy.engine.interfaces import DBAPIConnection, Dialect
from sqlalchemy.exc import DisconnectionError
from sqlalchemy.pool import ConnectionPoolEntry, PoolProxiedConnection

FileIdentity = tuple[int, int] | None
_FILE = "file"


def find_file(path: str) -> FileIdentity:
    """Return what tells the file at ``path`` from any other that was or will be there.

    None where there is no file, and for a database in memory.
    """
    try:
        found = os.stat(path)  # noqa: PTH116 - on the way of every request
    except OSError:
        return None
    return found.st_dev, found.st_ino


def make_durable(engine: Engine, busy_timeout_milliseconds: int) -> None:
    """Have SQLite write ahead, sync at each commit, and take the write lock when a change begins.

    Without the early lock, two processes that read first and write later refuse each other at once
    (SQLITE_BUSY_SNAPSHOT) whatever the busy time-out says.
    """

    @event.listens_for(engine, "connect")
    def configure(connection: DBAPIConnection, _record: object) -> None:
        connection.isolation_level = None
        cursor = connection.cursor()
        cursor.execute(f"PRAGMA busy_timeout = {busy_timeout_milliseconds}")
        cursor.execute("PRAGMA journal_mode = WAL")
        cursor.execute("PRAGMA synchronous = FULL")
        cursor.execute("PRAGMA foreign_keys = ON")
        cursor.close()

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        if connection.get_execution_options().get("isolation_level") != "AUTOCOMMIT":
            connection.exec_driver_sql("BEGIN IMMEDIATE")


def follow_file(engine: Engine, path: str) -> None:
    """Let go of a file that was removed or replaced, and make no empty one in its place.

    A connection goes on with the file that it opened, wherever that is by now: a change would be
    acknowledged and lost, and another process's change not seen.
    """
    opened: set[FileIdentity] = set()

    @event.listens_for(engine, "do_connect")
    def require_file(
        dialect: Dialect, _record: object, _arguments: object, _options: object
    ) -> None:
        if opened and find_file(path) is None:
            raise dialect.loaded_dbapi.OperationalError("the database file is gone")

    @event.listens_for(engine, "connect")
    def remember(_connection: DBAPIConnection, record: ConnectionPoolEntry) -> None:
        record.info[_FILE] = find_file(path)
        opened.add(record.info[_FILE])

    @event.listens_for(engine, "checkout")
    def require_same(
        _connection: DBAPIConnection, record: ConnectionPoolEntry, _proxy: PoolProxiedConnection
    ) -> None:
        if record.info.get(_FILE) != find_file(path):
            raise DisconnectionError("the database file is another one now")
