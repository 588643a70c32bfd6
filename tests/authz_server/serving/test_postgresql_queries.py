"""Questions to a real PostgreSQL over few connections that the event loop watches."""

import asyncio
import time

import pytest
from sqlalchemy.exc import OperationalError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from authz_server.serving import turns
from support.loop_queries import (
    BYTES,
    ECHO,
    LATE,
    PATIENT,
    SLEEP,
    STATEMENT_SECONDS,
    WAIT_SECONDS,
    ask_all,
    backends,
    cut,
    queries,
)


@pytest.fixture(scope="module")
def postgresql_url(postgresql):
    """The URL of a database without tables, which all questions of this file go to."""
    url = postgresql.create_database()
    yield url
    postgresql.drop_database(url)


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


@pytest.mark.parametrize("depth", [1, 16])
def test_questions_at_once_get_their_own_answers_over_few_connections(
    on_any_loop, postgresql, postgresql_url, depth
):
    async def act():
        async with queries(postgresql_url, maximum_waiting=1_000, depth=depth, **PATIENT) as made:
            for question, values in (
                (ECHO, [f"value-{number}" for number in range(500)]),
                (BYTES, [b"%d" % number for number in range(500)]),
            ):
                rows = await ask_all(made, question, values)
                assert rows == [(value,) for value in values]
            assert backends(postgresql, postgresql_url) == 3

    on_any_loop(act())


def test_of_more_questions_than_can_be_answered_the_late_ones_are_refused(
    on_loop, postgresql_url, monkeypatch
):
    """Case J119."""
    monkeypatch.setattr(turns, "FEW", 20)

    async def ask(made, took):
        began = time.monotonic()
        try:
            return await made.fetch_one("SELECT pg_sleep(0.005)::text, ?::text", "")
        except PoolTimeoutError:
            took.append(time.monotonic() - began)
            return None

    async def act():
        async with queries(postgresql_url, connections=1, maximum_waiting=1_000) as made:
            took = []
            found = await asyncio.gather(*(ask(made, took) for _ in range(200)))
            # Those that were answered before anything was late, and the few that are left.
            assert 20 <= len(found) - found.count(None) <= 60
            assert max(took) < made._wait_seconds  # noqa: SLF001 - nothing waits for the time-out
            assert await ask(made, took) is not None

    on_loop(act())


def test_questions_one_after_the_other_share_a_connection(on_loop, postgresql, postgresql_url):
    async def act():
        async with queries(postgresql_url) as made:
            pids = {await made.fetch_one("SELECT pg_backend_pid(), ?::text", "") for _ in range(20)}
            assert len(pids) == 1
            assert backends(postgresql, postgresql_url) == 1
        assert backends(postgresql, postgresql_url) == 0

    on_loop(act())


@pytest.mark.parametrize("depth", [1, 16])
def test_a_large_question_and_a_large_answer_arrive_whole(on_any_loop, postgresql_url, depth):
    async def act():
        async with queries(postgresql_url, depth=depth, **PATIENT) as made:
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
@pytest.mark.parametrize("depth", [1, 16])
def test_a_question_that_fails_harms_no_other(on_loop, postgresql_url, question, value, depth):
    """Case E66."""

    async def act():
        async with queries(postgresql_url, depth=depth) as made:
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


@pytest.mark.parametrize("waiting", [0, 3])
def test_a_question_that_fails_before_another_takes_no_connection_for_good(
    on_loop, postgresql_url, waiting
):
    """After as many as there are connections, each introspection would be refused."""

    async def act():
        async with queries(
            postgresql_url, connections=1, depth=2, **PATIENT | {"statement_seconds": 0.5}
        ) as made:
            for _ in range(3):
                # With a depth of two, the others wait for the connection.
                outcomes = await asyncio.gather(
                    made.fetch_one(SLEEP, "30"),
                    *(made.fetch_one(ECHO, "a") for _ in range(1 + waiting)),
                    return_exceptions=True,
                )
                assert isinstance(outcomes[0], SQLAlchemyError)
                assert outcomes[1:] == [("a",)] * (1 + waiting)
                assert await made.fetch_one(ECHO, "b") == ("b",)

    on_loop(act())


@pytest.mark.parametrize("depth", [1, 16])
def test_connections_that_were_ended_while_idle_are_replaced_unnoticed(
    on_any_loop, postgresql, postgresql_url, depth
):
    """Case J109."""

    async def act():
        async with queries(postgresql_url, depth=depth, **PATIENT) as made:
            for pause in (0.0, 0.2):
                await ask_all(made, ECHO, map(str, range(20)))
                await asyncio.to_thread(cut, postgresql, postgresql_url)
                await asyncio.sleep(pause)
                rows = await ask_all(made, ECHO, map(str, range(20)))
                assert rows == [(str(number),) for number in range(20)]

    on_any_loop(act())


@pytest.mark.parametrize("depth", [1, 16])
def test_connections_that_end_under_a_question_lose_no_place(
    on_loop, postgresql, postgresql_url, depth
):
    """Case J109."""

    async def act():
        async with queries(postgresql_url, depth=depth) as made:
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
            held = asyncio.ensure_future(ask_all(made, SLEEP, ["0.45"] * 2))
            await asyncio.sleep(0.05)
            waiting = asyncio.ensure_future(ask_all(made, ECHO, "abcde"))
            await asyncio.sleep(0)
            outcomes = await ask_all(made, ECHO, "a" * 50)
            assert all(isinstance(each, PoolTimeoutError) for each in outcomes)
            assert not held.done()
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


@pytest.mark.parametrize("depth", [1, 16])
def test_a_question_that_is_given_up_gives_its_connection_back(on_loop, postgresql_url, depth):
    async def act():
        async with queries(postgresql_url, connections=2, depth=depth) as made:
            for _ in range(5):
                asked = [
                    asyncio.ensure_future(made.fetch_one(SLEEP, value)) for value in ["0.01"] * 6
                ]
                await asyncio.sleep(0.05)
                for each in asked:
                    each.cancel()
                await asyncio.gather(*asked, return_exceptions=True)
            await asyncio.sleep(0.2)
            assert await ask_all(made, ECHO, "abc") == [("a",), ("b",), ("c",)]

    on_loop(act())


def test_a_connection_that_opens_for_a_question_given_up_is_closed(
    on_loop, postgresql, postgresql_url
):
    async def act():
        async with queries(postgresql_url) as made:
            asked = [asyncio.ensure_future(made.fetch_one(ECHO, "a")) for _ in range(3)]
            await asyncio.sleep(0)
            for each in asked:
                each.cancel()
            await asyncio.gather(*asked, return_exceptions=True)
            await asyncio.sleep(0.5)
            assert backends(postgresql, postgresql_url) == 0
            assert await ask_all(made, ECHO, "abcd") == [("a",), ("b",), ("c",), ("d",)]

    on_loop(act())


@pytest.mark.parametrize("depth", [1, 16])
def test_what_is_asked_at_the_end_fails_and_later_questions_open_anew(
    on_loop, postgresql_url, depth
):
    async def act():
        async with queries(postgresql_url, depth=depth) as made:
            await ask_all(made, ECHO, "abc")
            asked = asyncio.ensure_future(ask_all(made, SLEEP, ["0.3"] * 3))
            await asyncio.sleep(0.1)
            made.close()
            for outcome in await asked:
                answered = outcome == ("", "woken")
                assert answered or isinstance(outcome, OperationalError)
            assert await made.fetch_one(ECHO, "a") == ("a",)

    on_loop(act())
