"""A PostgreSQL connection that gives up on a server which has gone silent.

``statement_timeout`` is kept by the server; one that hangs, or a network that drops everything,
keeps nothing. Then the waiting itself has to end.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import psycopg
from psycopg.abc import RV, PQGen
from sqlalchemy import Engine, event

#: How much longer than the server a connection waits, so that a server alive speaks first.
_GRACE_SECONDS = 0.5


class ServerSilentError(psycopg.OperationalError):
    """The server did not answer in time, nor did it end the connection."""


def bound_waiting(engine: Engine, statement_timeout_seconds: float) -> None:
    """Have every connection of ``engine`` end in an error when an answer takes too long."""

    class BoundedConnection(_BoundedConnection):
        limit_seconds: ClassVar[float] = statement_timeout_seconds + _GRACE_SECONDS

    connect: Callable[..., psycopg.Connection[Any]] = BoundedConnection.connect

    @event.listens_for(engine, "do_connect")
    def open_bounded(
        _dialect: object, _record: object, arguments: Sequence[str], named: Mapping[str, Any]
    ) -> psycopg.Connection[Any]:
        return connect(*arguments, **named)


class _BoundedConnection(psycopg.Connection[Any]):
    limit_seconds: ClassVar[float]

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
