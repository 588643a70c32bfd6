"""Prepared questions to PostgreSQL over connections that the event loop watches.

No thread waits for an answer, and a server that hangs holds nothing but the questions asked.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import psycopg
from psycopg.errors import error_from_result
from psycopg.pq import ExecStatus
from psycopg.pq.abc import PGresult
from sqlalchemy import Engine
from sqlalchemy.exc import OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from authz_server.database.postgresql import (
    BoundedConnection,
    ServerSilentError,
    is_disconnect,
    read_row,
)
from authz_server.serving import turns

T = TypeVar("T")
Row = tuple[Any, ...] | None
Waited = asyncio.Future[Row]


class _Kept:
    """A connection, what it is asked at present, and until when it may take."""

    __slots__ = ("answer", "connection", "deadline", "descriptor", "results", "used")

    def __init__(self, connection: BoundedConnection) -> None:
        self.connection = connection
        self.descriptor = connection.pgconn.socket
        self.answer: Waited | None = None
        self.deadline = 0.0
        self.results: list[PGresult] = []
        self.used = False


class PostgresqlQueries:
    """Asks over a few connections; a question waits for one of them, but not for ever.

    Args:
        loop: watches the connections.
        engine: where they come from, configured as it configures them.
        connections: how many there may be at most.
        maximum_waiting: how many questions may wait for one of them; further ones are refused.
        wait_seconds: how long a question may wait for one.
        answer_seconds: how long an answer may take.
        call: runs what blocks on a thread.
    """

    def __init__(  # noqa: PLR0913 - its parts, by name
        self,
        loop: asyncio.AbstractEventLoop,
        engine: Engine,
        *,
        connections: int,
        maximum_waiting: int,
        wait_seconds: float,
        answer_seconds: float,
        call: Callable[[Callable[[], Any]], Awaitable[Any]],
    ) -> None:
        self._loop = loop
        self._engine = engine
        self._maximum = connections
        self._maximum_waiting = maximum_waiting
        self._wait_seconds = wait_seconds
        self._answer_seconds = answer_seconds
        self._call = call
        self._idle: deque[_Kept] = deque()
        self._kept: set[_Kept] = set()
        self._opening = 0
        self._waiting: deque[tuple[float, asyncio.Future[_Kept | None]]] = deque()
        self._waiting_since = 0.0

    async def fetch_one(self, question: str, value: str | bytes) -> Row:
        """Return the first row of the answer, or None where there is none.

        Raises:
            sqlalchemy.exc.SQLAlchemyError: the database cannot answer.
        """
        while True:
            kept = self._idle.pop() if self._idle else await self._take()
            used = kept.used
            try:
                return await self._ask(kept, question, value)
            except psycopg.Error as error:
                # A connection that was kept may have died unnoticed, and the others with it.
                if not used or isinstance(error, ServerSilentError) or not is_disconnect(error):
                    raise OperationalError("look-up", None, error) from error

    def expire(self) -> None:
        """Give up the answers that have taken too long; called some times a second."""
        now = self._loop.time()
        for kept in [each for each in self._kept if each.answer is not None]:
            if now > kept.deadline:
                self._fail(kept, ServerSilentError("the server has gone silent"))

    def close(self) -> None:
        """Close every connection; the next question opens new ones."""
        for kept in list(self._kept):
            self._fail(kept, psycopg.OperationalError("the connection was closed"))

    async def _take(self) -> _Kept:
        """Return a connection that is free: a new one, or the next that is given back."""
        if len(self._kept) + self._opening < self._maximum:
            self._opening += 1
            return await self._open()
        if len(self._waiting) >= self._maximum_waiting:
            raise PoolTimeoutError("too many look-ups wait for a connection")
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
                raise PoolTimeoutError("no connection for a look-up came free") from None
            # It came free at the last moment.
            kept = waited.result()
        return await self._open() if kept is None else kept

    async def _open(self) -> _Kept:
        """Return a new connection, which is counted as opening already."""
        try:
            connection = await self._call(self._connect)
        except psycopg.Error as error:
            raise OperationalError("look-up", None, error) from error
        finally:
            self._opening -= 1
        kept = _Kept(connection)
        self._kept.add(kept)
        self._loop.add_reader(kept.descriptor, self._read, kept)
        return kept

    def _connect(self) -> BoundedConnection:
        pooled = self._engine.raw_connection()
        connection: BoundedConnection = pooled.driver_connection  # type: ignore[assignment]
        pooled.detach()
        connection.autocommit = True
        connection.pgconn.nonblocking = 1
        return connection

    async def _ask(self, kept: _Kept, question: str, value: str | bytes) -> Row:
        connection = kept.connection
        try:
            if question not in connection.prepared:
                # On a thread, which alone reads from the connection meanwhile.
                self._loop.remove_reader(kept.descriptor)
                await self._call(lambda: connection.prepare(question))
                self._loop.add_reader(kept.descriptor, self._read, kept)
            answer = kept.answer = self._loop.create_future()
            kept.deadline = self._loop.time() + self._answer_seconds
            connection.send(question, value)
            if connection.pgconn.flush():
                self._loop.add_writer(kept.descriptor, self._flush, kept)
        except psycopg.Error as error:
            self._drop(kept)
            raise error from None
        except BaseException:
            self._drop(kept)
            raise
        row: Row = await answer
        return row

    def _flush(self, kept: _Kept) -> None:
        try:
            if kept.connection.pgconn.flush():
                return
        except psycopg.Error as error:
            self._fail(kept, error)
            return
        self._loop.remove_writer(kept.descriptor)

    def _read(self, kept: _Kept) -> None:
        pgconn = kept.connection.pgconn
        try:
            pgconn.consume_input()
            while not pgconn.is_busy():
                result = pgconn.get_result()
                if result is None:
                    break
                kept.results.append(result)
            else:
                return
        except psycopg.Error as error:
            self._fail(kept, error)
            return
        self._finish(kept)

    def _finish(self, kept: _Kept) -> None:
        answer, results = kept.answer, kept.results
        if answer is None:
            # Nothing was asked: the server speaks of its own accord, most likely of its end.
            if kept.connection.pgconn.status != psycopg.pq.ConnStatus.OK:
                self._drop(kept)
            return
        kept.answer, kept.results = None, []
        if len(results) != 1 or results[0].status != ExecStatus.TUPLES_OK:
            error = (
                error_from_result(results[0])
                if len(results) == 1
                else psycopg.OperationalError("the connection has lost step")
            )
            self._drop(kept)
            if not answer.done():
                answer.set_exception(error)
            return
        self._give_back(kept)
        if not answer.done():
            answer.set_result(read_row(kept.connection, results[0]))

    def _give_back(self, kept: _Kept) -> None:
        kept.used = True
        now = self._loop.time()
        # The database answers, and still many wait: more comes than it can answer.
        late = now - self._waiting_since > turns.STALL_SECONDS
        while self._waiting:
            since, waited = self._waiting.popleft()
            if waited.done():
                continue
            if late and len(self._waiting) > turns.FEW and now - since > turns.OVERLOAD_SECONDS:
                waited.set_exception(PoolTimeoutError("more look-ups come than can be answered"))
                continue
            waited.set_result(kept)
            return
        self._idle.append(kept)

    def _fail(self, kept: _Kept, error: psycopg.Error) -> None:
        answer, kept.answer = kept.answer, None
        self._drop(kept)
        if answer is not None and not answer.done():
            answer.set_exception(error)

    def _drop(self, kept: _Kept) -> None:
        if kept not in self._kept:
            return
        self._kept.discard(kept)
        if kept in self._idle:
            self._idle.remove(kept)
        self._loop.remove_reader(kept.descriptor)
        self._loop.remove_writer(kept.descriptor)
        kept.connection.pgconn.finish()
        # A question that waits may open one in its place.
        while self._waiting:
            _, waited = self._waiting.popleft()
            if not waited.done():
                self._opening += 1
                waited.set_result(None)
                return
