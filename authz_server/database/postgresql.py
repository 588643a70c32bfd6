"""A PostgreSQL connection with a time limit for answers, and cheap prepared queries.

The server enforces ``statement_timeout``. A hung server or a network that drops packets does not,
so the client limits its own waiting.
"""

import select
import time
from typing import Any, ClassVar

import psycopg
from psycopg.abc import RV, PQGen
from psycopg.adapt import Transformer
from psycopg.errors import error_from_result
from psycopg.pq import ExecStatus, Format
from psycopg.pq.abc import PGconn, PGresult

from authz_server.database.errors import DatabaseStateError, NoAnswerError

#: How much longer than the server a connection waits, so that a live server times out first.
_GRACE_SECONDS = 0.5


class ServerSilentError(NoAnswerError, psycopg.OperationalError):
    """The server neither answered in time nor closed the connection."""


class DatabaseUnfitError(DatabaseStateError, psycopg.OperationalError):
    """The database answers but cannot be used until an operator acts.

    The message gives the reason and the remedy as sentences.
    """


class NotPrimaryError(DatabaseStateError, psycopg.OperationalError):
    """The server is a replica, a former primary or read-only; waiting may help.

    The message gives the reason and the remedy as sentences.
    """

    may_pass: ClassVar[bool] = True


class BoundedConnection(psycopg.Connection[Any]):
    """A connection whose statements fail if an answer takes too long.

    Attributes:
        limit_seconds: the longest wait for one answer.
    """

    limit_seconds: ClassVar[float]

    def __init__(self, pgconn: PGconn, *arguments: Any, **named: Any) -> None:  # noqa: ANN401 - psycopg's
        super().__init__(pgconn, *arguments, **named)
        #: The names of prepared queries, by their text.
        self.prepared: dict[str, bytes] = {}

    def fetch_one(self, query: str, value: str | int | bytes) -> tuple[Any, ...] | None:
        """Return the first row of a prepared query, as its own transaction; None: no row.

        A psycopg cursor would take three times as long as libpq itself.

        Args:
            query: a SELECT with ``?``, the same text each time.
            value: the value of the parameter.

        Raises:
            psycopg.Error: the server refuses, is gone, or does not answer in time.
        """
        parameter, form = _encode(value)
        self._prepare(query)
        self.pgconn.send_query_prepared(self.prepared[query], [parameter], [form])
        return read_row(self, self._await_result())

    def send(self, query: str, value: str | int | bytes) -> None:
        """Send a query in pipeline mode, behind those under way; prepare it first if necessary.

        The results of each query end with PIPELINE_SYNC, so that a failure ends with its query.

        Raises:
            psycopg.DataError: a text holds NUL; nothing was sent.
            psycopg.Error: the connection is gone.
        """
        parameter, form = _encode(value)
        name = self.prepared.get(query)
        if name is None:
            name = self.prepared[query] = self._new_name()
            self.pgconn.send_prepare(name, _numbered(query))
        self.pgconn.send_query_prepared(name, [parameter], [form])
        self.pgconn.pipeline_sync()

    def _prepare(self, query: str) -> None:
        if query not in self.prepared:
            name = self._new_name()
            self.pgconn.send_prepare(name, _numbered(query))
            self._await_result()
            self.prepared[query] = name

    def _new_name(self) -> bytes:
        return b"query_%d" % len(self.prepared)

    def _await_result(self) -> PGresult:
        pgconn, deadline = self.pgconn, time.monotonic() + self.limit_seconds
        socket = select.poll()
        while (unsent := pgconn.flush()) or pgconn.is_busy():
            socket.register(pgconn.socket, select.POLLIN | (select.POLLOUT if unsent else 0))
            if not socket.poll(max(0.0, deadline - time.monotonic()) * 1_000):
                pgconn.finish()
                raise ServerSilentError("the server does not answer")
            pgconn.consume_input()
        results = []
        while (result := pgconn.get_result()) is not None:
            results.append(result)
        if len(results) != 1:
            raise psycopg.OperationalError("the connection is out of sync")
        if results[0].status not in (ExecStatus.TUPLES_OK, ExecStatus.COMMAND_OK):
            raise error_from_result(results[0])
        return results[0]

    def wait(self, gen: PQGen[RV], interval: float = 0.1, timeout: float | None = None) -> RV:
        """Wait as psycopg does, with a time limit; a connection in an unknown state is closed."""
        if timeout is not None:
            return super().wait(gen, interval, timeout)
        deadline = time.monotonic() + self.limit_seconds
        try:
            return super().wait(gen, interval, self.limit_seconds)
        except psycopg.OperationalError:
            if time.monotonic() < deadline:
                raise
            self.pgconn.finish()
            raise ServerSilentError("the server does not answer") from None


def _encode(value: str | int | bytes) -> tuple[bytes, Format]:
    if isinstance(value, bytes):
        return value, Format.BINARY
    parameter = str(value).encode()
    if b"\0" in parameter:
        raise psycopg.DataError("a text holds NUL")
    return parameter, Format.TEXT


def _numbered(query: str) -> bytes:
    return query.replace("?", "$1").encode()


def bounded_connection(statement_timeout_seconds: float) -> type[BoundedConnection]:
    """Return a connection class that waits a little longer than ``statement_timeout_seconds``."""

    class _Bounded(BoundedConnection):
        limit_seconds: ClassVar[float] = statement_timeout_seconds + _GRACE_SECONDS

    return _Bounded


def read_row(connection: BoundedConnection, result: PGresult) -> tuple[Any, ...] | None:
    """Return the first row of a result as Python values; None if it is empty."""
    if not result.ntuples:
        return None
    row = Transformer(connection)
    row.set_pgresult(result)
    return row.load_row(0, tuple)
