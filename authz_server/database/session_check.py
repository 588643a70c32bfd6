"""Check that a database session keeps its state from the first statement to the last.

A pooler that lends a server connection for one transaction or statement keeps neither session
settings nor prepared statements. Time-outs, encodings and durable commits would then be undefined.
"""

import secrets
import time
from collections.abc import Callable
from typing import Any

import psycopg

from authz_server.database.postgresql import DatabaseUnfitError

_ROUNDS = 3
_NAME = "authz_server.probe"
_SET = f"SELECT set_config('{_NAME}', %s, false)"
_READ = f"SELECT current_setting('{_NAME}', true), pg_backend_pid()"
_DURABLE = ("on", "remote_apply")
_REMEDY = (
    "a pooler in between lends a server connection for one {unit} at a time. "
    "Set its pool mode to session (PgBouncer: pool_mode = session), or connect without it."
)

# A change, its record with the names in it, and a revocation; a table that is missing is found by
# the schema's check.
_WRITTEN = (
    *("audit_record", "change", "revocation_cut_off", "revoked_token", "single_use"),
    "audit_name",
)
_FORBIDDEN = """
SELECT current_user, string_agg(name, ', ') FROM unnest(%s::text[]) AS name
WHERE NOT has_table_privilege(to_regclass(name), 'INSERT')
"""

Connect = Callable[[], psycopg.Connection[Any]]


def require_session(connect: Connect) -> None:
    """Raise unless sessions keep their state and may write, and commits are durable.

    Opens two connections.

    Args:
        connect: returns a new connection without autocommit, as the server uses it.

    Raises:
        DatabaseUnfitError: sessions lose their state or may not write, or commits are not durable.
        psycopg.Error: the database does not answer.
    """
    with connect() as first, connect() as second:
        first.autocommit = True
        for _ in range(_ROUNDS):
            _compare(first, second)
        found = first.execute("SHOW synchronous_commit").fetchone()
        forbidden = first.execute(_FORBIDDEN, (list(_WRITTEN),)).fetchone()
    if found is None or found[0] not in _DURABLE:
        raise DatabaseUnfitError(
            f"synchronous_commit is {found and found[0]} in the server's session: a crash of the "
            "database would lose revocations. Set it to on."
        )
    if forbidden is not None and forbidden[1]:
        raise DatabaseUnfitError(
            f"The role {forbidden[0]} may not write {forbidden[1]}: revocations cannot be stored. "
            "Grant it SELECT, INSERT, UPDATE and DELETE on all tables."
        )


def _compare(first: psycopg.Connection[Any], second: psycopg.Connection[Any]) -> None:
    mark = secrets.token_hex(8)
    first.execute(_SET, (mark,))
    before = _read(first)
    try:
        # Within the transaction, the pooler must lend another connection next.
        lent = _read(second)
        if lent[0] == mark or before[0] != mark or _read(first) != before:
            raise DatabaseUnfitError(
                "The database's sessions lose their state: " + _REMEDY.format(unit="transaction")
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
    """Checks sessions at intervals, for readiness.

    Args:
        connect: as for :func:`require_session`.
        monotonic: returns monotonic seconds.
    """

    #: Interval after a good result, and after a bad one.
    GOOD_SECONDS = 60.0
    BAD_SECONDS = 5.0

    def __init__(self, connect: Connect, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._connect = connect
        self._monotonic = monotonic
        self._until = 0.0
        self._fault: DatabaseUnfitError | None = None

    def require(self) -> None:
        """Raise if the last check failed.

        Another check detects a database that does not answer.

        Raises:
            DatabaseUnfitError: sessions did not keep their state.
        """
        if self._monotonic() >= self._until:
            self._check()
        if self._fault is not None:
            raise self._fault

    def _check(self) -> None:
        self._fault = None
        try:
            require_session(self._connect)
        except DatabaseUnfitError as fault:
            self._fault = fault
        except psycopg.Error:
            return
        seconds = self.GOOD_SECONDS if self._fault is None else self.BAD_SECONDS
        self._until = self._monotonic() + seconds
