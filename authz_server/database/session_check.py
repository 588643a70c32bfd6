"""Whether a session is the server's own from its first statement to its last.

A pooler that lends a server connection for one transaction or statement keeps neither what SET has
set nor what was prepared: time-outs, encodings and durable commits would be left to chance.
"""

import secrets
import time
from collections.abc import Callable
from typing import Any

import psycopg

from authz_server.database.errors import DatabaseUnfitError

_ROUNDS = 3
_NAME = "authz_server.probe"
_SET = f"SELECT set_config('{_NAME}', %s, false)"
_READ = f"SELECT current_setting('{_NAME}', true), pg_backend_pid()"
_DURABLE = ("on", "remote_apply")
_REMEDY = (
    "a pooler in between lends server connections for single {unit}s. "
    "Set its pool mode to session (PgBouncer: pool_mode = session), or connect without it."
)

Connect = Callable[[], psycopg.Connection[Any]]


def require_session(connect: Connect) -> None:
    """Return where sessions hold and commits are durable; opens two connections.

    Args:
        connect: returns a new connection as the server uses it, without autocommit.

    Raises:
        DatabaseUnfitError: they do not.
        psycopg.Error: the database does not answer.
    """
    with connect() as first, connect() as second:
        first.autocommit = True
        for _ in range(_ROUNDS):
            _compare(first, second)
        found = first.execute("SHOW synchronous_commit").fetchone()
    if found is None or found[0] not in _DURABLE:
        raise DatabaseUnfitError(
            f"synchronous_commit is {found and found[0]} in the server's session: a crash of the "
            "database would lose revocations. See what sets it."
        )


def _compare(first: psycopg.Connection[Any], second: psycopg.Connection[Any]) -> None:
    mark = secrets.token_hex(8)
    first.execute(_SET, (mark,))
    before = _read(first)
    try:
        # A transaction holds the server connection that the pooler would lend next.
        lent = _read(second)
        if lent[0] == mark or before[0] != mark or _read(first) != before:
            raise DatabaseUnfitError(
                "The database's sessions do not hold: " + _REMEDY.format(unit="transaction")
            )
    except psycopg.errors.ProtocolViolation as error:
        raise DatabaseUnfitError(
            "The database takes no transactions: " + _REMEDY.format(unit="statement")
        ) from error
    finally:
        if not second.closed:
            second.rollback()


def _read(connection: psycopg.Connection[Any]) -> tuple[Any, ...]:
    row = connection.execute(_READ).fetchone()
    return row or ("", 0)


class SessionReadiness:
    """Asks now and then whether sessions hold, for readiness.

    Args:
        connect: as for :func:`require_session`.
        monotonic: counts seconds.
    """

    #: How long a good answer holds, and how long another one.
    GOOD_SECONDS = 60.0
    BAD_SECONDS = 5.0

    def __init__(self, connect: Connect, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._connect = connect
        self._monotonic = monotonic
        self._until = 0.0
        self._fault: DatabaseUnfitError | None = None

    def require(self) -> None:
        """Return where sessions held when they were last looked at.

        A database that does not answer is found by another check.

        Raises:
            DatabaseUnfitError: they did not.
        """
        if self._monotonic() >= self._until:
            self._look()
        if self._fault is not None:
            raise self._fault

    def _look(self) -> None:
        self._fault = None
        try:
            require_session(self._connect)
        except DatabaseUnfitError as fault:
            self._fault = fault
        except psycopg.Error:
            return
        seconds = self.GOOD_SECONDS if self._fault is None else self.BAD_SECONDS
        self._until = self._monotonic() + seconds
