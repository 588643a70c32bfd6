"""Counts in Redis: what they wait for, and a Redis that does not keep them."""

import asyncio
import threading
from collections.abc import Iterator

import pytest

from authz_server.clients.counters.redis import RedisCounters
from authz_server.clients.counters.shared import (
    COUNTING_SECONDS,
    Count,
    SharedCounters,
    StoreError,
)
from authz_server.serving.lanes import Lanes
from authz_server.waiting import Lane
from support.asked import lanes
from support.redis_server import RedisServer

ISSUER = "https://auth.example.org"
NOWHERE = "redis://127.0.0.1:1/0"


@pytest.fixture(scope="module")
def redis() -> Iterator[RedisServer]:
    """A Redis of this module alone."""
    with RedisServer() as server:
        yield server


async def count_on(made: Lanes, counters: SharedCounters) -> Count | None:
    """Add to a count as an endpoint does on an event loop."""
    counted = asyncio.get_running_loop().create_future()
    made.start(counters.add("a", now=1_000.0, ends_at=1_060), counted.set_result)
    return await counted


def test_counts_do_not_wait_behind_documents_that_are_fetched(redis: RedisServer):
    counters, released = SharedCounters(RedisCounters(redis.url), ISSUER), threading.Event()

    async def act() -> Count | None:
        async with lanes(threads=2) as made:
            for _ in range(20):
                made.keep(made.call(Lane.OUTBOUND, lambda: released.wait(60)))
            await asyncio.sleep(0)
            try:
                async with asyncio.timeout(30):
                    return await count_on(made, counters)
            finally:
                released.set()

    assert asyncio.run(act()) is not None


def test_a_redis_that_hangs_is_left_alone_after_a_limited_time(caplog, monkeypatch):
    """For example while its host is looked up, for which the library has no limit."""
    released, store = threading.Event(), RedisCounters(NOWHERE)
    monkeypatch.setattr(store, "_add", lambda _values: released.wait(60))
    counters = SharedCounters(store, ISSUER, monotonic=lambda: 0.0)

    async def act() -> list[Count | None]:
        async with lanes(seconds={Lane.COUNTS: COUNTING_SECONDS}) as made:
            try:
                async with asyncio.timeout(30):
                    return [await count_on(made, counters) for _ in range(100)]
            finally:
                released.set()

    assert asyncio.run(act()) == [None] * 100
    assert caplog.text.count("counts for itself") == 1
    assert "it takes too long: counts" in caplog.text


def test_a_redis_that_drops_counts_is_known_by_its_policy(redis: RedisServer):
    store = RedisCounters(redis.url)
    assert store.find_risk() == ""
    redis.client.config_set("maxmemory-policy", "allkeys-lru")
    # Without a limit of its memory it drops nothing.
    assert store.find_risk() == ""
    redis.client.config_set("maxmemory", 100_000_000)
    assert store.find_risk() == "allkeys-lru"
    redis.client.config_set("maxmemory-policy", "noeviction")
    assert store.find_risk() == ""
    redis.client.config_set("maxmemory", 0)
    with pytest.raises(StoreError):
        RedisCounters(NOWHERE).find_risk()


def test_a_role_that_may_not_ask_for_the_policy_counts_all_the_same(redis: RedisServer):
    kinds = [f"+@{kind}" for kind in ("read", "write", "transaction", "connection")]
    redis.client.acl_setuser("counter", enabled=True, nopass=True, keys="*", commands=kinds)
    store = RedisCounters(redis.url.replace("unix://", "unix://counter@"))
    assert store.probe()
    assert store.find_risk() == ""
