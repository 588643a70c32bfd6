"""How a connection to PostgreSQL is opened, and what each session has to have.

What the session depends on is set after connecting. The start-up parameter ``options`` belongs to
the URL: poolers refuse it, and a second one would replace the first in silence.
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import psycopg
from psycopg import pq
from psycopg.conninfo import make_conninfo

from authz_server.database.errors import DatabaseUnfitError, NotPrimaryError
from authz_server.database.postgresql import BoundedConnection, bounded_connection
from authz_server.database.primary import OpenConnections
from authz_server.settings.constraints import RuleError
from authz_server.settings.database import DatabaseSettings

#: Transactions of the server last a fraction of it; one that is left open holds locks.
_LONGEST_IDLE_MILLISECONDS = 60_000
# PostgreSQL's version numbers, as libpq counts them.
_HAS_IDLE_SESSION_TIMEOUT = 140_000
_HAS_TRANSACTION_TIMEOUT = 170_000
_LIBPQ_HAS_SSLCERTMODE = 160_000
# Stronger than "on": the commit waits until standbys have applied it too.
_SYNCHRONOUS_COMMIT = (
    "CASE WHEN current_setting('synchronous_commit') = 'remote_apply'"
    " THEN 'remote_apply' ELSE 'on' END"
)
# As libpq words it that no server was found which takes writes.
_NOT_WRITABLE = ("session is read-only", "server is in hot standby mode")
_REPLICA = (
    "The database takes no writes: it is a replica, or set to read-only. Nothing could be revoked "
    "there, and revocations would arrive late. Name the primary in database.url, or all servers."
)
_USER_CERTIFICATE = Path(".postgresql") / "postgresql.crt"


class PostgresConnector:
    """Opens connections to the primary, each with the session that the server depends on.

    Args:
        settings: the URL and the time-outs. The password file is read at each connection.

    Attributes:
        opened: every connection that is open.
    """

    def __init__(self, settings: DatabaseSettings) -> None:
        self._settings = settings
        self._parameters = _with_defaults(settings)
        self._class = bounded_connection(settings.statement_timeout_milliseconds / 1_000)
        self.opened = OpenConnections()

    def open(self) -> BoundedConnection:
        """Return a new connection, outside a transaction and without autocommit.

        Raises:
            DatabaseUnfitError: the encoding is not UTF8.
            NotPrimaryError: the server is a replica, a former primary or read-only.
            psycopg.OperationalError: it cannot be reached or refuses the login, or the password
                file cannot be read.
        """
        connection = self._connect()
        try:
            _require_utf8(connection)
            connection.autocommit = True
            query = self.session_query(connection.info.server_version)
            row = connection.execute(query).fetchone()
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
        except psycopg.OperationalError as error:
            if not any(sign in str(error) for sign in _NOT_WRITABLE):
                raise
            # What was opened before leads there too, or to a server that is out of use.
            self.opened.drop_all()
            raise NotPrimaryError(_REPLICA) from error

    def _require_primary(self, row: tuple[Any, ...] | None) -> None:
        if row is None or row[0]:
            self.opened.drop_all()
            raise NotPrimaryError(_REPLICA)

    def look(self) -> None:
        """Open a connection and close it, so that :attr:`opened` learns where the address leads.

        Raises:
            psycopg.OperationalError: as for :meth:`open`.
        """
        self.open().close()

    def parameters(self) -> dict[str, Any]:
        """Return libpq's parameters for one connection, with the password as it is now.

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

    def conninfo(self) -> str:
        """Return the parameters as libpq's connection string, for drivers that open it themselves.

        Raises:
            psycopg.OperationalError: the password file cannot be read.
        """
        return make_conninfo(**self.parameters())

    def session_query(self, server_version: int) -> str:
        """Return the query to run first on a new connection, in a transaction of its own.

        Its one row holds whether the server takes no writes, then what was set.

        Args:
            server_version: as libpq counts it, for example 180000.
        """
        statement_timeout = str(self._settings.statement_timeout_milliseconds)
        wanted = {
            "client_encoding": "'UTF8'",
            "DateStyle": "'ISO'",
            "TimeZone": "'UTC'",
            "standard_conforming_strings": "'on'",
            "default_transaction_isolation": "'read committed'",
            "default_transaction_deferrable": "'off'",
            "synchronous_commit": _SYNCHRONOUS_COMMIT,
            "statement_timeout": f"'{statement_timeout}'",
            "lock_timeout": f"'{statement_timeout}'",
            "idle_in_transaction_session_timeout": f"'{_LONGEST_IDLE_MILLISECONDS}'",
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


def _require_utf8(connection: psycopg.Connection[Any]) -> None:
    encoding = connection.pgconn.parameter_status(b"server_encoding") or b""
    if encoding != b"UTF8":
        raise DatabaseUnfitError(
            f"The database's encoding is {encoding.decode() or 'unknown'}, which cannot hold every "
            "name and reason. Make a database with: createdb --encoding=UTF8 --template=template0"
        )


def _with_defaults(settings: DatabaseSettings) -> dict[str, Any]:
    """Return the URL's parameters; what it leaves open is set for quick answers."""
    given: Mapping[str, str] = settings.parts.parameters
    defaults: dict[str, Any] = {
        "fallback_application_name": "authz-server",
        "target_session_attrs": "read-write",
        "connect_timeout": settings.connect_timeout_seconds,
        # A peer that vanished without a word is noticed within the time a statement may take.
        "tcp_user_timeout": settings.statement_timeout_milliseconds,
        "keepalives_idle": 5,
        "keepalives_interval": 1,
        "keepalives_count": 3,
    }
    if "sslcert" not in given and _certificate_is_out_of_reach():
        defaults["sslcertmode"] = "disable"
    return defaults | dict(given)


def _certificate_is_out_of_reach() -> bool:
    """Tell whether libpq would fail on a client certificate that may not even be looked for.

    A service's user often has a home that it cannot enter.
    """
    if pq.version() < _LIBPQ_HAS_SSLCERTMODE:
        return False
    try:
        os.stat(Path.home() / _USER_CERTIFICATE)  # noqa: PTH116 - Path.exists takes every error for no
    except PermissionError:
        return True
    except (OSError, RuntimeError):
        return False
    return False
