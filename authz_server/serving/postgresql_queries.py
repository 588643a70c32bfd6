"""Prepared queries to PostgreSQL over connections that the event loop watches.

No thread waits for a result, and a hung server delays only the queries sent to it.
"""

import asyncio
import sys
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import psycopg
from psycopg.errors import error_from_result
from psycopg.pq import ConnStatus, ExecStatus
from psycopg.pq.abc import PGresult
from sqlalchemy import Engine
from sqlalchemy.exc import OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from authz_server.database.errors import is_disconnect
from authz_server.database.postgresql import BoundedConnection, ServerSilentError, read_row
from authz_server.database.prepared_queries import is_repeatable
from authz_server.serving import turns

_FAILED = (ExecStatus.FATAL_ERROR, ExecStatus.BAD_RESPONSE, ExecStatus.PIPELINE_ABORTED)

T = TypeVar("T")
Row = tuple[Any, ...] | None
Waited = asyncio.Future[Row]

#: How many queries may be under way on a connection. All connections together have as many as the
#: loop answers in a long turn: with fewer, it would have nothing to do for the rest of the turn.
DEPTH = 32


class _Query:
    """A query that was sent: where its row goes, and by when it has to come."""

    __slots__ = ("answer", "deadline", "results")

    def __init__(self, answer: Waited, deadline: float) -> None:
        self.answer = answer
        self.deadline = deadline
        self.results: list[PGresult] = []


class _Kept:
    """A connection in pipeline mode, with the queries under way in the order of their answers."""

    __slots__ = ("connection", "descriptor", "is_usable", "under_way", "used")

    def __init__(self, connection: BoundedConnection) -> None:
        self.connection = connection
        self.descriptor = connection.pgconn.socket
        self.under_way: deque[_Query] = deque()
        self.used = False
        # False after a failure: it ends with its last answer.
        self.is_usable = True


class PostgresqlQueries:
    """Sends queries over a few connections; the wait for a connection is limited.

    Args:
        loop: watches the connections.
        engine: opens and configures the connections.
        connections: the largest number of connections.
        depth: how many queries may be under way on each. A connection with one at a time would
            answer one in each round trip, which under load is a turn of the loop or longer.
        maximum_waiting: how many queries may wait for a connection; further ones are refused.
        wait_seconds: the longest wait for a connection.
        answer_seconds: the longest wait for a result.
        call: runs blocking calls on a thread.
    """

    def __init__(  # noqa: PLR0913 - its parts, by name
        self,
        loop: asyncio.AbstractEventLoop,
        engine: Engine,
        *,
        connections: int,
        depth: int = DEPTH,
        maximum_waiting: int,
        wait_seconds: float,
        answer_seconds: float,
        call: Callable[[Callable[[], Any]], Awaitable[Any]],
    ) -> None:
        self._loop = loop
        self._engine = engine
        self._maximum = connections
        self._depth = depth
        self._maximum_waiting = maximum_waiting
        self._wait_seconds = wait_seconds
        self._answer_seconds = answer_seconds
        self._call = call
        self._kept: list[_Kept] = []
        self._opening = 0
        self._waiting: deque[tuple[float, asyncio.Future[_Kept | None]]] = deque()
        self._waiting_since = 0.0

    async def fetch_one(self, query: str, value: str | bytes) -> Row:
        """Return the first row, or None if there is none; a query that writes is sent once.

        Raises:
            sqlalchemy.exc.SQLAlchemyError: the database cannot answer.
        """
        while True:
            kept = self._find_free() or await self._acquire()
            used = kept.used
            try:
                return await self._query(kept, query, value)
            except psycopg.Error as error:
                # A kept connection may have been lost unnoticed, and the others with it.
                final = (
                    not used
                    or not is_repeatable(query)
                    or isinstance(error, (ServerSilentError, psycopg.DataError))
                )
                if final or not is_disconnect(error):
                    raise OperationalError("prepared query", None, error) from error

    def has_room(self) -> bool:
        """Return whether few queries wait for a connection, so that another is sent soon."""
        return len(self._waiting) < self._maximum

    def expire(self) -> None:
        """Fail the queries that have taken too long; called several times a second."""
        now = self._loop.time()
        for kept in list(self._kept):
            if kept.under_way and now > kept.under_way[0].deadline:
                self._fail(kept, ServerSilentError("the server has gone silent"))

    def close(self) -> None:
        """Close every connection; the next query opens new ones."""
        for kept in list(self._kept):
            self._fail(kept, psycopg.OperationalError("the connection was closed"))

    def _find_free(self) -> _Kept | None:
        """Return the connection with the fewest queries under way; None: open one, or wait."""
        best = min(self._kept, key=_load, default=None)
        if best is None or _load(best) >= self._depth:
            return None
        return None if best.under_way and self._may_open() else best

    def _may_open(self) -> bool:
        return len(self._kept) + self._opening < self._maximum

    async def _acquire(self) -> _Kept:
        """Return a free connection: a new one, or the next that is released."""
        if self._may_open():
            self._opening += 1
            return await self._open()
        if len(self._waiting) >= self._maximum_waiting:
            raise PoolTimeoutError("too many queries wait for a connection")
        waited: asyncio.Future[_Kept | None] = self._loop.create_future()
        now = self._loop.time()
        if not self._waiting:
            self._waiting_since = now
        self._waiting.append((now, waited))
        try:
            async with asyncio.timeout(self._wait_seconds):
                kept = await waited
        except TimeoutError:
            if waited.cancelled():
                raise PoolTimeoutError("no connection became free for a prepared query") from None
            # The connection was assigned at the last moment.
            kept = waited.result()
        if kept is None:
            return await self._open()
        # It may have failed after it was assigned.
        return kept if kept.is_usable else self._find_free() or await self._acquire()

    async def _open(self) -> _Kept:
        """Return a new connection, which the caller has counted as opening."""
        opening = asyncio.ensure_future(self._call(self._connect))
        try:
            connection = await asyncio.shield(opening)
        except psycopg.Error as error:
            raise OperationalError("prepared query", None, error) from error
        except asyncio.CancelledError:
            # The thread goes on; nothing else would close the connection.
            opening.add_done_callback(_close_unneeded)
            raise
        finally:
            self._opening -= 1
        kept = _Kept(connection)
        self._kept.append(kept)
        self._loop.add_reader(kept.descriptor, self._receive, kept)
        return kept

    def _connect(self) -> BoundedConnection:
        pooled = self._engine.raw_connection()
        connection: BoundedConnection = pooled.driver_connection  # type: ignore[assignment]
        pooled.detach()
        connection.autocommit = True
        connection.pgconn.nonblocking = 1
        connection.pgconn.enter_pipeline_mode()
        return connection

    async def _query(self, kept: _Kept, query: str, value: str | bytes) -> Row:
        connection = kept.connection
        try:
            connection.send(query, value)
            if connection.pgconn.flush():
                self._loop.add_writer(kept.descriptor, self._flush, kept)
        except psycopg.DataError:
            self._release(kept)
            raise
        except psycopg.Error as error:
            self._fail(kept, error)
            raise
        answer: Waited = self._loop.create_future()
        kept.under_way.append(_Query(answer, self._loop.time() + self._answer_seconds))
        pgconn = connection.pgconn
        if pgconn.status != ConnStatus.OK or not pgconn.is_busy():
            # libpq may read while it sends: the end of the connection, or earlier answers.
            self._loop.call_soon(self._receive, kept)
        return await answer

    def _flush(self, kept: _Kept) -> None:
        try:
            if kept.connection.pgconn.flush():
                return
        except psycopg.Error as error:
            self._fail(kept, error)
            return
        self._loop.remove_writer(kept.descriptor)

    def _receive(self, kept: _Kept) -> None:
        pgconn, under_way = kept.connection.pgconn, kept.under_way
        was_none = False
        try:
            pgconn.consume_input()
            while under_way and not pgconn.is_busy():
                result = pgconn.get_result()
                if result is None:
                    if was_none:
                        break
                elif result.status == ExecStatus.PIPELINE_SYNC:
                    self._finish(kept, under_way.popleft())
                else:
                    under_way[0].results.append(result)
                was_none = result is None
        except psycopg.Error as error:
            self._fail(kept, error)
            return
        if pgconn.status != ConnStatus.OK:
            # Most likely the server is shutting down.
            failed = _find_failed(under_way[0].results) if under_way else None
            self._fail(kept, _error_of(failed, "the connection is lost"))

    def _finish(self, kept: _Kept, query: _Query) -> None:
        failed = _find_failed(query.results)
        if failed is not None or not query.results:
            kept.is_usable = False
            if not query.answer.done():
                query.answer.set_exception(_error_of(failed, "the connection is out of sync"))
        else:
            kept.used = True
            if not query.answer.done():
                query.answer.set_result(read_row(kept.connection, query.results[-1]))
        self._release(kept)

    def _release(self, kept: _Kept) -> None:
        """Give the connection to the next query that waits; end it after a failure."""
        if not kept.is_usable:
            # The queries behind the failed one are still answered.
            if not kept.under_way:
                self._drop(kept)
            return
        now = self._loop.time()
        # Many queries wait although the database answers: it is overloaded.
        late = now - self._waiting_since > turns.STALL_SECONDS
        while self._waiting:
            since, waited = self._waiting.popleft()
            if waited.done():
                continue
            if late and len(self._waiting) > turns.FEW and now - since > turns.OVERLOAD_SECONDS:
                waited.set_exception(PoolTimeoutError("more queries arrive than can be answered"))
                continue
            waited.set_result(kept)
            return

    def _fail(self, kept: _Kept, error: psycopg.Error) -> None:
        self._drop(kept)
        while kept.under_way:
            answer = kept.under_way.popleft().answer
            if not answer.done():
                answer.set_exception(error)

    def _drop(self, kept: _Kept) -> None:
        if kept not in self._kept:
            return
        self._kept.remove(kept)
        kept.is_usable = False
        self._loop.remove_reader(kept.descriptor)
        self._loop.remove_writer(kept.descriptor)
        kept.connection.pgconn.finish()
        # A waiting query may open a connection in its place.
        while self._waiting:
            _, waited = self._waiting.popleft()
            if not waited.done():
                self._opening += 1
                waited.set_result(None)
                return


def _load(kept: _Kept) -> int:
    return len(kept.under_way) if kept.is_usable else sys.maxsize


def _find_failed(results: list[PGresult]) -> PGresult | None:
    return next((each for each in results if each.status in _FAILED), None)


def _error_of(failed: PGresult | None, otherwise: str) -> psycopg.Error:
    return psycopg.OperationalError(otherwise) if failed is None else error_from_result(failed)


def _close_unneeded(opening: asyncio.Future[BoundedConnection]) -> None:
    if not opening.cancelled() and opening.exception() is None:
        opening.result().close()
