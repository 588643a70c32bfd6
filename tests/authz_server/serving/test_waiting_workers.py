"""A worker with changed settings, which waits until the main process lets it accept connections."""

import os
import pickle
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace

import httpx
import msgspec
import pytest

from authz_server.serving.shares import make_table
from authz_server.serving.worker import Order
from authz_server.serving.worker_processes import Worker, spawn_worker
from authz_server.settings import Settings, load_settings
from support.databases import copied_database
from support.parties import Parties
from support.secrets_watch import SecretsWatch
from support.settings_file import write_settings

ROLES = {"public": "/.well-known/jwks.json", "admin": "/admin/v1/clients"}
ENDS_WITHIN_SECONDS = 60


class Started:
    """A worker as the main process starts it in a reload, and its listening socket."""

    def __init__(self, settings: Settings, role: str, *, place: int = 0, waits: bool = True):
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._table = make_table(1)
        self.port: int = self._listener.getsockname()[1]
        reading, writing = os.pipe()
        os.set_blocking(reading, False)
        self.order = Order(
            settings=settings,
            settings_file="authz-server.toml",
            listeners=(self._listener.fileno(),),
            report=writing,
            role=role,
            table=self._table,
            place=place,
            waits=waits,
        )
        self.process: subprocess.Popen = spawn_worker(self.order)
        os.close(writing)
        self.worker = Worker(self.process, reading, time.monotonic())

    def await_service(self) -> None:
        """Return once it reports that it can serve."""
        ends = time.monotonic() + ENDS_WITHIN_SECONDS
        while not self.worker.reported_at or self.worker.latest.failed:
            assert time.monotonic() < ends, self.worker.latest
            assert self.process.poll() is None
            time.sleep(0.02)
            self.worker.read_reports()

    def await_end(self) -> int:
        """Return the exit status."""
        return self.process.wait(ENDS_WITHIN_SECONDS)

    @contextmanager
    def left_alone(self) -> Iterator[None]:
        """Open a connection and send a request; in the end it is left for another worker."""
        with socket.create_connection(("127.0.0.1", self.port), 10) as asking:
            asking.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
            yield
            self._listener.settimeout(10)
            accepted, _ = self._listener.accept()
            with accepted:
                assert accepted.recv(3) == b"GET"

    def status(self, path: str) -> int:
        """Return how it answers a request."""
        return httpx.get(f"http://127.0.0.1:{self.port}{path}", timeout=60).status_code

    def close(self) -> None:
        """End it, and close what it was given."""
        self.process.kill()
        self.process.wait()
        with suppress(OSError):
            self.worker.close()
        self._listener.close()
        os.close(self._table)


@pytest.fixture(scope="module")
def settings(tmp_path_factory, request) -> Settings:
    """Settings with keys, on a database of SQLite."""
    folder = tmp_path_factory.mktemp("waiting")
    admin = {"enabled": True, "public_url": "https://admin.example"}
    with copied_database(request, "sqlite", folder) as url:
        made = load_settings(write_settings(folder, url, {"admin": admin}))
        Parties(made, SecretsWatch()).create_first_keys()
        yield made


@pytest.fixture
def start(settings: Settings) -> Iterator:
    """Start workers that end with the test."""
    started = []

    def start(role: str, *, workers: int = 1, **options) -> Started:
        server = msgspec.structs.replace(settings.server, workers=workers)
        started.append(Started(msgspec.structs.replace(settings, server=server), role, **options))
        return started[-1]

    yield start
    for each in started:
        each.close()


@pytest.mark.parametrize("role", ROLES)
def test_it_accepts_connections_once_it_may(start, role: str):
    """Case J117."""
    started = start(role)
    with started.left_alone():
        started.await_service()
    started.worker.let_accept()
    assert started.status(ROLES[role]) in {200, 401}
    started.process.terminate()
    assert started.await_end() == 0


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("ending", ["SIGTERM", "the main process ends"])
def test_it_ends_without_having_accepted_one(start, role: str, ending: str):
    """Case J116, Case J117."""
    started = start(role)
    started.await_service()
    with started.left_alone():
        if ending == "SIGTERM":
            started.process.terminate()
        else:
            started.process.stdin.close()
        assert started.await_end() == 0


@pytest.mark.parametrize("waits", [False, True])
def test_one_that_cannot_accept_ends(start, waits):
    """Whether it waited or not: otherwise it would report that it serves. Case J117."""
    # The entry of a place that the table lacks.
    started = start("public", workers=2, place=9, waits=waits)
    if waits:
        started.await_service()
        started.worker.let_accept()
    assert started.await_end() == 1


@pytest.mark.parametrize("lacks", [0, 1])
def test_an_order_of_an_earlier_build_may_lack_the_last_field(settings, monkeypatch, lacks):
    """Its main process starts workers of the installed build until it is restarted. Case J117."""
    order = Order(settings, "a.toml", (3,), 4, "admin", 5, 6, waits=True)
    values = order.__getstate__()
    monkeypatch.setattr(Order, "__getstate__", lambda _: values[: len(values) - lacks])
    found = pickle.loads(pickle.dumps(order))  # noqa: S301 - made here
    assert found.settings.issuer == settings.issuer
    assert replace(found, settings=settings) == replace(order, waits=not lacks)
