"""Environment of the demonstration: directory, registrations and processes."""

import fcntl
import json
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from http import HTTPStatus
from pathlib import Path
from typing import Any

from authz_server.cli.demo.exchange import Request
from authz_server.cli.demo.mapper_api import Configuration
from authz_server.cli.demo.tour import CLIENT_ID, RESOURCE_SERVER_ID, Places

READY_SECONDS = 60
END_SECONDS = 15
_PREFERRED_PORTS = (8080, 8081, 8082, 8083)
_SETTINGS = "authz-server.toml"
_AUDIT = "audit.jsonl"
_MADE_BY_US = (
    *("authz-server.db", "authz-server.db-shm", "authz-server.db-wal"),
    *(_AUDIT, _SETTINGS),
)
_LINK = re.compile(r"http://localhost:\d+/enrol/\S+")
_SECRETS = ("pepper", "key-encryption-key", "client-secret", "mapper-secret")


class DemoError(Exception):
    """The demonstration could not be set up; the message gives the reason."""


@contextmanager
def demo_site(directory: Path, emit: Callable[[str], None]) -> Iterator[Places]:
    """Set up and run the demonstration, yield its places, and stop it at the end.

    Args:
        directory: holds all files; those of an earlier run are replaced.
        emit: prints a paragraph.

    Raises:
        DemoError: the demonstration could not be set up.
    """
    with ExitStack() as stack:
        stack.enter_context(_fresh_directory(directory))
        emit(f"Everything of this run is in {directory}/ and on loopback.\n")
        ports = find_ports(emit)
        places = _register(directory, ports, emit)
        stack.enter_context(_server(directory, ports[1]))
        stack.enter_context(_mapper_api(directory, places, ports[2]))
        yield places


@contextmanager
def _fresh_directory(directory: Path) -> Iterator[None]:
    directory.mkdir(parents=True, exist_ok=True)
    (directory / ".gitignore").write_text("*\n", encoding="utf-8")
    with (directory / "lock").open("a+", encoding="utf-8") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            lock.seek(0)
            raise DemoError(
                f"A demonstration already runs in {directory}: stop process {lock.read()} first."
            ) from None
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
        for name in (*_MADE_BY_US, *(f"secrets/{name}" for name in _SECRETS)):
            (directory / name).unlink(missing_ok=True)
        yield


def find_ports(emit: Callable[[str], None]) -> tuple[int, int, int, int]:
    """Return ports for server, health listener, mapper API and console, preferred ones if free."""
    chosen: list[int] = []
    with ExitStack() as held:
        for preferred in _PREFERRED_PORTS:
            probe = held.enter_context(socket.socket())
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", preferred))
            except OSError:
                probe.bind(("127.0.0.1", 0))
            chosen.append(probe.getsockname()[1])
            if chosen[-1] != preferred:
                emit(f"Port {preferred} is taken: this run uses {chosen[-1]} instead.\n")
    return chosen[0], chosen[1], chosen[2], chosen[3]


def _register(
    directory: Path, ports: tuple[int, int, int, int], emit: Callable[[str], None]
) -> Places:
    """Make settings, database and keys, and register client and resource server."""
    issuer, mapper_url = (f"http://127.0.0.1:{port}" for port in (ports[0], ports[2]))
    options = ["--development", "--issuer", issuer, "--health-port", str(ports[1])]
    _command(emit, "init", str(directory), *options, "--import", "g2p-connect")
    _add_console(directory, ports[3])
    config = ["--config", str(directory / _SETTINGS)]
    mapper_secret, client_secret = (directory / "secrets" / name for name in _SECRETS[3:1:-1])
    _command(
        emit,
        *("resource-server", "create", RESOURCE_SERVER_ID, "--name", "Demo mapper"),
        *("--identifier", mapper_url, "--scope", "mapper/*"),
        *("--secret-output", str(mapper_secret), *config),
    )
    _command(
        emit,
        *("client", "create", CLIENT_ID, "--name", "Demo disbursement system"),
        *("--scope", "mapper/link", "--scope", "mapper/resolve"),
        *("--secret-output", str(client_secret), *config),
    )
    operator = _command(
        emit,
        *("operator", "create", "demo-operator", *config),
        *("--role", "security-officer", "--role", "client-manager"),
    )
    found = _LINK.search(operator)
    if found is None:
        raise DemoError("The command printed no link for the operator.")
    return Places(
        issuer=issuer,
        console_link=found[0],
        mapper_url=mapper_url,
        client_secret=client_secret.read_text(encoding="utf-8").strip(),
        resource_server_secret=mapper_secret.read_text(encoding="utf-8").strip(),
    )


def _add_console(directory: Path, port: int) -> None:
    """Turn on the management listener, and write the audit records to a file that it reads."""
    path = directory / _SETTINGS
    text = path.read_text(encoding="utf-8").replace(
        'destination = "stderr"', f'destination = "{_AUDIT}"'
    )
    path.write_text(f"{text}\n[admin]\nenabled = true\nport = {port}\n", encoding="utf-8")


def _command(emit: Callable[[str], None], *arguments: str) -> str:
    """Print and run a command of this program; return its output."""
    emit(f"$ authz-server {shlex.join(arguments)}")
    run = subprocess.run(  # noqa: S603 - our own program
        [sys.executable, "-m", "authz_server", *arguments],
        capture_output=True,
        text=True,
        check=False,
        stdin=subprocess.DEVNULL,
        env=_environment(),
    )
    if run.returncode:
        raise DemoError(run.stderr.strip() or f"{arguments[0]} exited with {run.returncode}.")
    emit(f"{run.stdout.rstrip()}\n")
    return run.stdout


@contextmanager
def _server(directory: Path, health_port: int) -> Iterator[None]:
    command = ["authz_server", "serve", "--config", str(directory / _SETTINGS)]
    with _process(command, directory / "server.log") as process:
        _await(
            process,
            lambda: _answers(f"http://127.0.0.1:{health_port}/health/ready", HTTPStatus.OK),
            directory / "server.log",
        )
        yield


@contextmanager
def _mapper_api(directory: Path, places: Places, port: int) -> Iterator[None]:
    configuration = Configuration(
        port=port,
        identifier=places.mapper_url,
        introspection_url=f"{places.issuer}/oauth2/introspect",
        client_id=RESOURCE_SERVER_ID,
        client_secret=places.resource_server_secret,
    )
    path = directory / "secrets" / "mapper-api.json"
    path.touch(mode=0o600)
    path.write_text(json.dumps(vars(configuration)), encoding="utf-8")
    command = ["authz_server.cli.demo.mapper_api", str(path)]
    log = directory / "mapper-api.log"
    with _process(command, log) as process:
        url = f"{places.mapper_url}/mapper/link"
        _await(process, lambda: _answers(url, HTTPStatus.METHOD_NOT_ALLOWED), log)
        yield


@contextmanager
def _process(command: Sequence[str], log_path: Path) -> Iterator[subprocess.Popen[Any]]:
    """Run a module in a process group of its own, terminated with the block."""
    with log_path.open("ab") as log:
        process = subprocess.Popen(  # noqa: S603 - our own program
            [sys.executable, "-m", *command],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            env=_environment(),
        )
    try:
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(END_SECONDS)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _await(process: subprocess.Popen[Any], ready: Callable[[], bool], log: Path) -> None:
    deadline = time.monotonic() + READY_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        if ready():
            return
        time.sleep(0.1)
    raise DemoError(f"A process did not start; see {log}.")


def _answers(url: str, status: HTTPStatus) -> bool:
    try:
        return Request("GET", url).send().status == status
    except OSError:
        return False


def _environment() -> dict[str, str]:
    """Return the environment without a variable that selects other settings."""
    return {name: value for name, value in os.environ.items() if name != "AUTHZ_SERVER_CONFIG"}
