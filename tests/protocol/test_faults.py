"""The database goes away under requests, and comes back: 503 in bounded time, then as before."""

import itertools
import sqlite3
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager

import pytest
from sqlalchemy import make_url

from support.databases import copied_database
from support.faults import (
    POSTGRESQL_FAULTS,
    SQLITE_FAULTS,
    FaultyDatabase,
    faulty_postgresql,
    faulty_sqlite,
)
from support.stage import FORMATS, INACTIVE, METHODS, ApplicationFixture

LIMIT_SECONDS = 4.0  # of one answer: a statement, a connection, a place in the pool
RECOVERY_SECONDS = 2.0
DATABASE = {
    "statement_timeout_milliseconds": 400,
    "connect_timeout_seconds": 1,
    "pool_timeout_milliseconds": 300,
    "refresh_interval_milliseconds": 100,
    "staleness_limit_milliseconds": 300,
}
ENDPOINTS = ("token", "g2p", "introspect", "revoke")


class Scene:
    """The application with a database that can be taken away."""

    def __init__(self, stage: ApplicationFixture, database: FaultyDatabase) -> None:
        self.stage, self.database = stage, database

    def request(self, endpoint: str, method: str, form: str, token: str):
        """Send a request that would succeed; return its answer and how long it took."""
        name, caller = f"{method}-{form}", self.stage.callers[f"client-{method}"]
        if endpoint == "introspect":
            caller = self.stage.callers[name]
        body = {"token": token}
        if endpoint in {"token", "g2p"}:
            body = {"grant_type": "client_credentials", "scope": f"{name}/read"}
        began = time.monotonic()
        answer = self.stage.post(endpoint, body, caller)
        return answer, time.monotonic() - began

    @contextmanager
    def fault(self, name: str) -> Iterator[None]:
        """Take the database away, long enough that the memory is too old to answer from."""
        with self.database.fault(name):
            time.sleep(0.4)
            yield

    def await_recovery(self) -> None:
        """Return when the server answers again, without anybody's help."""
        # What it still knew from before must not be what it answers from.
        time.sleep(DATABASE["staleness_limit_milliseconds"] / 1_000)
        deadline = time.monotonic() + RECOVERY_SECONDS
        caller = self.stage.callers["basic-jwt"]
        while self.stage.post("introspect", {"token": "x"}, caller).status_code != 200:
            assert time.monotonic() < deadline
            time.sleep(0.05)


@pytest.fixture(scope="module", params=[*SQLITE_FAULTS, *POSTGRESQL_FAULTS])
def fault(request) -> str:
    """What happens to the database."""
    return request.param


@pytest.fixture(scope="module")
def scene(fault: str, request, tmp_path_factory) -> Iterator[Scene]:
    """The application on a database of the kind that the fault is of."""
    directory = tmp_path_factory.mktemp("scene")
    with request.getfixturevalue("make_faulty")(fault) as database:
        stage = ApplicationFixture(directory, database.url, database=DATABASE)
        yield Scene(stage, database)
        stage.close()


@pytest.fixture(scope="module")
def make_faulty(request, tmp_path_factory):
    """A function of a fault's name that gives a database that can have it."""

    @contextmanager
    def make(fault: str) -> Iterator[FaultyDatabase]:
        dialect = "sqlite" if fault in SQLITE_FAULTS else "postgresql"
        directory = tmp_path_factory.mktemp("database")
        with copied_database(request, dialect, directory) as url:
            if dialect == "sqlite":
                with faulty_sqlite(url) as database:
                    yield database
            else:
                access = request.getfixturevalue("postgresql")
                with faulty_postgresql(url, access) as database:
                    yield database

    return make


def require_unavailable(answer, taken: float) -> None:
    assert answer.status_code == 503, answer.text
    assert int(answer.headers["Retry-After"]) >= 1
    assert answer.headers["Cache-Control"] == "no-store"
    body = answer.get_json()
    assert body["error"] in {"temporarily_unavailable", "server_error"}
    assert "active" not in body
    assert taken < LIMIT_SECONDS


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("method", METHODS)
def test_nothing_is_answered_without_the_database(scene: Scene, fault, method, form):
    """Case E66, Case J109, Case J114."""
    stage, name = scene.stage, f"{method}-{form}"
    token, revoked = (stage.token(f"{name}/read", stage.callers[f"client-{method}"]) for _ in "ab")
    stage.revoke(revoked, f"client-{method}")
    with scene.fault(fault), ThreadPoolExecutor(8) as pool:
        asked = [
            pool.submit(scene.request, endpoint, method, form, presented)
            for endpoint in ENDPOINTS
            for presented in (token, revoked)
        ]
        for each in asked:
            require_unavailable(*each.result())
    scene.await_recovery()
    # Neither a verdict of the fault's time is left, nor was the token revoked.
    assert stage.introspect(token, name)["active"] is True
    assert stage.introspect(revoked, name) == INACTIVE
    # Whatever was begun, no record says that it was done.
    jti = stage.introspect(token, name)["jti"]
    told = [each["event"] for each in stage.records() if each.get("jti") == jti]
    assert "token.revoked" not in told
    stage.revoke(token, f"client-{method}")
    assert stage.introspect(token, name) == INACTIVE


def test_the_first_moment_of_a_fault_invents_nothing(scene: Scene, fault):
    """Case E66."""
    stage = scene.stage
    token, ended = stage.token(), stage.token()
    stage.revoke(ended)
    with scene.database.fault(fault):
        for presented in (token, ended, "invented"):
            answer, taken = scene.request("introspect", "basic", "jwt", presented)
            require_unavailable(answer, taken)
        answer, taken = scene.request("revoke", "basic", "jwt", token)
        require_unavailable(answer, taken)
    scene.await_recovery()
    assert stage.introspect(token)["active"] is True


def test_many_at_once_wait_no_longer_than_one(scene: Scene, fault):
    """Case E66, Case J114."""
    token = scene.stage.token()
    with scene.fault(fault), ThreadPoolExecutor(12) as pool:
        asked = [
            pool.submit(scene.request, ENDPOINTS[number % 4], "basic", "jwt", token)
            for number in range(24)
        ]
        for each in asked:
            require_unavailable(*each.result())
    scene.await_recovery()
    assert scene.stage.introspect(token)["active"] is True


def test_a_locked_file_stops_changes_and_nothing_else(sqlite_url, tmp_path_factory):
    """Case E66, Case J114."""
    stage = ApplicationFixture(tmp_path_factory.mktemp("stage"), sqlite_url, database=DATABASE)
    token, reference = stage.token(), stage.token("basic-reference/read")
    ended = stage.token()
    stage.revoke(ended)
    scene = Scene(stage, FaultyDatabase(sqlite_url, {}))
    with closing(sqlite3.connect(make_url(sqlite_url).database, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        for method, form in itertools.product(METHODS, FORMATS):
            presented = {"jwt": token, "reference": reference}[form]
            if method == "basic":
                require_unavailable(*scene.request("revoke", method, form, presented))
            assert stage.introspect(presented, f"basic-{form}")["active"] is True
            answer, taken = scene.request("token", method, form, "")
            if form == "reference":
                require_unavailable(answer, taken)
            else:
                assert answer.status_code == 200
        assert stage.introspect(ended) == INACTIVE
        other.execute("ROLLBACK")
    stage.revoke(token)
    assert stage.introspect(token) == INACTIVE
    assert stage.introspect(reference, "basic-reference")["active"] is True
    stage.close()
