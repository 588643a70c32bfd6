"""Starts what is measured, on loopback ports, and ends it by its process id."""

import os
import secrets
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from socket import create_connection

from authz_server.assembly import Services
from bench.registered import Registered, prepare, write_settings
from support.ports import release_port, reserve_port
from support.postgresql import PostgresServer
from support.tied_process import end_process, start_tied

ROOT = Path(__file__).parents[1]
#: Where programs that the benchmark builds or downloads are kept; `make clean` removes it.
CACHE = ROOT / "build" / "bench"
_NODE = Path(__file__).with_name("node_oidc_provider")
_APPLICATIONS = "bench.applications"
_START_SECONDS = 180.0


class NotAtHandError(Exception):
    """Something cannot be had on this machine, so it is not measured."""


class StartError(NotAtHandError):
    """A server ended, or did not answer in time, when it was started."""


@dataclass(frozen=True)
class Server:
    """A server that answers.

    Attributes:
        port: of 127.0.0.1.
        process_id: the root of its process tree.
        database_process_id: that of the server that it queries, if it has one: of its database,
            or the authorization server that introspects its tokens.
        start_seconds: how long it took until its port answered.
    """

    port: int
    process_id: int
    database_process_id: int | None = None
    start_seconds: float = 0.0

    @property
    def process_ids(self) -> list[int]:
        """The roots of the process trees that take part."""
        return [each for each in (self.process_id, self.database_process_id) if each is not None]


@contextmanager
def reserved_ports(count: int) -> Iterator[list[int]]:
    """Reserve loopback ports until the block ends."""
    ports = [reserve_port() for _ in range(count)]
    try:
        yield ports
    finally:
        for port in ports:
            release_port(port)


@contextmanager
def under_granian(
    application: str,
    directory: Path,
    environment: Mapping[str, str] | None = None,
    *,
    threads: int | None = None,
    workers: int = 1,
) -> Iterator[Server]:
    """Serve a WSGI application of ``bench.applications`` by Granian.

    Args:
        application: the module.
        directory: for its log.
        environment: beyond the benchmark's own.
        threads: how many threads of a worker run the application; None: Granian's default.
        workers: how many processes serve.
    """
    _require_module("granian")
    with reserved_ports(1) as [port]:
        options = ["--interface", "wsgi", "--workers", str(workers), "--no-ws", "--port", str(port)]
        options += [] if threads is None else ["--blocking-threads", str(threads)]
        target = f"{_APPLICATIONS}.{application}:application"
        command = [sys.executable, "-m", "granian", *options, target]
        with running_server(command, port, directory, environment) as server:
            yield server


@contextmanager
def under_gunicorn(
    application: str, directory: Path, environment: Mapping[str, str] | None = None
) -> Iterator[Server]:
    """Serve a WSGI application of ``bench.applications`` by gunicorn's one sync worker."""
    _require_module("gunicorn")
    with reserved_ports(1) as [port]:
        options = ["--bind", f"127.0.0.1:{port}", "--workers", "1", "--no-control-socket"]
        target = f"{_APPLICATIONS}.{application}:application"
        command = [sys.executable, "-m", "gunicorn", *options, target]
        with running_server(command, port, directory, environment) as server:
            yield server


@contextmanager
def under_uvicorn(
    application: str, directory: Path, environment: Mapping[str, str] | None = None
) -> Iterator[Server]:
    """Serve an ASGI application of ``bench.applications`` by uvicorn, one process."""
    _require_module("uvicorn")
    with reserved_ports(1) as [port]:
        options = ["--host", "127.0.0.1", "--port", str(port), "--no-access-log"]
        target = f"{_APPLICATIONS}.{application}:application"
        command = [sys.executable, "-m", "uvicorn", *options, target]
        with running_server(command, port, directory, environment) as server:
            yield server


@contextmanager
def ours(
    database_url: str,
    directory: Path,
    *,
    workers: int = 1,
    register: Callable[[Services], object] | None = None,
) -> Iterator[tuple[Server, Registered]]:
    """Serve authz-server as an operator does, with a client and a resource server in it.

    Args:
        database_url: the database.
        directory: for its files and its log.
        workers: how many processes serve.
        register: registers further clients; certificates then come from nginx on loopback.
    """
    is_behind_proxy = register is not None
    with reserved_ports(2) as [port, health_port]:
        path = write_settings(
            directory,
            database_url,
            port,
            health_port,
            workers=workers,
            is_behind_proxy=is_behind_proxy,
        )
        registered = prepare(path, register=register)
        command = [sys.executable, "-m", "authz_server", "serve", "--config", str(path)]
        with running_server(command, port, directory) as server:
            yield server, registered


@contextmanager
def ours_on_postgresql(
    directory: Path,
    *,
    workers: int = 1,
    register: Callable[[Services], object] | None = None,
) -> Iterator[tuple[Server, Registered]]:
    """Serve authz-server with a PostgreSQL server of its own, commits durable; else as ``ours``."""
    with PostgresServer(durable=True) as database:
        url = database.create_database()
        serving = ours(url, directory, workers=workers, register=register)
        with serving as (server, registered):
            process_id, started = database.process_id, server.start_seconds
            yield Server(server.port, server.process_id, process_id, started), registered


@contextmanager
def node_oidc_provider(directory: Path, clients: str = "[]") -> Iterator[tuple[Server, str]]:
    """Serve node-oidc-provider, one process; yield it with its clients' secret.

    Args:
        directory: for its log.
        clients: the metadata of further clients, a JSON array.

    Raises:
        NotAtHandError: there is no Node, or its packages cannot be had.
    """
    _install_node_packages()
    secret = secrets.token_urlsafe(32)
    with reserved_ports(1) as [port]:
        command = ["node", str(_NODE / "server.mjs"), str(port), secret, clients]
        with running_server(command, port, directory, {"NODE_ENV": "production"}) as server:
            yield server, secret


def _install_node_packages() -> None:
    require_programs("node", "npm")
    if (_NODE / "node_modules" / "oidc-provider").is_dir():
        return
    command = ["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund"]
    run_installer(command, _NODE, "npm could not install the packages of its lock file")


def require_programs(*names: str) -> None:
    """Raise NotAtHandError unless every program is on the search path."""
    missing = [name for name in names if shutil.which(name) is None]
    if missing:
        raise NotAtHandError(f"{' and '.join(missing)} not installed")


def run_installer(
    command: Sequence[str],
    directory: Path,
    failure: str,
    environment: Mapping[str, str] | None = None,
) -> None:
    """Run a command that downloads or builds.

    Raises:
        NotAtHandError: it failed; carries ``failure`` and the last line of its output.
    """
    run = subprocess.run(
        command,
        cwd=directory,
        env=os.environ | (environment or {}),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if run.returncode:
        lines = run.stdout.strip().splitlines() or ["no output"]
        raise NotAtHandError(f"{failure}: {lines[-1][:200]}")


def _require_module(name: str) -> None:
    if find_spec(name) is None:
        raise NotAtHandError(f"{name} not installed")


@contextmanager
def running_server(
    command: Sequence[str],
    port: int,
    directory: Path,
    environment: Mapping[str, str] | None = None,
) -> Iterator[Server]:
    """Run a command until the block ends; yield it when its port answers."""
    log_path = directory / "log"
    started = time.monotonic()
    with log_path.open("ab") as log:
        process = start_tied(
            command, output=log, directory=ROOT, environment=os.environ | (environment or {})
        )
    try:
        _await_port(process, port, log_path)
        yield Server(port, process.pid, start_seconds=round(time.monotonic() - started, 1))
    finally:
        end_process(process)
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)


def _await_port(process: subprocess.Popen[bytes], port: int, log_path: Path) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        try:
            create_connection(("127.0.0.1", port), 1).close()
        except OSError:
            time.sleep(0.05)
        else:
            return
    print(log_path.read_text(errors="replace"), file=sys.stderr)
    raise StartError("it did not start")
