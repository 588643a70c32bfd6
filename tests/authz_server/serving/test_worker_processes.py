"""The main process forks workers while it has one thread; later ones are new programs."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import NamedTuple

import pytest

from authz_server.serving.self_check import Report
from authz_server.serving.worker_processes import Worker, may_fork
from support.databases import copied_database
from support.edge import ServerFixture, running_edge

FORKS = """
import socket, sys, threading
from authz_server.serving.worker_processes import may_fork

alone = may_fork()
sys.modules["pkcs11"] = threading
print(may_fork())
del sys.modules["pkcs11"]
opened = socket.socket()
print(may_fork(), may_fork([opened.fileno()]))
opened.close()
ends = threading.Event()
threading.Thread(target=ends.wait).start()
print(alone, may_fork())
ends.set()
"""


def test_a_torn_report_leaves_the_last_one_in_force():
    """A worker writes without waiting, so that the pipe may end in a part of a report."""
    reading, writing = os.pipe()
    worker = Worker(SimpleNamespace(stdin=None), reading, 0.0)
    whole = Report(failed=("keys: none",))
    for written in (whole.encode(), whole.encode()[:9] + whole.encode(), b"\xff\n", b"[1]\n"):
        worker.reported_at = 0.0
        os.write(writing, written)
        worker.read_reports()
        assert worker.latest == whole
        assert worker.reported_at > 0
    os.write(writing, Report().encode())
    worker.read_reports()
    assert worker.latest == Report()
    os.close(writing)
    worker.close()


PLUGINS = {
    "enabled": ["claims_mapper", "scope_array"],
    "settings": {"claims_mapper": {"claims": {"permissions": "scopes"}}},
}


@pytest.fixture(scope="module")
def edge(request, tmp_path_factory) -> Iterator[ServerFixture]:
    """A server of two workers; how they start does not depend on the database.

    Its plugins have hooks that run at start.
    """
    directory = tmp_path_factory.mktemp("server")
    with (
        copied_database(request, "sqlite", directory) as url,
        running_edge(directory, url, workers=2, unforked=True, plugins=PLUGINS) as edge,
    ):
        yield edge


def command_of(process_id: int) -> bytes:
    return Path(f"/proc/{process_id}/cmdline").read_bytes()


def open_files(process_id: int) -> set[str]:
    """Return the pipes and sockets that a process has open."""
    links = set()
    for each in Path(f"/proc/{process_id}/fd").iterdir():
        # The process may close a file, such as a module that it imports, between the two looks.
        with suppress(FileNotFoundError):
            links.add(str(each.readlink()))
    return {each for each in links if each.startswith(("pipe:", "socket:"))}


def test_a_process_with_a_thread_a_connection_or_a_pkcs11_module_is_not_forked(monkeypatch):
    done = subprocess.run(
        [sys.executable, "-c", FORKS], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.split() == ["False", "False", "True", "True", "False"]
    # Without /proc, which macOS lacks, it is unknown what a fork would leave behind.
    monkeypatch.setattr("authz_server.serving.worker_processes._THREADS", Path("/nowhere"))
    assert not may_fork()


class Process(NamedTuple):
    """The program of a process, and the files that it has open."""

    command: bytes
    files: set[str]


@pytest.fixture(scope="module")
def first_processes(edge: ServerFixture) -> list[Process]:
    """The main process and its first workers, before one of them is replaced."""
    return [
        Process(command_of(each), open_files(each))
        for each in (edge.server.process_id, *edge.server.worker_process_ids())
    ]


def test_the_first_workers_are_forks_and_hold_nothing_of_each_other(
    first_processes: list[Process],
):
    main, first, second = first_processes
    assert first.command == second.command == main.command
    shared = first.files & second.files
    # The listening socket; standard output and error of a test are a file.
    assert len(shared) == 1
    assert all(each.startswith("socket:") for each in shared)
    # The main process also has a pipe to and one from each worker.
    assert len(main.files & first.files) == 3


@pytest.mark.usefixtures("first_processes")
def test_a_worker_that_replaces_a_fork_is_a_new_program(edge: ServerFixture):
    first, second = edge.server.worker_process_ids()
    # As a forked process exits, it must not take away what is the main process's.
    os.kill(first, signal.SIGTERM)
    edge.server.await_log(f"worker {first} exited with status 0")
    deadline = time.monotonic() + 60
    while not (edge.server.is_ready() and len(edge.server.worker_process_ids()) == 2):
        assert time.monotonic() < deadline, edge.server.log()
        time.sleep(0.05)
    (third,) = set(edge.server.worker_process_ids()) - {second}
    assert b"authz_server.serving.worker" in command_of(third)
    (folder,) = edge.server.log_path.parent.glob("authz-server-metrics-*")
    assert list(folder.glob(f"counter_{third}.db"))
    assert edge.token_is_active()
