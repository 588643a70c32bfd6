"""Fixtures of the application in this process, and of the server in processes of its own."""

from contextlib import ExitStack
from pathlib import Path

import pytest

from authz_server.app import EXTENSION, Services, create_app
from authz_server.settings import load_settings
from support.clock import FakeClock, clock_ahead
from support.live_server import LiveServer
from support.parties import Parties, make_demo
from support.settings_file import write_settings
from support.watching import WatchingClient


@pytest.fixture
def clock() -> FakeClock:
    """The time of the application under test; it stands still.

    A little ahead of the present, so that what commands make by the real time is in force.
    """
    return clock_ahead()


@pytest.fixture
def settings_path(tmp_path: Path, database_url: str):
    """A function of overrides (tables as keyword arguments) that writes a settings file."""

    def write(**overrides) -> Path:
        return write_settings(tmp_path, database_url, overrides)

    return write


@pytest.fixture
def make_settings(settings_path):
    """A function of overrides that returns loaded settings."""

    def make(**overrides):
        return load_settings(settings_path(**overrides))

    return make


@pytest.fixture
def settings(make_settings, secrets_watch, tmp_path):
    """The settings of a test that sets nothing itself."""
    settings = make_settings()
    secrets_watch.watch_file(tmp_path / "audit.jsonl")
    secrets_watch.note(settings.clients.secret_pepper.reveal(), "pepper")
    return settings


@pytest.fixture
def parties(settings, secrets_watch) -> Parties:
    """What makes clients and resource servers in this test's database."""
    return Parties(settings, secrets_watch)


@pytest.fixture
def demo(parties):
    """Resource servers "mapper" and "disburse", and a client for each authentication method."""
    return make_demo(parties)


@pytest.fixture
def app(settings, parties, clock):
    """The application in this process, its time under the test's control."""
    parties.create_first_keys()
    clock.keep_ahead()
    app = create_app(settings, clock=clock)
    services = app.extensions[EXTENSION]
    parties.tell.append(services.feed.poll)
    yield app
    services.maintenance.stop()
    services.database.close()
    services.sink.close()


@pytest.fixture
def services(app) -> Services:
    """The parts of the application, wired."""
    return app.extensions[EXTENSION]


@pytest.fixture
def client(app, secrets_watch):
    """A client of the application, without a network between them."""
    app.test_client_class = WatchingClient
    client = app.test_client()
    client.watch = secrets_watch
    return client


@pytest.fixture
def start_live_server(tmp_path: Path, settings_path, parties):
    """A function of (workers, overrides) that starts a server of its own; all end with the test."""
    parties.create_first_keys()
    with ExitStack() as running:

        def start(*, workers: int = 1, **overrides) -> LiveServer:
            server = LiveServer(settings_path, tmp_path, workers=workers, **overrides)
            parties.watch.watch_file(server.log_path)
            return running.enter_context(server)

        yield start


@pytest.fixture
def live_server(start_live_server) -> LiveServer:
    """A server of one worker process."""
    return start_live_server()
