"""Prepared queries of every request, without the cost of the ORM.

An introspection queries the database once. SQLAlchemy's connection and result objects would take
longer than the rest of the request. A few connections are taken out of the engine's pool, kept, and
used directly.
"""

import sqlite3
import threading
import weakref
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any, TypeVar

from sqlalchemy import Engine
from sqlalchemy.exc import OperationalError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.pool import QueuePool

from authz_server.database.errors import NoAnswerError, is_disconnect
from authz_server.database.sqlite import find_file
from authz_server.waiting import Lane, Step
from keys.forks import on_fork

T = TypeVar("T")

_inherited: list[deque[Any]] = []


class PreparedQueries:
    """A few connections on which each statement is its own transaction.

    Args:
        engine: opens and configures the connections.
        connections: the largest number of connections.
        wait_seconds: the longest wait for a free connection.
        file: the path of an SQLite file; empty for any other database.
        waits: whether a query to SQLite waits for a lock or for the pool; if not, it fails at
            once.
    """

    def __init__(
        self,
        engine: Engine,
        connections: int,
        wait_seconds: float,
        file: str = "",
        *,
        waits: bool = True,
    ) -> None:
        self._engine = engine
        self._waits = waits
        self._connections = connections
        self._wait_seconds = wait_seconds
        self._file = file
        self._opened = find_file(file) if file else None
        self._is_sqlite = engine.dialect.name == "sqlite"
        self._error: type[Exception] = engine.dialect.loaded_dbapi.Error
        self._renew()
        on_fork(self._after_fork)

    def fetch_one(self, query: str, value: object) -> tuple[Any, ...] | None:
        """Return the first row, or None if there is none.

        Args:
            query: a statement with one ``?``, the same text each time. One that writes is not
                repeated on another connection: it may have been done.
            value: the value of the parameter.

        Raises:
            sqlalchemy.exc.SQLAlchemyError: the database cannot answer.
        """
        if not self._free.acquire(timeout=self._wait_seconds):
            raise PoolTimeoutError("no connection became free for a prepared query")
        try:
            if self._file:
                self._follow_file()
            return self._fetch(query, value)
        finally:
            self._free.release()

    def write(self, act: Callable[[Any], T]) -> T:
        """Return the result of ``act``, committed and synced to disk; for SQLite only.

        Args:
            act: makes changes on a connection of the driver that holds the write lock.

        Raises:
            sqlalchemy.exc.SQLAlchemyError: the file stays locked, or cannot be written.
        """

        def transaction(connection: Any) -> T:  # noqa: ANN401 - the driver's
            connection.execute("BEGIN IMMEDIATE")
            result = act(connection)
            connection.execute("COMMIT")
            return result

        return self._change(transaction)

    def insert(self, statement: str, value: bytes) -> bool:
        """Insert rows by one statement, committed and synced to disk; for SQLite only.

        Args:
            statement: an INSERT whose one parameter is ``?1``, the same text each time.
            value: the value of the parameter.

        Returns:
            False if one of the rows breaks a constraint; then none is inserted.

        Raises:
            sqlalchemy.exc.SQLAlchemyError: as :meth:`write`.
        """

        def insertion(connection: Any) -> bool:  # noqa: ANN401 - the driver's
            try:
                connection.execute(statement, (value,))
            except sqlite3.IntegrityError:
                return False
            return True

        return self._change(insertion)

    def _change(self, act: Callable[[Any], T]) -> T:
        if not self._free.acquire(timeout=self._wait_seconds):
            raise PoolTimeoutError("no connection became free for a change")
        try:
            if self._file:
                self._follow_file()
            return self._change_on(self._take(), act)
        finally:
            self._free.release()

    def _take(self) -> Any:  # noqa: ANN401 - of either driver
        try:
            return self._idle.pop() if self._idle else self._open()
        except IndexError:
            return self._open()

    def _change_on(self, connection: Any, act: Callable[[Any], T]) -> T:  # noqa: ANN401 - the driver's
        try:
            result = act(connection)
        except self._error as error:
            # Closing it rolls back.
            self._drop(connection)
            raise OperationalError("prepared change", None, error) from error
        self._idle.append(connection)
        return result

    def without_waiting(self) -> "PreparedQueries | None":
        """Return a copy with one connection that never waits for a lock; None for PostgreSQL."""
        if not self._is_sqlite:
            return None
        return PreparedQueries(self._engine, 1, self._wait_seconds, self._file, waits=False)

    @property
    def engine(self) -> Engine:
        """The engine that opens the connections."""
        return self._engine

    @property
    def kept(self) -> int:
        """The number of open idle connections."""
        return len(self._idle)

    def close(self) -> None:
        """Close the idle connections; the next query opens new ones."""
        while self._idle:
            self._drop(self._idle.pop())

    def _follow_file(self) -> None:
        found = find_file(self._file)
        if found != self._opened:
            self._opened = found
            self.close()

    def _after_fork(self) -> None:
        # The parent's connections belong to the parent: neither use nor close them here.
        _inherited.append(self._idle)
        self._closing.detach()
        self._renew()

    def _renew(self) -> None:
        self._idle: deque[Any] = deque()
        # Close the connections even if this object is dropped without close().
        self._closing = weakref.finalize(self, _close_all, self._idle, self._error)
        self._free = threading.BoundedSemaphore(self._connections)

    def _fetch(self, query: str, value: object) -> tuple[Any, ...] | None:
        # A kept connection may have been lost unnoticed, and all others with it.
        while self._idle:
            try:
                connection = self._idle.pop()
            except IndexError:
                break
            try:
                return self._execute(connection, query, value)
            except self._error as error:
                self._drop(connection)
                final = self._is_sqlite or not is_repeatable(query)
                if final or not is_disconnect(error) or isinstance(error, NoAnswerError):
                    raise OperationalError("prepared query", None, error) from error
        return self._fetch_on_new(query, value)

    def _fetch_on_new(self, query: str, value: object) -> tuple[Any, ...] | None:
        try:
            connection = self._open()
        except self._error as error:
            raise OperationalError("prepared query", None, error) from error
        try:
            return self._execute(connection, query, value)
        except self._error as error:
            self._drop(connection)
            raise OperationalError("prepared query", None, error) from error

    def _execute(
        self,
        connection: Any,  # noqa: ANN401 - of either driver
        query: str,
        value: object,
    ) -> tuple[Any, ...] | None:
        if self._is_sqlite:
            row = connection.execute(query, (value,)).fetchone()
        else:
            row = connection.fetch_one(query, value)
        self._idle.append(connection)
        return None if row is None else tuple(row)

    def _open(self) -> Any:  # noqa: ANN401 - of either driver
        pool = self._engine.pool
        if not self._waits and isinstance(pool, QueuePool) and pool.checkedout() >= pool.size():
            raise PoolTimeoutError("every connection is in use")
        pooled = self._engine.raw_connection()
        connection = pooled.driver_connection
        pooled.detach()
        if connection is None:
            raise SQLAlchemyError("the pool gave no connection")
        if not self._is_sqlite:
            connection.autocommit = True
            return connection
        # SQLAlchemy leaves the driver to begin transactions, which nothing here would commit.
        connection.isolation_level = None
        if not self._waits:
            connection.execute("PRAGMA busy_timeout = 0")
        return connection

    def _drop(self, connection: Any) -> None:  # noqa: ANN401 - of either driver
        try:
            connection.close()
        except self._error:
            return


class PreparedQuery(Step[tuple[Any, ...] | None]):
    """One query, which an event loop may send over connections of its own."""

    __slots__ = ("query", "value")

    def __init__(self, prepared_queries: PreparedQueries, query: str, value: str | bytes) -> None:
        super().__init__(Lane.DATABASE, partial(prepared_queries.fetch_one, query, value))
        self.query = query
        self.value = value


def is_repeatable(query: str) -> bool:
    """Return whether a query only reads, so that it may be sent twice."""
    return query.startswith("SELECT")


def _close_all(connections: deque[Any], error: type[Exception]) -> None:
    while connections:
        with suppress(error):
            connections.pop().close()
