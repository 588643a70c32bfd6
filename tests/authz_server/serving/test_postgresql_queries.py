"""Questions to a real PostgreSQL over few connections that the event loop watches."""

import asyncio
import time
from contextlib import asynccontextmanager
from functools import partial

import pytest
from flask import Flask
from psycopg import sql
from sqlalchemy import make_url
from sqlalchemy.exc import OperationalError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from authz_server.db import attach_database
from authz_server.serving.lanes import Lanes
from authz_server.serving.postgresql_queries import PostgresqlQueries
from authz_server.settings import DatabaseSettings
from authz_server.waiting import Lane
from support.postgresql import PostgresServer
from support.postgresql_access import database_name
from support.tcp_proxy import TcpProxy
from support.worker_site import LOOPS

ECHO = "SELECT ?::text"
BYTES = "SELECT ?::bytea"
SLEEP = "SELECT pg_sleep(?::float)::text, 'woken'"
STATEMENT_SECONDS = 0.5
ANSWER_SECONDS = 1.0
WAIT_SECONDS = 0.6
#: How often answers that take too long are looked for.
TICK_SECONDS = 0.1
#: The rest is a machine with other work.
LATE = 3.0


def run_on(loop, coroutine):
    with asyncio.Runner(loop_factory=LOOPS[loop]) as runner:
        return runner.run(asyncio.wait_for(coroutine, 60))


@pytest.fixture
def on_loop():
    """A function of a coroutine that runs it on the usual loop."""
    return partial(run_on, "uvloop")


@pytest.fixture(params=LOOPS)
def on_any_loop(request):
    """The same on each of the loops, for what their watching of connections does."""
    return partial(run_on, request.param)


@asynccontextmanager
async def queries(url, *, connections=3, maximum_waiting=100, statement_seconds=STATEMENT_SECONDS):
    """Yield questions to the database of the URL, looked after as a front does."""
    settings = DatabaseSettings(
        url=url,
        pool_size=connections,
        statement_timeout_milliseconds=int(statement_seconds * 1_000),
        pool_timeout_milliseconds=int(WAIT_SECONDS * 1_000),
        connect_timeout_seconds=1,
    )
    loop = asyncio.get_running_loop()
    database = attach_database(Flask("test"), settings)
    lanes = Lanes(loop, threads=dict.fromkeys(Lane, 4), maximum_waiting=1_000, look_ups=None)
    made = PostgresqlQueries(
        loop,
        database.engine,
        connections=connections,
        maximum_waiting=maximum_waiting,
        wait_seconds=WAIT_SECONDS,
        answer_seconds=ANSWER_SECONDS,
        call=partial(lanes.call, Lane.DATABASE),
    )

    async def look_after() -> None:
        while True:
            await asyncio.sleep(TICK_SECONDS)
            made.expire()

    ticks = loop.create_task(look_after())
    try:
        yield made
    finally:
        ticks.cancel()
        made.close()
        await lanes.close()
        database.close()


async def ask_all(made, question, values):
    """Ask at once; return rows and errors."""
    asked = [made.fetch_one(question, value) for value in values]
    return await asyncio.gather(*asked, return_exceptions=True)


async def longest_hold(seconds: float) -> float:
    """Return the longest time for which the loop did nothing else."""
    longest, ends = 0.0, time.monotonic() + seconds
    while (before := time.monotonic()) < ends:
        await asyncio.sleep(0.01)
        longest = max(longest, time.monotonic() - before)
    return longest


def backends(postgresql, url) -> int:
    """Return how many connections that database has."""
    query = "SELECT count(*) FROM pg_stat_activity WHERE datname = %s"
    return postgresql.execute(query, database_name(url))[0][0]


def cut(postgresql, url) -> None:
    """End every connection of that database from the server's side."""
    statement = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = {}"
    postgresql.execute(sql.SQL(statement).format(sql.Literal(database_name(url))))


def test_a_question_has_a_row_or_none(on_loop, postgresql_url):
    async def act():
        async with queries(postgresql_url) as made:
            none = "SELECT 1 WHERE ?::text = 'never'"
            for _ in range(3):
                assert await made.fetch_one(ECHO, "J\N{SNOWMAN}' OR 1=1") == (
                    "J\N{SNOWMAN}' OR 1=1",
                )
                assert await made.fetch_one(BYTES, b"\0\xff") == (b"\0\xff",)
                assert await made.fetch_one(none, "a") is None

    on_loop(act())


def test_questions_at_once_get_their_own_answers_over_few_connections(
    on_any_loop, postgresql, postgresql_url
):
    async def act():
        async with queries(postgresql_url, maximum_waiting=1_000) as made:
            for question, values in (
                (ECHO, [f"value-{number}" for number in range(500)]),
                (BYTES, [b"%d" % number for number in range(500)]),
            ):
                rows = await ask_all(made, question, values)
                assert rows == [(value,) for value in values]
            assert backends(postgresql, postgresql_url) == 3

    on_any_loop(act())


def test_questions_one_after_the_other_share_a_connection(on_loop, postgresql, postgresql_url):
    async def act():
        async with queries(postgresql_url) as made:
            pids = {await made.fetch_one("SELECT pg_backend_pid(), ?::text", "") for _ in range(20)}
            assert len(pids) == 1
            assert backends(postgresql, postgresql_url) == 1
        assert backends(postgresql, postgresql_url) == 0

    on_loop(act())


def test_a_large_question_and_a_large_answer_arrive_whole(on_any_loop, postgresql_url):
    async def act():
        async with queries(postgresql_url, statement_seconds=10) as made:
            large = "x" * 8_000_000
            assert await made.fetch_one(ECHO, large) == (large,)

    on_any_loop(act())


@pytest.mark.parametrize(
    ("question", "value"),
    [
        ("SELECT nothing FROM nowhere WHERE a = ?", "a"),
        ("SELECT 1 / ?::int", "0"),
        ("SELECT ?::int", "one"),
        (ECHO, "a\0b"),
        (SLEEP, "30"),
    ],
)
def test_a_question_that_fails_harms_no_other(on_loop, postgresql_url, question, value):
    """Case E66."""

    async def act():
        async with queries(postgresql_url) as made:
            began = time.monotonic()
            for _ in range(2):
                outcomes = await asyncio.gather(
                    made.fetch_one(question, value),
                    made.fetch_one(ECHO, "a"),
                    made.fetch_one(question, value),
                    made.fetch_one(ECHO, "b"),
                    return_exceptions=True,
                )
                assert all(isinstance(each, SQLAlchemyError) for each in outcomes[::2]), outcomes
                assert outcomes[1::2] == [("a",), ("b",)]
            assert time.monotonic() - began < 2 * STATEMENT_SECONDS + LATE
            assert await ask_all(made, ECHO, "abc") == [("a",), ("b",), ("c",)]

    on_loop(act())


def test_connections_that_were_ended_while_idle_are_replaced_unnoticed(
    on_any_loop, postgresql, postgresql_url
):
    """Case J109."""

    async def act():
        async with queries(postgresql_url) as made:
            for pause in (0.0, 0.2):
                await ask_all(made, ECHO, map(str, range(20)))
                await asyncio.to_thread(cut, postgresql, postgresql_url)
                await asyncio.sleep(pause)
                rows = await ask_all(made, ECHO, map(str, range(20)))
                assert rows == [(str(number),) for number in range(20)]

    on_any_loop(act())


def test_connections_that_end_under_a_question_lose_no_place(on_loop, postgresql, postgresql_url):
    """Case J109."""

    async def act():
        async with queries(postgresql_url) as made:
            await ask_all(made, ECHO, map(str, range(20)))
            for _ in range(3):
                asked = asyncio.ensure_future(ask_all(made, SLEEP, ["0.4"] * 6))
                await asyncio.sleep(0.1)
                await asyncio.to_thread(cut, postgresql, postgresql_url)
                for outcome in await asked:
                    answered = outcome == ("", "woken")
                    assert answered or isinstance(outcome, SQLAlchemyError), outcome
            rows = await ask_all(made, ECHO, map(str, range(20)))
            assert rows == [(str(number),) for number in range(20)]

    on_loop(act())


@pytest.mark.parametrize("connections", [1, 3])
def test_there_are_as_many_connections_as_allowed_after_many_have_died(
    on_loop, postgresql, postgresql_url, connections
):
    """Case J109."""

    async def ask_on(made, ends):
        while time.monotonic() < ends:
            await ask_all(made, SLEEP, ["0.001"] * 2)

    async def act():
        async with queries(postgresql_url, connections=connections) as made:
            ends = time.monotonic() + 1.5
            asking = [asyncio.ensure_future(ask_on(made, ends)) for _ in range(10)]
            while time.monotonic() < ends:
                await asyncio.to_thread(cut, postgresql, postgresql_url)
            await asyncio.gather(*asking)
            await ask_all(made, ECHO, map(str, range(20)))
            began = time.monotonic()
            rows = await ask_all(made, SLEEP, ["0.1"] * 4 * connections)
            assert rows == [("", "woken")] * 4 * connections
            assert time.monotonic() - began > 0.39

    on_loop(act())


def test_a_question_waits_for_a_connection_and_not_for_ever(on_loop, postgresql_url):
    """Case J114."""

    async def act():
        async with queries(postgresql_url, connections=2, statement_seconds=5) as made:
            await ask_all(made, ECHO, "ab")
            held = asyncio.ensure_future(ask_all(made, SLEEP, ["0.4"] * 2))
            await asyncio.sleep(0.05)
            # Connections come free in time for these.
            assert await ask_all(made, ECHO, "abc") == [("a",), ("b",), ("c",)]
            assert await held == [("", "woken")] * 2
            held = asyncio.ensure_future(ask_all(made, SLEEP, ["0.9"] * 2))
            await asyncio.sleep(0.05)
            began = time.monotonic()
            outcomes = await ask_all(made, ECHO, "abc")
            assert all(isinstance(each, PoolTimeoutError) for each in outcomes)
            assert time.monotonic() - began < WAIT_SECONDS + LATE
            await held
            assert await ask_all(made, ECHO, "abc") == [("a",), ("b",), ("c",)]

    on_loop(act())


def test_more_questions_than_may_wait_are_refused_at_once(on_loop, postgresql_url):
    """Case J114, Case J119."""

    async def act():
        async with queries(postgresql_url, connections=2, maximum_waiting=5) as made:
            await ask_all(made, ECHO, "ab")
            held = asyncio.ensure_future(ask_all(made, SLEEP, ["0.3"] * 2))
            await asyncio.sleep(0.05)
            waiting = asyncio.ensure_future(ask_all(made, ECHO, "abcde"))
            await asyncio.sleep(0)
            began = time.monotonic()
            outcomes = await ask_all(made, ECHO, "a" * 50)
            assert all(isinstance(each, PoolTimeoutError) for each in outcomes)
            assert time.monotonic() - began < 0.2
            assert await held == [("", "woken")] * 2
            assert await waiting == [(each,) for each in "abcde"]

    on_loop(act())


def test_a_connection_that_comes_free_at_the_last_moment_is_not_lost(on_any_loop, postgresql_url):
    """Case J114."""

    async def act():
        async with queries(postgresql_url, connections=1, statement_seconds=5) as made:
            await made.fetch_one(SLEEP, "0")
            for _ in range(2):
                held = asyncio.ensure_future(made.fetch_one(SLEEP, str(WAIT_SECONDS - 0.2)))
                await asyncio.sleep(0.02)
                waiting = asyncio.ensure_future(made.fetch_one(ECHO, "a"))
                await asyncio.sleep(WAIT_SECONDS / 2)
                # The answer and the end of the waiting time reach the loop together.
                time.sleep(WAIT_SECONDS)  # noqa: ASYNC251 - holds the loop on purpose
                slept, answer = await asyncio.gather(held, waiting, return_exceptions=True)
                assert slept == ("", "woken")
                assert answer == ("a",) or isinstance(answer, PoolTimeoutError)
            assert await made.fetch_one(ECHO, "a") == ("a",)

    on_any_loop(act())


def test_a_question_that_is_given_up_gives_its_connection_back(on_loop, postgresql_url):
    async def act():
        async with queries(postgresql_url, connections=2) as made:
            for _ in range(5):
                asked = [
                    asyncio.ensure_future(made.fetch_one(SLEEP, value)) for value in ["0.1"] * 6
                ]
                await asyncio.sleep(0.05)
                for each in asked:
                    each.cancel()
                await asyncio.gather(*asked, return_exceptions=True)
            await asyncio.sleep(0.2)
            assert await ask_all(made, ECHO, "abc") == [("a",), ("b",), ("c",)]

    on_loop(act())


def test_what_is_asked_at_the_end_fails_and_later_questions_open_anew(on_loop, postgresql_url):
    async def act():
        async with queries(postgresql_url) as made:
            await ask_all(made, ECHO, "abc")
            asked = asyncio.ensure_future(ask_all(made, SLEEP, ["0.3"] * 3))
            await asyncio.sleep(0.1)
            made.close()
            for outcome in await asked:
                answered = outcome == ("", "woken")
                assert answered or isinstance(outcome, OperationalError)
            assert await made.fetch_one(ECHO, "a") == ("a",)

    on_loop(act())


@pytest.fixture(scope="module")
def server():
    """A PostgreSQL server of these tests alone, which they stop and start."""
    with PostgresServer() as server:
        yield server


def test_a_server_that_hangs_holds_only_its_questions_and_never_the_loop(on_any_loop, server):
    """Case J114."""

    async def act():
        async with queries(server.url()) as made:
            await ask_all(made, ECHO, "abc")
            with server.paused():
                began = time.monotonic()
                asked = asyncio.ensure_future(ask_all(made, ECHO, "abcdefgh"))
                assert await longest_hold(1.5) < 0.5
                assert all(isinstance(each, SQLAlchemyError) for each in await asked)
                assert time.monotonic() - began < ANSWER_SECONDS + WAIT_SECONDS + LATE
            assert await ask_all(made, ECHO, "abc") == [("a",), ("b",), ("c",)]

    on_any_loop(act())


@pytest.mark.parametrize("immediate", [True, False])
def test_a_server_that_was_restarted_is_asked_again_without_help(on_loop, server, immediate):
    """Case J109."""

    async def act():
        async with queries(server.url()) as made:
            await ask_all(made, ECHO, "abc")
            await asyncio.to_thread(server.stop_immediate if immediate else server.stop_fast)
            for _ in range(3):
                began = time.monotonic()
                outcomes = await ask_all(made, ECHO, "abcdefgh")
                assert all(isinstance(each, SQLAlchemyError) for each in outcomes)
                assert time.monotonic() - began < WAIT_SECONDS + LATE
            await asyncio.to_thread(server.start)
            assert await ask_all(made, ECHO, "abc") == [("a",), ("b",), ("c",)]

    on_loop(act())


@pytest.mark.parametrize("fault", ["silence", "refuse"])
def test_a_network_that_fails_is_noticed_in_time_and_heals_without_help(
    on_loop, postgresql, postgresql_url, fault
):
    """Case J109, Case J114."""

    async def act(proxy):
        url = make_url(postgresql_url).set(port=proxy.port)
        async with queries(url.render_as_string(hide_password=False)) as made:
            await ask_all(made, ECHO, "abc")
            getattr(proxy, fault)()
            began = time.monotonic()
            asked = asyncio.ensure_future(ask_all(made, ECHO, "abcdefgh"))
            assert await longest_hold(1.0) < 0.5
            assert all(isinstance(each, SQLAlchemyError) for each in await asked)
            assert time.monotonic() - began < ANSWER_SECONDS + WAIT_SECONDS + LATE
            proxy.heal()
            assert await ask_all(made, ECHO, "abc") == [("a",), ("b",), ("c",)]

    with TcpProxy(postgresql.port) as proxy:
        on_loop(act(proxy))
