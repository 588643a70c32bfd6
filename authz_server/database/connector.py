"""Open connections to PostgreSQL with the session settings that the server needs.

The settings are made after connecting. The start-up parameter ``options`` is left to the URL:
poolers reject it, and a second one would silently replace the first.
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import psycopg
from psycopg import pq

from authz_server.database.postgresql import (
    BoundedConnection,
    DatabaseUnfitError,
    NotPrimaryError,
    bounded_connection,
)
from authz_server.database.primary import OpenConnections
from authz_server.settings.constraints import RuleError
from authz_server.settings.database import DatabaseSettings

#: Far above the duration of any transaction; an abandoned transaction would hold its locks.
_LONGEST_IDLE_MILLISECONDS = 60_000
# PostgreSQL's version numbers, as libpq counts them.
_HAS_IDLE_SESSION_TIMEOUT = 140_000
_HAS_TRANSACTION_TIMEOUT = 170_000
_LIBPQ_HAS_SSLCERTMODE = 160_000
# "remote_apply" is stronger than "on": the commit waits until standbys have applied it.
_SYNCHRONOUS_COMMIT = (
    "CASE WHEN current_setting('synchronous_commit') = 'remote_apply'"
    " THEN 'remote_apply' ELSE 'on' END"
)
# A pooler without a reset query lends the session of another client, whose prepared statements have
# the names of ours.
_FORGET = "DISCARD ALL"
# libpq's messages when no server accepts writes.
_NOT_WRITABLE = ("session is read-only", "server is in hot standby mode")
_REPLICA = (
    "The database takes no writes: it is a replica or read-only. Revocations cannot be stored "
    "there and would arrive late. Name the primary, or all servers, in database.url."
)
# libpq's message about parameters that it cannot use; without a server's name, none was asked.
_UNUSABLE, _ASKED = "connection is bad: ", "connection to server"
_USER_CERTIFICATE = Path(".postgresql") / "postgresql.crt"


class PostgresConnector:
    """Opens connections to the primary, with the session settings that the server needs.

    Args:
        settings: the URL and the time-outs. The password file is read for each connection.

    Attributes:
        opened: all open connections.
    """

    def __init__(self, settings: DatabaseSettings) -> None:
        self._settings = settings
        self._parameters = _with_defaults(settings)
        self._class = bounded_connection(settings.statement_timeout_milliseconds / 1_000)
        self.opened = OpenConnections()

    def open(self) -> BoundedConnection:
        """Return a new connection, outside a transaction and without autocommit.

        Raises:
            DatabaseUnfitError: the encoding is not UTF8, or libpq cannot use the parameters.
            NotPrimaryError: the server is a replica, a former primary or read-only.
            psycopg.OperationalError: the server cannot be reached or refuses the login, or the
                password file cannot be read.
        """
        connection = self._connect()
        try:
            _require_utf8(connection)
            connection.autocommit = True
            connection.execute(_FORGET)
            query = self.session_query(connection.info.server_version)
            row = connection.execute(query, (_application_name(connection),)).fetchone()
            self._require_primary(row)
            self.opened.admit(connection)
            connection.autocommit = False
        except BaseException:
            connection.close()
            raise
        return connection

    def _connect(self) -> BoundedConnection:
        try:
            return self._class.connect(**self.parameters())
        except psycopg.ProgrammingError as error:
            raise DatabaseUnfitError(f"libpq cannot use database.url: {error}.") from error
        except psycopg.OperationalError as error:
            _, unusable, problem = str(error).partition(_UNUSABLE)
            if unusable and _ASKED not in problem:
                raise DatabaseUnfitError(f"libpq cannot use database.url: {problem}.") from error
            if not any(sign in str(error) for sign in _NOT_WRITABLE):
                raise
            # Earlier connections lead to the same server or to one out of use.
            self.opened.drop_all()
            raise NotPrimaryError(_REPLICA) from error

    def _require_primary(self, row: tuple[Any, ...] | None) -> None:
        if row is None or row[0]:
            self.opened.drop_all()
            raise NotPrimaryError(_REPLICA)

    def look(self) -> None:
        """Open and close a connection, so that :attr:`opened` detects a new primary.

        Raises:
            psycopg.OperationalError: as for :meth:`open`.
        """
        self.open().close()

    def parameters(self) -> dict[str, Any]:
        """Return libpq's parameters for one connection, with the current password.

        Raises:
            psycopg.OperationalError: the password file cannot be read.
        """
        try:
            password = self._settings.current_password()
        except RuleError as error:
            raise psycopg.OperationalError(f"database.password: {error.problem}") from error
        return (
            dict(self._parameters)
            if password is None
            else self._parameters | {"password": password}
        )

    def session_query(self, server_version: int) -> str:
        """Return the query to run first on a new connection, in a transaction of its own.

        Its row holds whether the server takes no writes, followed by the values that were set. Its
        parameter is the name of the application.

        Args:
            server_version: as libpq reports it, for example 180000.
        """
        statement_timeout = str(self._settings.statement_timeout_milliseconds)
        wanted = {
            "client_encoding": "'UTF8'",
            # A pooler sets it once for each session, and the beginning of a session forgets it.
            "application_name": "%s",
            "DateStyle": "'ISO'",
            "TimeZone": "'UTC'",
            "standard_conforming_strings": "'on'",
            "default_transaction_isolation": "'read committed'",
            "default_transaction_deferrable": "'off'",
            "synchronous_commit": _SYNCHRONOUS_COMMIT,
            "statement_timeout": f"'{statement_timeout}'",
            "lock_timeout": f"'{statement_timeout}'",
            "idle_in_transaction_session_timeout": f"'{_LONGEST_IDLE_MILLISECONDS}'",
            # A page of a list would read a joined table from its beginning, and not by its ids.
            "enable_mergejoin": "'off'",
        }
        if server_version >= _HAS_IDLE_SESSION_TIMEOUT:
            wanted["idle_session_timeout"] = "'0'"
        if server_version >= _HAS_TRANSACTION_TIMEOUT:
            wanted["transaction_timeout"] = "'0'"
        set_all = ", ".join(
            f"set_config('{name}', {value}, false)" for name, value in wanted.items()
        )
        return (
            "SELECT pg_is_in_recovery() OR current_setting('transaction_read_only')::boolean, "
            f"{set_all}"
        )


def _application_name(connection: psycopg.Connection[Any]) -> str:
    """Return the name of the URL, the environment or the service file; else that of the server."""
    given = connection.info.get_parameters()
    return given.get("application_name") or given.get("fallback_application_name", "")


def _require_utf8(connection: psycopg.Connection[Any]) -> None:
    encoding = connection.pgconn.parameter_status(b"server_encoding") or b""
    if encoding != b"UTF8":
        raise DatabaseUnfitError(
            f"The database's encoding is {encoding.decode() or 'unknown'}, which cannot hold every "
            "name and reason. Make a database with: createdb --encoding=UTF8 --template=template0"
        )


def _with_defaults(settings: DatabaseSettings) -> dict[str, Any]:
    """Return the URL's parameters, with defaults that detect a lost server quickly."""
    given: Mapping[str, str] = settings.parts.parameters
    defaults: dict[str, Any] = {
        "fallback_application_name": "authz-server",
        "target_session_attrs": "read-write",
        "connect_timeout": settings.connect_timeout_seconds,
        # Detect a peer that vanished within the time that a statement may take.
        "tcp_user_timeout": settings.statement_timeout_milliseconds,
        "keepalives_idle": 5,
        "keepalives_interval": 1,
        "keepalives_count": 3,
    }
    if "sslcert" not in given and _certificate_is_out_of_reach():
        defaults["sslcertmode"] = "disable"
    return defaults | dict(given)


def _certificate_is_out_of_reach() -> bool:
    """Return whether libpq would fail to look for a client certificate.

    The user of a service often has a home directory that it may not enter.
    """
    if pq.version() < _LIBPQ_HAS_SSLCERTMODE:
        return False
    try:
        os.stat(Path.home() / _USER_CERTIFICATE)  # noqa: PTH116 - Path.exists hides errors
    except PermissionError:
        return True
    except (OSError, RuntimeError):
        return False
    return False
