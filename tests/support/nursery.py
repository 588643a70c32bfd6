"""Servers forked from a process that has imported the program: a start costs a third.

Each process that wants such servers has a nursery of its own, tied to it. Run as a module with the
name of a socket this is the nursery: it forks a server for each connection and reports its end.
"""

import array
import atexit
import gc
import json
import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import IO, Any

from support.tied_process import end_process, start_tied, tie_to_parent

_START_SECONDS = 60.0
_MESSAGE_BYTES = 200_000
#: What a server imports only where it is used, or in its worker; the library of metrics aside.
_IMPORTED_BY_EVERY_SERVER = (
    "authz_server.cli.serve",
    "authz_server.serving.worker",
    "authz_server.clients.authentication.client_secret_jwt",
    "authz_server.clients.authentication.private_key_jwt",
    "authz_server.clients.authentication.workload_identity",
    "authz_server.scopes.service",
    "authz_server.tokens.programmes",
    "cryptography.hazmat.backends.openssl.backend",
    "encodings.idna",
    "encodings.utf_8_sig",
    "glob",
    "importlib.readers",
    "keys.backends.local.sql",
    "multiprocessing.util",
    "timeit",
    "urllib.request",
)


class ForkedServer:
    """A process forked by the nursery; used as `subprocess.Popen` is."""

    def __init__(self, connection: socket.socket, pid: int) -> None:
        self.pid = pid
        self.returncode: int | None = None
        self._connection = connection

    def poll(self) -> int | None:
        """Return the exit status, None while it runs."""
        with suppress(subprocess.TimeoutExpired):
            self.wait(0)
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Return the exit status once it has ended."""
        if self.returncode is None:
            self._connection.settimeout(timeout)
            try:
                told = self._connection.recv(_MESSAGE_BYTES)
            except (TimeoutError, BlockingIOError):
                raise subprocess.TimeoutExpired("serve", timeout or 0) from None
            self._connection.close()
            # Without its nursery, a server is ended by SIGTERM.
            self.returncode = int(told or -signal.SIGTERM)
        return self.returncode

    def send_signal(self, number: int) -> None:
        """Send it a signal, unless it has ended."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        """Kill it."""
        self.send_signal(signal.SIGKILL)


def can_fork() -> bool:
    """Tell whether a nursery can be had here: it is tied to the main thread, on Linux."""
    return threading.current_thread() is threading.main_thread() and _has_process_descriptors()


@cache
def _has_process_descriptors() -> bool:
    """Try it: a sandbox may refuse what the system has."""
    try:
        os.close(os.pidfd_open(os.getpid()))
    except (AttributeError, OSError):
        return False
    return True


def fork_server(
    arguments: Sequence[str],
    *,
    output: IO[bytes],
    environment: Mapping[str, str],
    directory: Path | None = None,
) -> ForkedServer:
    """Start `authz-server` with these arguments, in a session of its own; as `start_tied` does."""
    place = str(directory or Path.cwd())
    order = {"arguments": arguments, "environment": dict(environment), "directory": place}
    connection = _connect()
    descriptors = array.array("i", [output.fileno()])
    ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, descriptors)]
    connection.sendmsg([json.dumps(order).encode()], ancillary)
    return ForkedServer(connection, int(connection.recv(_MESSAGE_BYTES)))


def _connect() -> socket.socket:
    """Return a connection to the nursery of this process; start one, also after it was killed."""
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    try:
        connection.connect(_nursery_address(os.getpid()))
    except ConnectionRefusedError:
        _nursery_address.cache_clear()
        connection.connect(_nursery_address(os.getpid()))
    return connection


@cache
def _nursery_address(process_id: int) -> str:
    """Start the nursery of this process; return the address at which it listens."""
    address = f"\0authz-server-nursery-{process_id}-{time.monotonic_ns()}"
    command = [sys.executable, "-m", "support.nursery", address[1:]]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    with tempfile.TemporaryFile() as log:
        process = start_tied(command, output=log, environment=environment)
        atexit.register(end_process, process)
        deadline = time.monotonic() + _START_SECONDS
        while not _listens(address):
            if process.poll() is not None or time.monotonic() > deadline:
                log.seek(0)
                raise RuntimeError(f"the nursery did not start: {log.read().decode()}")
            time.sleep(0.02)
    return address


def _listens(address: str) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as probe:
        return probe.connect_ex(address) == 0


# ---------------------------------------------------------------------------- in the nursery


class _Nursery:
    def __init__(self, name: str) -> None:
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._listener.bind(f"\0{name}")
        self._listener.listen()
        self._poll = select.poll()
        self._poll.register(self._listener, select.POLLIN)
        #: The process id and the connection of each server, by a descriptor of the process.
        self._running: dict[int, tuple[int, socket.socket]] = {}

    def run(self) -> Sequence[str]:
        """Fork servers until the end; in each of them, return the arguments of its command."""
        while True:
            for descriptor, _ in self._poll.poll():
                if descriptor in self._running:
                    self._bury(descriptor)
                elif arguments := self._fork():
                    return arguments

    def _bury(self, descriptor: int) -> None:
        process_id, connection = self._running.pop(descriptor)
        self._poll.unregister(descriptor)
        os.close(descriptor)
        _, status = os.waitpid(process_id, 0)
        with connection, suppress(OSError):
            connection.send(b"%d" % os.waitstatus_to_exitcode(status))

    def _fork(self) -> Sequence[str]:
        connection, _ = self._listener.accept()
        message, received, _, _ = socket.recv_fds(connection, _MESSAGE_BYTES, 1)
        if not message:
            # The look whether the nursery listens.
            connection.close()
            return ()
        (output,) = received
        process_id = os.fork()
        if process_id == 0:
            self._close(connection)
            return _become_server(json.loads(message), output)
        os.close(output)
        descriptor = os.pidfd_open(process_id)
        self._running[descriptor] = process_id, connection
        self._poll.register(descriptor, select.POLLIN)
        connection.send(b"%d" % process_id)
        return ()

    def _close(self, connection: socket.socket) -> None:
        """Close in a server what is the nursery's."""
        connection.close()
        self._listener.close()
        for descriptor, (_, other) in self._running.items():
            os.close(descriptor)
            other.close()


def _become_server(order: Mapping[str, Any], output: int) -> Sequence[str]:
    os.setsid()
    tie_to_parent(signal.SIGTERM)
    os.dup2(output, 1)
    os.dup2(output, 2)
    os.close(output)
    os.chdir(order["directory"])
    os.environ.clear()
    os.environ.update(order["environment"])
    # It may have been determined from the former environment.
    tempfile.tempdir = None
    return order["arguments"]


def _main(name: str) -> None:
    from sqlalchemy.orm import configure_mappers  # noqa: PLC0415 - before it forks

    from authz_server.cli import main  # noqa: PLC0415
    from authz_server.endpoints.languages import MessageCatalogue  # noqa: PLC0415
    from support.entry_points import find_key_backends  # noqa: PLC0415

    for module in _IMPORTED_BY_EVERY_SERVER:
        import_module(module)
    with suppress(ImportError):
        import_module("uvloop")
    configure_mappers()
    find_key_backends()
    # Keeps the catalogues that it reads.
    MessageCatalogue("en", "")
    # The library chooses how it counts when it is imported, by the environment of the server.
    if "prometheus_client" in sys.modules:
        raise RuntimeError("the library of metrics is imported too early")
    gc.collect()
    gc.freeze()
    sys.argv[1:] = _Nursery(name).run()
    main(prog_name="authz-server")


if __name__ == "__main__":
    _main(sys.argv[1])
