"""A replica of a PostgreSQL server, promoted when a test says so."""

import os
import shutil
import subprocess

from support.postgresql import PostgresServer
from support.postgresql_access import ROLE


class Standby(PostgresServer):
    """A streaming replica of ``primary``, with a port and a folder of its own."""

    def __init__(self, primary: PostgresServer) -> None:
        super().__init__()
        self.password = primary.password
        self._primary = primary

    def _initialise(self) -> None:
        command = [
            str(self._binaries / "pg_basebackup"),
            f"--pgdata={self.directory / 'data'}",
            f"--dbname=host=127.0.0.1 port={self._primary.port} user={ROLE}",
            "--write-recovery-conf",
            "--checkpoint=fast",
            "--no-sync",
        ]
        environment = os.environ | {"PGPASSWORD": self.password}
        subprocess.run(command, check=True, env=environment, capture_output=True)
        # The password of the environment is gone when the replica connects.
        with (self.directory / "data" / "postgresql.auto.conf").open("a") as file:
            file.write(
                "primary_conninfo = "
                f"'host=127.0.0.1 port={self._primary.port} user={ROLE} password={self.password}'\n"
            )
        if self._user:
            for path in (self.directory / "data").rglob("*"):
                shutil.chown(path, self._user)
            for path in (self.directory, self.directory / "data"):
                shutil.chown(path, self._user)

    def fall_behind(self) -> None:
        """Stop following the primary; return when nothing arrives any more."""
        self.execute("ALTER SYSTEM SET primary_conninfo = ''")
        self.execute("SELECT pg_reload_conf()")
        self.await_replay("SELECT 1 WHERE NOT EXISTS (SELECT FROM pg_stat_wal_receiver)")

    def promote(self) -> None:
        """Make it a primary; return when it takes writes."""
        assert self.execute("SELECT pg_promote(true, 30)") == [(True,)]

    def await_replay(self, statement: str) -> None:
        """Return when ``statement`` finds a row here."""
        for _ in range(500):
            if self.execute(statement):
                return
            self.execute("SELECT pg_sleep(0.02)")
        raise AssertionError(f"the replica never got it: {statement}")
