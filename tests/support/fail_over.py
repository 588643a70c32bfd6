"""A PostgreSQL primary and its replica behind one address, and the fail-over between them."""

from contextlib import ExitStack

from sqlalchemy import text

from authz_server.database.schema import upgrade_database
from authz_server.settings import DatabaseSettings
from support.postgresql import PostgresServer
from support.postgresql_access import database_name
from support.roles import attached
from support.standby import Standby
from support.tcp_proxy import TcpProxy


class FailOverPair:
    """Two servers; ``url`` leads to the first until :meth:`fail_over`."""

    def __init__(self, stack: ExitStack) -> None:
        self.first = stack.enter_context(PostgresServer())
        self.name = database_name(self.first.create_database())
        upgrade_database(DatabaseSettings(url=self.first.url(self.name)))
        self.second = stack.enter_context(Standby(self.first))
        self.proxy = stack.enter_context(TcpProxy(self.first.port))
        self.url = self.first.url(self.name).replace(f":{self.first.port}", f":{self.proxy.port}")

    def fail_over(self) -> None:
        """Promote the replica; new connections lead to it, those that exist stay where they are."""
        self.await_replay()
        self.second.promote()
        self.proxy.target_port = self.second.port

    def await_replay(self) -> None:
        """Return when the replica has everything that the primary has."""
        position = self.first.execute("SELECT pg_current_wal_lsn()::text")[0][0]
        self.second.await_replay(f"SELECT 1 WHERE pg_last_wal_replay_lsn() >= '{position}'::pg_lsn")

    def write(self, value: int) -> None:
        """Change the second server, as a revocation there does."""
        with attached(self.second.url(self.name)) as database, database.transaction() as session:
            session.execute(text("UPDATE revision SET value = :value"), {"value": value})
