"""Detect the primary, and drop connections to other servers.

After a fail-over behind one address, earlier connections still lead to the former server. It may be
a replica now. It may also continue as a primary, unaware of the fail-over; its timeline is then
behind that of the server to which a new connection leads.
"""

import logging
import os
import socket
import threading
import time
import weakref
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import psycopg
from sqlalchemy import Engine, event
from sqlalchemy.engine.interfaces import DBAPIConnection, ExceptionContext
from sqlalchemy.exc import DisconnectionError
from sqlalchemy.pool import ConnectionPoolEntry, PoolProxiedConnection

from authz_server.database.errors import describe_failure
from authz_server.database.postgresql import NotPrimaryError

logger = logging.getLogger(__name__)

#: Shortest interval between checks that a pooled connection leads to the primary.
CHECK_SECONDS = 1.0
#: Interval at which a process opens a connection to find the current primary.
LOOK_SECONDS = 4.0
READ_ONLY = "25006"
_CHECKED_AT = "primary_checked_at"
# A statement of its own begins a transaction with the default of the session.
_TAKES_NO_WRITES = "SELECT pg_is_in_recovery() OR current_setting('transaction_read_only')::boolean"
_IDENTITY = (
    "SELECT system_identifier::text, substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8)"
    " FROM pg_control_system()"
)


@dataclass(frozen=True, slots=True)
class Identity:
    """The identity of a database server.

    Attributes:
        system: the cluster, the same on a primary and its replicas.
        timeline: increases at each promotion.
    """

    system: str
    timeline: int


def read_identity(connection: psycopg.Connection[Any]) -> Identity | None:
    """Return the identity of a primary; None if the server does not report it.

    Args:
        connection: with autocommit.
    """
    try:
        row = connection.execute(_IDENTITY).fetchone()
    except psycopg.Error:
        # Services that resemble PostgreSQL may lack these functions.
        if connection.closed:
            raise
        return None
    return None if row is None else Identity(str(row[0]), int(row[1], 16))


class OpenConnections:
    """Every connection that this process has opened to one database.

    Connections of pools, prepared queries and the event loop are dropped together.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._connections: weakref.WeakSet[psycopg.Connection[Any]] = weakref.WeakSet()
        self._identity: Identity | None = None
        self._process_id = os.getpid()

    def admit(self, connection: psycopg.Connection[Any]) -> None:
        """Add a new connection; drop the earlier ones if it leads to a later primary.

        Raises:
            NotPrimaryError: the connection leads to a former primary.
        """
        found = read_identity(connection)
        later = False
        with self._lock:
            self._forget_after_fork()
            known = self._identity
            if found is not None and known is not None and found.system == known.system:
                if found.timeline < known.timeline:
                    raise NotPrimaryError(
                        "The database server is no longer the primary: it is on timeline "
                        f"{found.timeline}, another server is on {known.timeline}. Check where "
                        "database.url leads."
                    )
                later = found.timeline > known.timeline
            elif found is not None and known is not None:
                later = True
            if found is not None:
                self._identity = found
        if later:
            logger.warning("another database server is the primary now: closing all connections")
            self.drop_all()
        with self._lock:
            self._connections.add(connection)

    def drop_all(self) -> int:
        """Close every connection, idle or in use; return the number of connections.

        A query in progress on one of them fails at once.
        """
        with self._lock:
            self._forget_after_fork()
            dropped = list(self._connections)
            self._connections.clear()
        for connection in dropped:
            _shut_down(connection)
        return len(dropped)

    def _forget_after_fork(self) -> None:
        # The parent's connections belong to the parent.
        if self._process_id != os.getpid():
            self._process_id = os.getpid()
            self._connections = weakref.WeakSet()


def _shut_down(connection: psycopg.Connection[Any]) -> None:
    """Shut down the connection's socket, which is safe while another thread uses it."""
    with suppress(OSError, psycopg.Error):
        if not connection.closed:
            with socket.socket(fileno=os.dup(connection.fileno())) as below:
                below.shutdown(socket.SHUT_RDWR)


def follow_primary(engine: Engine, connections: OpenConnections, look: Callable[[], None]) -> None:
    """Make the pool of ``engine`` drop connections to a former primary.

    Args:
        engine: of PostgreSQL.
        connections: the connections to drop.
        look: opens and closes a connection, which updates ``connections``.
    """
    looks = _Looks(look)

    @event.listens_for(engine, "handle_error")
    def drop_read_only(context: ExceptionContext) -> None:
        if getattr(context.original_exception, "sqlstate", None) == READ_ONLY:
            logger.warning("the database takes no writes (25006): closing all connections")
            context.is_disconnect = True
            connections.drop_all()

    @event.listens_for(engine, "checkout")
    def require_primary(
        connection: DBAPIConnection, record: ConnectionPoolEntry, _proxy: PoolProxiedConnection
    ) -> None:
        now = time.monotonic()
        looks.begin_if_due(now)
        if now >= record.info.get(_CHECKED_AT, 0.0) + CHECK_SECONDS:
            record.info[_CHECKED_AT] = now
            if _takes_no_writes(connection):
                logger.warning(
                    "the database is a replica or read-only now: closing all connections"
                )
                connections.drop_all()
                raise DisconnectionError("the database takes no writes now")


class _Looks:
    """Checks for a new primary at intervals, on a thread, because a check may time out."""

    def __init__(self, look: Callable[[], None]) -> None:
        self._look = look
        self._due = time.monotonic() + LOOK_SECONDS
        self._busy = threading.Lock()
        self._process_id = os.getpid()

    def begin_if_due(self, now: float) -> None:
        if self._process_id != os.getpid():
            # The thread that may hold the lock stayed in the parent.
            self._process_id, self._busy = os.getpid(), threading.Lock()
        if now >= self._due and self._busy.acquire(blocking=False):
            self._due = now + LOOK_SECONDS
            threading.Thread(target=self._run, name="primary", daemon=True).start()

    def _run(self) -> None:
        try:
            self._look()
        except psycopg.Error as error:
            # Working connections stay in use; requests on others fail by themselves.
            logger.info("cannot check for a new primary: %s", describe_failure(error))
        finally:
            self._busy.release()


def _takes_no_writes(connection: Any) -> bool:  # noqa: ANN401 - psycopg's connection from SQLAlchemy
    try:
        connection.autocommit = True
        row = connection.execute(_TAKES_NO_WRITES).fetchone()
        connection.autocommit = False
    except psycopg.Error as error:
        raise DisconnectionError("the connection is gone") from error
    return row is None or bool(row[0])
