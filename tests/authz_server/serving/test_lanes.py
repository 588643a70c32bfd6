"""Work that waits never holds the event loop, and lanes do not wait for each other."""

import asyncio
import contextvars
import sqlite3
import threading
import time
from contextlib import closing
from threading import get_ident

import pytest
from sqlalchemy import create_engine
from sqlalchemy.exc import OperationalError

from authz_server.database.prepared_queries import PreparedQueries, PreparedQuery
from authz_server.errors import OAuthError
from authz_server.waiting import Lane, Step
from support.asked import Asked, lanes
from support.worker_site import LOOPS, PLAIN_LOOPS

QUESTION = "SELECT value FROM noted WHERE name = ?"


@pytest.fixture(params=PLAIN_LOOPS)
def on_loop(request):
    """A function of a coroutine function that runs it on the loop."""

    def run(act):
        with asyncio.Runner(loop_factory=LOOPS[request.param]) as runner:
            return runner.run(asyncio.wait_for(act(), 20))

    return run


def step(act, lane: Lane = Lane.DATABASE) -> Step:
    return Step(lane, act)


def test_a_coroutine_that_waits_for_nothing_is_answered_at_once(on_loop):
    async def act():
        async with lanes() as made:
            assert Asked(made).answered.done()

    on_loop(act)


def test_steps_run_on_threads_and_their_results_come_back_in_order(on_loop):
    async def act():
        async with lanes() as made:
            asked = Asked(made, step(get_ident), step(lambda: "b"), step(lambda: None))
            assert not asked.answered.done()
            thread, *rest = await asked.result()
            assert thread != get_ident()
            assert rest == ["b", None]

    on_loop(act)


def test_what_a_step_raises_comes_back_into_the_coroutine(on_loop):
    """Case J114."""
    faults = [OAuthError("server_error"), OperationalError("x", None, ValueError()), KeyError("a")]

    def raising(fault):
        def act():
            raise fault

        return act

    async def act():
        async with lanes() as made:
            steps = [step(raising(fault)) for fault in faults]
            assert await Asked(made, *steps, step(lambda: "on")).result() == [*faults, "on"]

    on_loop(act)


def test_steps_know_what_the_coroutine_was_started_with(on_loop):
    variable = contextvars.ContextVar("variable", default="none")

    async def act():
        async with lanes() as made:
            asked = []
            for number in range(20):
                variable.set(str(number))
                asked.append(Asked(made, step(variable.get), step(variable.get)))
            for number, each in enumerate(asked):
                assert await each.result() == [str(number)] * 2

    on_loop(act)


@pytest.mark.parametrize("lane", Lane)
def test_a_full_lane_holds_neither_the_loop_nor_another_lane(on_loop, lane):
    """Case J114."""
    gate = threading.Event()

    async def act():
        async with lanes(threads=2) as made:
            held = [Asked(made, step(gate.wait, lane)) for _ in range(20)]
            others = [each for each in Lane if each is not lane]
            began = time.monotonic()
            for other in others * 20:
                assert await Asked(made, step(lambda: "done", other)).result() == ["done"]
            assert Asked(made).answered.done()
            assert time.monotonic() - began < 5
            assert not any(each.answered.done() for each in held)
            gate.set()
            assert [await each.result() for each in held] == [[True]] * 20

    on_loop(act)


def test_a_lane_has_as_many_threads_as_it_is_given(on_loop):
    gate, running = threading.Event(), set()

    def hold():
        running.add(get_ident())
        gate.wait()

    async def act():
        async with lanes(threads=3) as made:
            held = [Asked(made, step(hold)) for _ in range(20)]
            await asyncio.sleep(0.2)
            assert len(running) == 3
            gate.set()
            for each in held:
                await each.result()
            assert len(running) == 3

    on_loop(act)


def test_more_than_may_wait_are_refused_at_once_and_then_served_again(on_loop):
    """Case J114, Case J119."""
    gate = threading.Event()

    async def act():
        async with lanes(threads=2, maximum_waiting=10) as made:
            held = [Asked(made, step(gate.wait)) for _ in range(10)]
            await asyncio.sleep(0.05)
            for _ in range(50):
                (fault,) = await Asked(made, step(gate.wait)).result()
                assert isinstance(fault, OAuthError)
                assert fault.reason == "temporarily_unavailable"
            assert await Asked(made, step(lambda: 1, Lane.SIGNING)).result() == [1]
            gate.set()
            assert [await each.result() for each in held] == [[True]] * 10
            assert await Asked(made, step(lambda: 2)).result() == [2]

    on_loop(act)


def test_a_step_that_fails_gives_its_place_back(on_loop):
    async def act():
        async with lanes(maximum_waiting=2) as made:
            for _ in range(20):
                (fault,) = await Asked(made, step(lambda: 1 / 0)).result()
                assert isinstance(fault, ZeroDivisionError)

    on_loop(act)


def test_what_waits_at_the_end_is_given_up_without_waiting(on_loop):
    gate = threading.Event()

    async def act():
        began = time.monotonic()
        async with lanes(threads=1) as made:
            held = [Asked(made, step(gate.wait)) for _ in range(5)]
            await asyncio.sleep(0.1)
        assert time.monotonic() - began < 5
        assert not any(each.answered.done() for each in held)

    try:
        on_loop(act)
    finally:
        gate.set()


class Told:
    """Answers questions as a test tells it."""

    def __init__(self, *answers: object) -> None:
        self.answers, self.asked, self.closed = list(answers), [], False

    async def fetch_one(self, question, value):
        await asyncio.sleep(0)
        self.asked.append((question, value))
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    def close(self):
        self.closed = True


@pytest.fixture
def file(tmp_path):
    """An SQLite file in which `a` is noted as 1."""
    path = tmp_path / "noted.sqlite"
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("CREATE TABLE noted (name TEXT, value INTEGER)")
        connection.execute("INSERT INTO noted VALUES ('a', 1)")
        connection.commit()
    return path


@pytest.fixture
def prepared_queries(file):
    engine = create_engine(
        f"sqlite:///{file}",
        connect_args={"check_same_thread": False},
        pool_size=2,
        max_overflow=0,
        pool_timeout=5.0,
    )
    made = PreparedQueries(engine, 2, 5.0, str(file))
    yield made
    made.close()
    engine.dispose()


def test_questions_to_a_server_go_over_connections_of_the_loop(on_loop, prepared_queries):
    fault = OperationalError("x", None, ValueError())

    async def act():
        told = Told((7,), None, fault)
        async with lanes() as made:
            made.use_queries(told)
            questions = [PreparedQuery(prepared_queries, QUESTION, name) for name in "abc"]
            assert await Asked(made, *questions).result() == [(7,), None, fault]
        assert told.asked == [(QUESTION, name) for name in "abc"]
        assert told.closed

    on_loop(act)


def test_questions_to_a_file_are_answered_at_once_and_steps_between_them_wait(
    on_loop, prepared_queries
):
    async def act():
        async with lanes(prepared_queries=prepared_queries.without_waiting()) as made:
            known, unknown = (
                PreparedQuery(prepared_queries, QUESTION, name) for name in ("a", "b")
            )
            asked = Asked(made, known, unknown)
            assert asked.answered.done()
            assert asked.values == [(1,), None]
            mixed = Asked(made, known, step(lambda: "waited"), unknown)
            assert not mixed.answered.done()
            assert await mixed.result() == [(1,), "waited", None]

    on_loop(act)


def test_a_question_to_a_locked_file_waits_on_a_thread(on_loop, prepared_queries, file):
    """Case J114."""

    async def act():
        async with lanes(prepared_queries=prepared_queries.without_waiting()) as made:
            with closing(sqlite3.connect(file, isolation_level=None)) as other:
                other.execute("PRAGMA journal_mode = DELETE")
                other.execute("BEGIN EXCLUSIVE")
                asked = Asked(made, PreparedQuery(prepared_queries, QUESTION, "a"))
                assert not asked.answered.done()
                began = time.monotonic()
                assert Asked(made).answered.done()
                assert time.monotonic() - began < 2
                other.execute("ROLLBACK")
                assert await asked.result() == [(1,)]

    on_loop(act)


def test_a_question_to_a_file_that_cannot_answer_comes_back_as_its_fault(
    on_loop, prepared_queries, file
):
    """Case E66."""

    async def act():
        async with lanes(prepared_queries=prepared_queries.without_waiting()) as made:
            file.unlink()
            (fault,) = await Asked(made, PreparedQuery(prepared_queries, QUESTION, "a")).result()
            assert isinstance(fault, OperationalError)

    on_loop(act)


def test_a_question_waits_on_a_thread_where_every_connection_is_in_use(on_loop, prepared_queries):
    """Case J114."""

    async def act():
        engine = prepared_queries.engine
        taken = [engine.raw_connection() for _ in range(engine.pool.size())]
        async with lanes(prepared_queries=prepared_queries.without_waiting()) as made:
            began = time.monotonic()
            asked = Asked(made, PreparedQuery(prepared_queries, QUESTION, "a"))
            assert time.monotonic() - began < 2
            for each in taken:
                each.close()
            assert await asked.result() == [(1,)]

    on_loop(act)
