"""Starts what is measured, on loopback ports, and ends it by its process id."""

import os
import secrets
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from socket import create_connection

from bench.parties import Parties, prepare, write_settings
from support.ports import release_port, reserve_port
from support.postgresql import PostgresServer
from support.tied_process import end_process, start_tied

ROOT = Path(__file__).parents[1]
_NODE = Path(__file__).with_name("node_oidc_provider")
_APPLICATIONS = "bench.applications"
_START_SECONDS = 30.0


class NotAtHandError(Exception):
    """Something is not installed, so it is not measured."""


@dataclass(frozen=True)
class Server:
    """A server that answers.

    Attributes:
        port: of 127.0.0.1.
        process_id: the root of its process tree.
        database_process_id: that of its database server, if it has one.
    """

    port: int
    process_id: int
    database_process_id: int | None = None


@contextmanager
def under_granian(
    application: str, directory: Path, environment: Mapping[str, str] | None = None
) -> Iterator[Server]:
    """Serve a WSGI application of ``bench.applications`` as ours is served: one worker."""
    port, health_port = reserve_port(), reserve_port()
    target = f"{_APPLICATIONS}.{application}:application"
    command = [sys.executable, "-m", "bench.host", target, str(port), str(health_port)]
    try:
        with running_server(command, port, directory, environment) as server:
            yield server
    finally:
        release_port(port)
        release_port(health_port)


@contextmanager
def under_gunicorn(
    application: str, directory: Path, environment: Mapping[str, str] | None = None
) -> Iterator[Server]:
    """Serve a WSGI application of ``bench.applications`` by gunicorn's one sync worker."""
    port = reserve_port()
    target = f"{_APPLICATIONS}.{application}:application"
    options = ["--bind", f"127.0.0.1:{port}", "--workers", "1", "--no-control-socket"]
    command = [sys.executable, "-m", "gunicorn", *options, target]
    try:
        with running_server(command, port, directory, environment) as server:
            yield server
    finally:
        release_port(port)


@contextmanager
def ours(database_url: str, directory: Path) -> Iterator[tuple[Server, Parties]]:
    """Serve authz-server as an operator does, with a client and a resource server in it."""
    port, health_port = reserve_port(), reserve_port()
    path = write_settings(directory, database_url, port, health_port)
    parties = prepare(path)
    command = [sys.executable, "-m", "authz_server", "serve", "--config", str(path)]
    try:
        with running_server(command, port, directory) as server:
            yield server, parties
    finally:
        release_port(port)
        release_port(health_port)


@contextmanager
def ours_on_postgresql(directory: Path) -> Iterator[tuple[Server, Parties]]:
    """Serve authz-server with a PostgreSQL server of its own, commits durable."""
    with PostgresServer(durable=True) as database:
        url = database.create_database()
        with ours(url, directory) as (server, parties):
            yield Server(server.port, server.process_id, database.process_id), parties


@contextmanager
def node_oidc_provider(directory: Path) -> Iterator[tuple[Server, str]]:
    """Serve node-oidc-provider, one process; yield it with its clients' secret.

    Raises:
        NotAtHandError: there is no Node, or its packages cannot be had.
    """
    _install_node_packages()
    port, secret = reserve_port(), secrets.token_urlsafe(32)
    command = ["node", str(_NODE / "server.mjs"), str(port), secret]
    try:
        with running_server(command, port, directory, {"NODE_ENV": "production"}) as server:
            yield server, secret
    finally:
        release_port(port)


def _install_node_packages() -> None:
    if shutil.which("node") is None or shutil.which("npm") is None:
        raise NotAtHandError("node and npm are not installed")
    if (_NODE / "node_modules" / "oidc-provider").is_dir():
        return
    command = ["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund"]
    installed = subprocess.run(command, cwd=_NODE, capture_output=True, check=False)
    if installed.returncode:
        raise NotAtHandError("npm could not install the packages of its lock file")


@contextmanager
def running_server(
    command: Sequence[str],
    port: int,
    directory: Path,
    environment: Mapping[str, str] | None = None,
) -> Iterator[Server]:
    """Run a command until the block ends; yield it when its port answers."""
    log_path = directory / "log"
    with log_path.open("ab") as log:
        process = start_tied(
            command, output=log, directory=ROOT, environment=os.environ | (environment or {})
        )
    try:
        _await_port(process, port, log_path)
        yield Server(port, process.pid)
    finally:
        end_process(process)


def _await_port(process: subprocess.Popen[bytes], port: int, log_path: Path) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        try:
            create_connection(("127.0.0.1", port), 1).close()
        except OSError:
            time.sleep(0.05)
        else:
            return
    raise RuntimeError(f"a server did not start:\n{log_path.read_text(errors='replace')}")
