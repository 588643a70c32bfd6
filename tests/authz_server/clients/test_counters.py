"""Counts that several processes share: exact in the store, and in memory while it fails."""

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from msgspec.structs import replace
from sqlalchemy import func, select

from authz_server.clients.authentication.authenticator import STAND_IN
from authz_server.clients.authentication.throttle import FailureThrottle, SharedFailures
from authz_server.clients.cache import ClientEntry
from authz_server.clients.counters import shared
from authz_server.clients.counters.database import DatabaseCounters, SharedCount, purge_counts
from authz_server.clients.counters.opening import open_counters
from authz_server.clients.counters.redis import RedisCounters
from authz_server.clients.counters.shared import Addition, Count, SharedCounters, Store, StoreError
from authz_server.clients.restrictions import Restrictions
from authz_server.clients.token_budgets import TokenBudget
from authz_server.database.orm import Database, open_database
from authz_server.errors import OAuthError
from authz_server.metrics.events import CountedAlone
from authz_server.scopes.catalogue import ScopeCatalogue
from authz_server.settings import ClientSettings, Secret, SettingsError
from authz_server.settings.database import DatabaseSettings
from authz_server.tokens.authorization import Authorization
from authz_server.tokens.limits import TokenLimits
from authz_server.waiting import Batch, run
from support.clock import FakeClock
from support.redis_server import RedisServer

ISSUER = "https://auth.example.org"


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    """A database of one node."""
    database = open_database(DatabaseSettings(url=database_url))
    yield database
    database.close()


@pytest.fixture(scope="module")
def redis() -> Iterator[RedisServer]:
    """A Redis of this module alone."""
    with RedisServer() as server:
        yield server


@pytest.fixture(params=["sqlite", "postgresql", "redis"])
def open_node(request, redis: RedisServer) -> Iterator[Callable[[], Store]]:
    """A function that opens the store of one more node."""
    if request.param == "redis":
        redis.client.flushall()
        yield lambda: RedisCounters(redis.url)
        return
    url = request.getfixturevalue(f"{request.param}_url")
    opened = []

    def open_one() -> Store:
        opened.append(open_database(DatabaseSettings(url=url)))
        return DatabaseCounters(opened[-1])

    yield open_one
    for each in opened:
        each.close()


def add(store: Store, *values: Addition) -> list[Count]:
    return list(run(store.perform(values)))


def key(number: int) -> bytes:
    return bytes([number]) * 32


def test_a_count_ends_at_its_first_end_and_begins_again(open_node, clock_now: float):
    """Case T285."""
    store, now = open_node(), clock_now
    first = add(store, Addition(key(1), now, int(now) + 60))
    second = add(open_node(), Addition(key(1), now + 30, int(now) + 90))
    assert [first[0].number, second[0].number] == [1, 2]
    assert first[0].ends_at == int(now) + 60
    assert abs(second[0].ends_at - first[0].ends_at) <= 31


@pytest.fixture
def clock_now() -> float:
    """A time; Redis counts the seconds from it by its own clock."""
    return 1_900_000_000.25


def test_the_database_begins_a_count_again_after_its_end(database: Database, clock_now: float):
    """Case T285."""
    store, ends_at = DatabaseCounters(database), int(clock_now) + 60
    assert add(store, Addition(key(1), clock_now, ends_at)) == [Count(1, ends_at)]
    assert add(store, Addition(key(1), ends_at - 1, ends_at + 59)) == [Count(2, ends_at)]
    assert add(store, Addition(key(1), ends_at, ends_at + 60)) == [Count(1, ends_at + 60)]


def test_redis_forgets_a_count_at_its_end(redis: RedisServer):
    """Case T285."""
    store = RedisCounters(redis.url)
    add(store, Addition(key(2), 1_000.0, 1_000), Addition(key(3), 1_000.0, 1_060))
    assert 50_000 < redis.client.pttl("authz-server:count:" + key(3).hex()) <= 60_000
    deadline = time.monotonic() + 60
    while redis.client.exists("authz-server:count:" + key(2).hex()):
        assert time.monotonic() < deadline


def test_several_nodes_count_each_addition_once(open_node, clock_now: float):
    """Sixty-four at once, over four nodes, in batches. Case T285."""
    nodes = [open_node() for _ in range(4)]
    together = threading.Barrier(16)

    def count(number: int) -> list[int]:
        values = [Addition(key(9), clock_now, int(clock_now) + 60)] * 3
        values.append(Addition(key(10 + number % 4), clock_now, int(clock_now) + 60))
        together.wait()
        return [each.number for each in add(nodes[number % 4], *values)][:3]

    with ThreadPoolExecutor(16) as threads:
        counted = [number for numbers in threads.map(count, range(16)) for number in numbers]
    assert sorted(counted) == list(range(1, 49))


def test_ended_counts_are_purged(database: Database, clock_now: float):
    """Case T285."""
    store = DatabaseCounters(database)
    add(store, *(Addition(key(n), clock_now, int(clock_now) + 60 * n) for n in range(1, 4)))
    clock = FakeClock()
    clock.now = clock.now.fromtimestamp(clock_now + 200, clock.now.tzinfo)
    with database.transaction() as session:
        assert purge_counts(session, clock(), 1) == 1
        assert purge_counts(session, clock(), 10) == 1
    with database.reading() as session:
        assert session.scalar(select(func.count()).select_from(SharedCount)) == 1


# --------------------------------------------------------------------------- failures and tokens


def test_failures_on_one_node_count_on_the_other(open_node, clock_now: float):
    """The right secret is not asked about at all: only failures are counted. Case T285."""
    nodes = [SharedFailures(SharedCounters(open_node(), ISSUER), 3, 60) for _ in range(2)]

    def wait(node: int, client: str = "ministry", address: str = "192.0.2.1") -> int:
        return run(nodes[node].count_failure(client, address, clock_now))

    client = f"ministry-{id(nodes)}"
    started = time.monotonic()
    assert [wait(n % 2, client) for n in range(3)] == [0, 0, 0]
    waits = [wait(n % 2, client) for n in range(2)]
    # The clock of Redis goes on; the one of the nodes stands still.
    assert 60 - (time.monotonic() - started) <= min(waits) <= max(waits) <= 61
    assert wait(0, client, "192.0.2.2") == 0
    assert wait(0, f"{client}-other") == 0
    # The pair of another server in the same store is another one.
    foreign = SharedFailures(SharedCounters(open_node(), "https://other.example"), 3, 60)
    assert run(foreign.count_failure(client, "192.0.2.1", clock_now)) == 0


def test_a_budget_is_exact_over_several_nodes(open_node):
    """Case T285."""
    clock = FakeClock()
    nodes = [
        TokenLimits(ScopeCatalogue(), clock, SharedCounters(open_node(), f"{ISSUER}/{id(clock)}"))
        for _ in range(3)
    ]
    together = threading.Barrier(12)

    def take(number: int) -> bool:
        together.wait()
        return is_granted(nodes[number % 3], "ministry", tokens=5)

    with ThreadPoolExecutor(12) as threads:
        assert sum(threads.map(take, range(12))) == 5
    assert not any(is_granted(node, "ministry", tokens=5) for node in nodes)
    assert is_granted(nodes[0], "another", tokens=5)


def test_a_budget_that_another_node_has_spent_is_read_before_it_is_counted(open_node):
    """A request that uses something up is refused before; to read a count adds nothing to it."""
    clock = FakeClock()
    counters = [SharedCounters(open_node(), f"{ISSUER}/{id(clock)}") for _ in range(3)]
    nodes = [TokenLimits(ScopeCatalogue(), clock, each) for each in counters]
    client = entry("ministry", TokenBudget(per="day", tokens=2))

    def judge(node: TokenLimits, *, asks_store: bool) -> Authorization:
        wanted = authorization("ministry")
        return run(node.apply(client, client.restrictions, wanted, asks_store=asks_store))

    for node in (*nodes[:2], *nodes[:2]):
        judge(node, asks_store=True)
    assert [is_granted(node, "ministry", tokens=2) for node in nodes[:2]] == [True, True]
    judge(nodes[2], asks_store=False)
    with pytest.raises(OAuthError) as caught:
        judge(nodes[2], asks_store=True)
    assert caught.value.reason == "token_budget_spent"


def test_a_spent_budget_takes_nothing_of_a_longer_one_on_any_node(open_node):
    clock = FakeClock()
    counters = [SharedCounters(open_node(), f"{ISSUER}/{id(clock)}") for _ in range(5)]
    nodes = [TokenLimits(ScopeCatalogue(), clock, each) for each in counters]
    client = entry(
        "ministry", TokenBudget(per="day", tokens=3), TokenBudget(per="minute", tokens=1)
    )

    def ask(node: TokenLimits) -> str:
        try:
            run(grant(node, client))
        except OAuthError as refusal:
            return refusal.detail
        return "granted"

    assert [ask(node) for node in nodes] == ["granted", *["per minute"] * 4]
    client = entry("ministry", TokenBudget(per="day", tokens=3))
    assert [ask(node) for node in nodes] == ["granted"] * 2 + ["per day"] * 3


def entry(client_id: str, *budgets: TokenBudget) -> ClientEntry:
    """Return a client with budgets and no other restriction."""
    restrictions = Restrictions(
        networks=None, windows=None, expires_at=float("inf"), budgets=budgets, claims={}
    )
    return replace(STAND_IN, id=client_id, restrictions=restrictions)


def authorization(client_id: str) -> Authorization:
    return Authorization(
        client_id=client_id,
        grant_type="client_credentials",
        scopes=("mapper/link",),
        scope="mapper/link",
        audience=("https://mapper.example",),
        token_format="jwt",
        ring="",
        lifetime_seconds=900,
    )


async def grant(limits: TokenLimits, client: ClientEntry) -> None:
    """Judge and count a token, as its request does."""
    granted = await limits.apply(client, client.restrictions, authorization(client.id))
    await limits.count(client, client.restrictions, granted)


def is_granted(limits: TokenLimits, client_id: str, tokens: int) -> bool:
    """Ask for a token within a budget."""
    client = entry(client_id, TokenBudget(per="day", tokens=tokens))
    try:
        run(grant(limits, client))
    except OAuthError as refusal:
        if refusal.reason != "token_budget_spent" or not refusal.retry_after_seconds:
            raise
        return False
    return True


# -------------------------------------------------------------------------------- a failing store


class Failing(Batch[Addition, Count]):
    """A store that fails until it is repaired, and notes how often it was asked."""

    def __init__(self) -> None:
        self.error: Exception | None = StoreError("out of order")
        self.asked = 0

    async def perform(self, values):
        self.asked += 1
        if self.error is not None:
            raise self.error
        return [Count(1, value.ends_at) for value in values]


def test_a_failing_store_is_logged_once_and_left_alone_for_a_while(caplog):
    """Each process then counts for itself. Case T285."""
    store, now = Failing(), [0.0]
    alone: list[object] = []
    counters = SharedCounters(store, ISSUER, notify=alone.append, monotonic=lambda: now[0])
    caplog.set_level("INFO")

    def count() -> Count | None:
        return run(counters.add("failure", "a", now=1_000.0, ends_at=1_060))

    assert [count() for _ in range(5)] == [None] * 5
    assert store.asked == 1
    now[0] += shared.PAUSE_SECONDS
    assert count() is None
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "out of order" in caplog.text
    store.error = None
    now[0] += shared.PAUSE_SECONDS
    assert [count(), count()] == [Count(1, 1_060)] * 2
    assert alone == [CountedAlone()] * 6
    assert [record.levelname for record in caplog.records] == ["WARNING", "INFO"]


def test_a_full_queue_is_no_failure_of_the_store(caplog):
    """Case T285."""
    store = Failing()
    store.error = OAuthError("temporarily_unavailable", "too many requests wait")
    counters = SharedCounters(store, ISSUER)
    assert run(counters.add("x", now=1_000.0, ends_at=1_060)) is None
    store.error = None
    assert run(counters.add("x", now=1_000.0, ends_at=1_060)) == Count(1, 1_060)
    assert caplog.records == []


@pytest.mark.parametrize("stopped", ["redis", "database"])
def test_without_the_store_each_process_keeps_its_own_limits(stopped: str, tmp_path, caplog):
    """A store that is really gone; the throttle of the process and its budget stand. Case T285."""
    store: Store = (
        RedisCounters(f"unix://{tmp_path}/nowhere")
        if stopped == "redis"
        else DatabaseCounters(open_database(DatabaseSettings(url=f"sqlite:///{tmp_path}/none.db")))
    )
    counters = SharedCounters(store, ISSUER)
    failures, local = SharedFailures(counters, 3, 60), FailureThrottle(3, 60)
    assert [run(failures.count_failure("a", "192.0.2.1", 1_000.0)) for _ in range(9)] == [0] * 9
    assert [local.count_failure("a", "192.0.2.1", 1_000.0) for _ in range(4)] == [0, 0, 0, 61]
    limits = TokenLimits(ScopeCatalogue(), FakeClock(), counters)
    assert [is_granted(limits, "ministry", tokens=2) for _ in range(4)] == [
        True,
        True,
        False,
        False,
    ]
    assert caplog.text.count("counts for itself") == 1


def test_a_redis_that_takes_no_changes_is_noticed_before_a_count(redis: RedisServer, caplog):
    """And that it takes them again; it is asked once in some seconds. Case T285."""
    now = [0.0]
    counters = SharedCounters(RedisCounters(redis.url), ISSUER, monotonic=lambda: now[0])
    assert counters.find_failure() == ""
    redis.client.config_set("min-replicas-to-write", 1)
    assert counters.find_failure() == ""
    now[0] += shared.PAUSE_SECONDS
    assert "NOREPLICAS" in counters.find_failure()
    redis.client.config_set("min-replicas-to-write", 0)
    now[0] += shared.PAUSE_SECONDS
    assert counters.find_failure() == ""
    assert caplog.text.count("counts for itself") == 1


def test_the_settings_choose_the_store(tmp_path):
    """A password in the URL of Redis is in no message. Case T285."""
    database = open_database(DatabaseSettings(url=f"sqlite:///{tmp_path}/none.db"))

    def opened(throttle: str, url: bytes | None = None) -> SharedCounters | None:
        settings = ClientSettings(
            secret_pepper=Secret(b"p" * 32),
            throttle=throttle,
            redis_url=None if url is None else Secret(url),
        )
        return open_counters(settings, database, ISSUER)

    assert opened("memory") is None
    assert opened("database") is not None
    assert opened("redis", b"rediss://user:password@127.0.0.1:1/0") is not None
    for wrong in (
        b"http://password@host",
        b"redis://",
        b"password",
        b"redis://127.0.0.1/0?password_of=me",
        b"rediss://127.0.0.1/0?ssl_cert_reqs=password",
    ):
        with pytest.raises((ValueError, SettingsError), match="redis_url") as refusal:
            opened("redis", wrong)
        assert "password" not in str(refusal.value).replace("user:password@host:6379", "")
    with pytest.raises(ValueError, match="redis_url"):
        opened("redis")
