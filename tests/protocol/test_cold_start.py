"""A server that starts while its database is away: it waits, issues nothing, and makes no key."""

import json
import re
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import httpx
import pytest
from sqlalchemy import func, select

from authz_server.app import EXTENSION, create_app
from authz_server.key_rings.models import KeyEvent, KeyRing, SigningKeyRow
from authz_server.settings import load_settings
from support.databases import copied_database
from support.faults import POSTGRESQL_FAULTS, FaultyDatabase, faulty_postgresql
from support.live_server import LiveServer
from support.parties import Credentials, Parties
from support.secrets_watch import SecretsWatch
from support.settings_file import write_settings

RECOVERY_SECONDS = 10.0
DATABASE = {
    "statement_timeout_milliseconds": 400,
    "connect_timeout_seconds": 1,
    "pool_timeout_milliseconds": 300,
    "refresh_interval_milliseconds": 100,
    "staleness_limit_milliseconds": 300,
}
FORM = {"grant_type": "client_credentials"}


class Site:
    """A prepared database that can be taken away, and one client of the server."""

    def __init__(self, directory: Path, database: FaultyDatabase) -> None:
        self.directory, self.database = directory, database
        self.settings = load_settings(self.write())
        parties = Parties(self.settings, SecretsWatch())
        parties.create_first_keys()
        parties.make_resource_server()
        self.client: Credentials = parties.make_client()

    def write(self, **overrides) -> Path:
        return write_settings(
            self.directory, self.database.url, {"database": DATABASE, **overrides}
        )

    @contextmanager
    def application(self) -> Iterator:
        app = create_app(self.settings)
        services = app.extensions[EXTENSION]
        yield app.test_client()
        services.maintenance.stop()
        services.database.close()
        services.sink.close()

    def keys(self) -> dict[str, int]:
        """Return how many rows the tables of keys have."""
        with self.application() as client:
            database = client.application.extensions[EXTENSION].database
            with database.reading() as session:
                return {
                    model.__tablename__: session.scalar(select(func.count()).select_from(model))
                    for model in (KeyRing, SigningKeyRow, KeyEvent)
                }


@pytest.fixture(params=POSTGRESQL_FAULTS)
def fault(request) -> str:
    """What happens to the database."""
    return request.param


@pytest.fixture
def site(request, tmp_path, postgresql) -> Iterator[Site]:
    """A site on PostgreSQL; SQLite is a file of this machine, and there at once or never."""
    with (
        copied_database(request, "postgresql", tmp_path) as url,
        faulty_postgresql(url, postgresql) as database,
    ):
        yield Site(tmp_path, database)


def test_an_application_that_starts_without_its_database_recovers(site: Site, fault: str):
    """Case G82."""
    before = site.keys()
    with site.application() as client:
        with site.database.fault(fault):
            for path in ("/oauth2/token", "/oauth2/introspect", "/oauth2/revoke"):
                began = time.monotonic()
                answer = client.post(path, data=FORM | {"token": "x"} | site.client.form())
                assert (answer.status_code, time.monotonic() - began < 4) == (503, True)
                assert int(answer.headers["Retry-After"]) >= 1
            for path in ("/.well-known/jwks.json", "/.well-known/oauth-authorization-server"):
                answer = client.get(path)
                assert (answer.status_code, answer.headers["Cache-Control"]) == (503, "no-store")
        deadline = time.monotonic() + RECOVERY_SECONDS
        while client.post("/oauth2/token", data=FORM | site.client.form()).status_code != 200:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        assert len(client.get("/.well-known/jwks.json").json["keys"]) == 2
    assert site.keys() == before


def test_a_server_that_starts_without_its_database_becomes_ready(site: Site):
    """Case G82."""
    server = LiveServer(site.write, site.directory, unforked=True, database=DATABASE)
    away = site.database.fault("refused")
    away.__enter__()
    with ThreadPoolExecutor(1) as pool:
        # Beside: the server ends with the thread that starts it, and that thread waits for it.
        looking = pool.submit(_look_and_heal, site, server, away)
        with server:
            looking.result()
            answer = httpx.post(f"{server.base_url}/oauth2/token", data=FORM | site.client.form())
            assert answer.status_code == 200, answer.text
    verify_log(server.log())


def verify_log(log: str) -> None:
    """One sentence with what the driver reported at the start, then at growing intervals."""
    lines = [line for line in log.splitlines() if line.startswith("{")]
    records = [record for record in map(json.loads, lines) if "level" in record]
    assert len(lines) == len(log.splitlines())
    assert "OperationalError" not in log
    warnings = [r["message"] for r in records if r["level"] in {"warning", "error"}]
    at_start = [each for each in warnings if each.startswith("the database does not answer yet")]
    assert len(at_start) == 1
    assert "connection" in at_start[0]
    by_begin = Counter(re.sub(r"[(:].*", "", each) for each in warnings)
    # An outage of some seconds: at once, after 2 s, after 4 s.
    assert max(by_begin.values()) <= 3, warnings


def _look_and_heal(site: Site, server: LiveServer, away: AbstractContextManager[None]) -> None:
    try:
        with httpx.Client(timeout=5) as client:
            health = _until_answered(client, f"{server.health_url}/health/ready", 503)
            assert "database" in health.json()["failed"]
            answer = _until_answered(client, f"{server.base_url}/.well-known/jwks.json", 503)
            assert answer.headers["Cache-Control"] == "no-store"
            answer = client.post(f"{server.base_url}/oauth2/token", data=FORM | site.client.form())
            assert answer.status_code == 503
            assert client.get(f"{server.health_url}/health/live").status_code == 200
    finally:
        away.__exit__(None, None, None)


def _until_answered(client: httpx.Client, url: str, status: int) -> httpx.Response:
    deadline = time.monotonic() + 20
    while True:
        try:
            answer = client.get(url)
        except httpx.TransportError:
            assert time.monotonic() < deadline
            time.sleep(0.05)
            continue
        assert answer.status_code == status, answer.text
        return answer
