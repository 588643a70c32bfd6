"""A PostgreSQL connection that gives up on a silent server, and asks prepared questions cheaply.

``statement_timeout`` is kept by the server; one that hangs, or a network that drops everything,
keeps nothing. Then the waiting itself has to end.
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

#: How much longer than the server a connection waits, so that a server alive speaks first.
_GRACE_SECONDS = 0.5


class ServerSilentError(psycopg.OperationalError):
    """The server did not answer in time, nor did it end the connection."""


class BoundedConnection(psycopg.Connection[Any]):
    """A connection whose statements end in an error when an answer takes too long.

    Attributes:
        limit_seconds: how long one answer may take.
    """

    limit_seconds: ClassVar[float]

    def __init__(self, pgconn: PGconn, *arguments: Any, **named: Any) -> None:  # noqa: ANN401 - psycopg's
        super().__init__(pgconn, *arguments, **named)
        #: The names of the questions that are prepared.
        self.prepared: dict[str, bytes] = {}

    def ask(self, question: str, value: str | int | bytes) -> tuple[Any, ...] | None:
        """Return the first row of a prepared question, as its own transaction; None: no row.

        What psycopg's cursors do beyond that costs three times what libpq itself does.

        Args:
            question: a SELECT with ``?``, the same text each time.
            value: what stands for it.

        Raises:
            psycopg.Error: the server refuses, is gone, or has gone silent.
        """
        self.prepare(question)
        self.send(question, value)
        return read_row(self, self._await_result())

    def prepare(self, question: str) -> None:
        """Prepare a question, once; waits for the server.

        Raises:
            psycopg.Error: the server refuses, is gone, or has gone silent.
        """
        if question not in self.prepared:
            name = f"look_up_{len(self.prepared)}".encode()
            self.pgconn.send_prepare(name, question.replace("?", "$1").encode())
            self._await_result()
            self.prepared[question] = name

    def send(self, question: str, value: str | int | bytes) -> None:
        """Ask a prepared question; the caller reads the result.

        Raises:
            psycopg.Error: the connection is gone, or a text holds NUL.
        """
        if isinstance(value, bytes):
            parameter, form = value, Format.BINARY
        else:
            parameter, form = str(value).encode(), Format.TEXT
            if b"\0" in parameter:
                raise psycopg.DataError("a text holds NUL")
        self.pgconn.send_query_prepared(self.prepared[question], [parameter], [form])

    def _await_result(self) -> PGresult:
        pgconn, deadline = self.pgconn, time.monotonic() + self.limit_seconds
        socket = select.poll()
        while (unsent := pgconn.flush()) or pgconn.is_busy():
            socket.register(pgconn.socket, select.POLLIN | (select.POLLOUT if unsent else 0))
            if not socket.poll(max(0.0, deadline - time.monotonic()) * 1_000):
                pgconn.finish()
                raise ServerSilentError("the server has gone silent")
            pgconn.consume_input()
        results = []
        while (result := pgconn.get_result()) is not None:
            results.append(result)
        if len(results) != 1:
            raise psycopg.OperationalError("the connection has lost step")
        if results[0].status not in (ExecStatus.TUPLES_OK, ExecStatus.COMMAND_OK):
            raise error_from_result(results[0])
        return results[0]

    def wait(self, gen: PQGen[RV], interval: float = 0.1, timeout: float | None = None) -> RV:
        """Wait as psycopg does, but not for ever; a connection in doubt is closed."""
        if timeout is not None:
            return super().wait(gen, interval, timeout)
        deadline = time.monotonic() + self.limit_seconds
        try:
            return super().wait(gen, interval, self.limit_seconds)
        except psycopg.OperationalError:
            if time.monotonic() < deadline:
                raise
            self.pgconn.finish()
            raise ServerSilentError("the server has gone silent") from None


def bounded_connection(statement_timeout_seconds: float) -> type[BoundedConnection]:
    """Return the class of connections that wait a little longer than the server itself does."""

    class _Bounded(BoundedConnection):
        limit_seconds: ClassVar[float] = statement_timeout_seconds + _GRACE_SECONDS

    return _Bounded


def read_row(connection: BoundedConnection, result: PGresult) -> tuple[Any, ...] | None:
    """Return the first row of a result as Python values; None where it has no row."""
    if not result.ntuples:
        return None
    row = Transformer(connection)
    row.set_pgresult(result)
    return row.load_row(0, tuple)


def is_disconnect(error: BaseException) -> bool:
    """Return whether the connection is lost, so that the question is worth asking on another."""
    state = getattr(error, "sqlstate", None)
    # PostgreSQL, appendix A: 08 is lost connections, 57P01 to 57P03 a server going or coming.
    return state is None or state.startswith("08") or state in {"57P01", "57P02", "57P03"}
