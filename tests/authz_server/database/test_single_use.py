"""Values that are accepted once over all threads, processes and nodes."""

import asyncio
import os
import sqlite3
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, asynccontextmanager, closing
from datetime import UTC, datetime, timedelta
from functools import partial
from hashlib import sha256

import pytest
from sqlalchemy import insert, select
from sqlalchemy.exc import SQLAlchemyError

from authz_server.database import single_use
from authz_server.database.orm import Database, open_database
from authz_server.database.single_use import (
    SingleUse,
    UsedValue,
    delete_expired_values,
    find_expired_values,
)
from authz_server.serving.lanes import Lanes
from authz_server.settings import DatabaseSettings
from authz_server.waiting import Lane, run
from support.loop_queries import cut, queries, run_on

_CUT_WAITING = (
    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
)
# After the end of all tests, which begin some minutes later.
LATER = time.time() + 86_400
SUBMISSIONS = 64


def open_node(url: str, **settings) -> Database:
    return open_database(DatabaseSettings(url=url, **settings))


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    database = open_node(database_url)
    yield database
    database.close()


def use(database: Database, value: bytes, kind: str = "test", expires_at: float = LATER) -> bool:
    return run(SingleUse(database).use(kind, value, expires_at))


@asynccontextmanager
async def event_loop_of(url: str):
    """Yield lanes that run coroutines as a worker does."""
    async with AsyncExitStack() as stack:
        lanes = Lanes(
            asyncio.get_running_loop(),
            threads=dict.fromkeys(Lane, 4),
            maximum_waiting=1_000,
            prepared_queries=None,
        )
        if not url.startswith("sqlite"):
            lanes.use_queries(await stack.enter_async_context(queries(url, statement_seconds=5)))
        yield lanes
        await lanes.close()


async def use_all(
    database: Database, url: str, values: list[bytes], expires_at=lambda _: LATER
) -> list[bool | Exception]:
    """Use values at once on an event loop."""
    values_used_once, loop = SingleUse(database), asyncio.get_running_loop()

    async def respond_to(value: bytes):
        try:
            return await values_used_once.use("test", value, expires_at(value))
        except SQLAlchemyError as error:
            return error

    async with event_loop_of(url) as lanes:
        results = [loop.create_future() for _ in values]
        for value, result in zip(values, results, strict=True):
            lanes.start(respond_to(value), result.set_result)
        return await asyncio.gather(*results)


def test_a_value_is_accepted_once_and_each_kind_has_its_own(database):
    assert use(database, b"value")
    assert not use(database, b"value")
    assert use(database, b"value", kind="other")
    # The kind and the value do not run into each other.
    assert use(database, b"bc", kind="a")
    assert use(database, b"c", kind="ab")
    assert use(database, b"")
    assert use(database, b"\0\xff" * 10_000)


def test_an_expiry_of_any_size_is_stored(database):
    assert use(database, b"past", expires_at=1.5)
    assert use(database, b"never", expires_at=float("inf"))
    assert not use(database, b"never", expires_at=float("inf"))


def test_of_many_uses_on_an_event_loop_one_of_each_value_is_accepted(database, database_url):
    values = [b"%d" % (number % 50) for number in range(300)]
    results = run_on("uvloop", use_all(database, database_url, values))
    assert (results.count(True), results.count(False)) == (50, 250)


def test_values_of_one_commit_have_expiries_of_their_own(database, database_url):
    values, now = [b"%d" % number for number in range(100)], int(LATER)
    used = use_all(database, database_url, values, lambda value: now + int(value))
    assert run_on("uvloop", used) == [True] * 100
    with database.reading() as session:
        found = {row.digest: row.expires_at for row in session.scalars(select(UsedValue))}
    digests = [sha256(b"test\0" + value).digest() for value in values]
    assert found == {digest: now + number for number, digest in enumerate(digests)}


def test_a_used_value_costs_no_other_of_its_commit(database, database_url):
    assert use(database, b"7")
    values = [b"%d" % number for number in range(100)]
    results = run_on("uvloop", use_all(database, database_url, [*values, b"9"]))
    assert [values[place] for place, result in enumerate(results[:100]) if not result] == [b"7"]
    assert results[100] is False


def test_uses_that_arrive_during_a_commit_share_the_next(database, database_url, monkeypatch):
    commits = []
    insert_rows, fetch_one = database.prepared_queries.insert, database.fetch_one

    def insert_noting(statement, value):
        commits.append(value)
        return insert_rows(statement, value)

    async def fetch_noting(query, value):
        commits.append(value)
        return await fetch_one(query, value)

    monkeypatch.setattr(database.prepared_queries, "insert", insert_noting)
    monkeypatch.setattr(database, "fetch_one", fetch_noting)
    values = [b"%d" % number for number in range(300)]
    assert run_on("uvloop", use_all(database, database_url, values)) == [True] * 300
    assert 0 < len(commits) <= 6


def test_of_many_submissions_in_several_processes_and_nodes_one_is_accepted(database_url):
    """Two nodes of two processes each, each with several threads."""
    reading, writing = os.pipe()
    children = [_fork(partial(_submit, database_url, writing)) for _ in range(4)]
    os.close(writing)
    for child in children:
        assert os.waitpid(child, 0)[1] == 0
    with os.fdopen(reading, "rb") as results:
        assert sorted(results.read()) == sorted(b"0" * (SUBMISSIONS - 1) + b"1")


def _submit(url: str, writing: int) -> None:
    database = open_node(url)
    with ThreadPoolExecutor(8) as threads:
        used = list(threads.map(lambda _: use(database, b"contested"), range(SUBMISSIONS // 4)))
    os.write(writing, b"".join(b"%d" % each for each in used))
    database.close()


def _fork(act) -> int:
    child = os.fork()
    if child == 0:
        try:
            act()
        except BaseException:  # noqa: BLE001 - the parent sees the status
            os._exit(1)
        os._exit(0)
    return child


def test_expired_values_are_found_and_deleted_in_parts_and_others_stay(database, monkeypatch):
    monkeypatch.setattr(single_use, "_PART_ROWS", 7)
    now = datetime.now(UTC)
    for number in range(20):
        assert use(database, b"old-%d" % number, expires_at=(now - timedelta(61)).timestamp())
        assert use(database, b"valid-%d" % number, expires_at=now.timestamp() + 1)
    assert use(database, b"just expired", expires_at=now.timestamp() - 1)
    deleted, last = [], b""
    while True:
        with database.transaction() as session:
            expired = find_expired_values(session, now, last, 3)
            assert expired.digests == sorted(expired.digests)
            deleted.append(delete_expired_values(session, now, expired.digests))
        assert not expired.last or expired.last > last
        last = expired.last
        if not last:
            break
    assert sum(deleted) == 20
    assert max(deleted) <= 3
    # For clocks that differ, a value is kept for a while.
    assert not use(database, b"just expired")
    assert not any(use(database, b"valid-%d" % number) for number in range(20))
    assert use(database, b"old-0")


def test_a_value_that_is_used_after_another_purge_deleted_it_stays(database):
    now = datetime.now(UTC)
    assert use(database, b"value", expires_at=(now - timedelta(61)).timestamp())
    with database.transaction() as session:
        digests = find_expired_values(session, now, b"", 3).digests
        assert delete_expired_values(session, now, digests) == 1
    assert use(database, b"value")
    with database.transaction() as session:
        assert delete_expired_values(session, now, digests) == 0
    assert not use(database, b"value")


def test_a_value_that_cannot_be_stored_is_not_accepted(sqlite_url):
    database = open_node(sqlite_url, statement_timeout_milliseconds=100)
    path = sqlite_url.removeprefix("sqlite:///")
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(SQLAlchemyError):
            use(database, b"value")
        results = run_on("uvloop", use_all(database, sqlite_url, [b"value", b"other"]))
        assert all(isinstance(each, SQLAlchemyError) for each in results)
        other.execute("ROLLBACK")
    assert use(database, b"value")
    database.close()


def test_a_lost_connection_is_a_failure_and_never_a_second_use(postgresql, postgresql_url):
    """The statement may have been done: sent again, it would find its own value."""
    database = open_node(postgresql_url)
    assert use(database, b"first")
    cut(postgresql, postgresql_url)
    with pytest.raises(SQLAlchemyError):
        use(database, b"second")
    assert use(database, b"second")
    database.close()


def test_a_connection_of_an_event_loop_that_is_lost_is_a_failure_too(postgresql, postgresql_url):
    database, digest = open_node(postgresql_url), sha256(b"test\0value").digest()
    cutting = threading.Timer(0.5, partial(postgresql.execute, _CUT_WAITING))
    with database.engine.connect() as other:
        # A transaction that has not ended makes the use of the same value wait.
        other.execute(insert(UsedValue).values(digest=digest, expires_at=int(LATER)))
        cutting.start()
        (result,) = run_on("uvloop", use_all(database, postgresql_url, [b"value"]))
        cutting.join()
    assert isinstance(result, SQLAlchemyError)
    assert use(database, b"value")
    database.close()
