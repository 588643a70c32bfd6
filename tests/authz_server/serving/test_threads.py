"""The threads on which an event loop's calls wait."""

import asyncio
import threading
import weakref
from contextlib import contextmanager

import pytest

from authz_server.serving.threads import Threads


@pytest.fixture
def on_threads(on_any_loop):
    """A function that runs a coroutine function with one thread, stopped in the end."""

    def run(act):
        async def with_thread():
            threads = Threads(asyncio.get_running_loop(), "test", 1)
            try:
                await asyncio.wait_for(act(threads), 20)
            finally:
                threads.close()

        on_any_loop(with_thread())

    return run


def test_a_call_that_is_cancelled_before_a_thread_takes_it_is_not_made(on_threads):
    gate, made = threading.Event(), []

    async def act(threads):
        held, cancelled, after = (
            threads.call(each) for each in (gate.wait, lambda: made.append(1), lambda: "done")
        )
        cancelled.cancel()
        gate.set()
        assert (await held, await after) == (True, "done")
        assert made == []

    on_threads(act)


def test_calls_that_wait_when_the_threads_are_stopped_are_not_made(on_threads):
    begun, gate, made = threading.Event(), threading.Event(), []

    def hold():
        begun.set()
        return gate.wait()

    async def act(threads):
        held, waiting = threads.call(hold), threads.call(lambda: made.append(1))
        assert begun.wait(10)
        threads.close()
        gate.set()
        assert await held is True
        with pytest.raises(asyncio.CancelledError):
            await waiting
        with pytest.raises(RuntimeError):
            threads.call(lambda: None)
        assert made == []

    on_threads(act)


def test_a_call_that_raises_what_no_future_holds_fails_as_any_other(on_threads):
    """A caller that waits for ever would be the alternative."""

    async def act(threads):
        with pytest.raises(RuntimeError) as raised:
            await threads.call(lambda: next(iter(())))
        assert isinstance(raised.value.__cause__, StopIteration)
        assert await threads.call(lambda: "done") == "done"

    on_threads(act)


def test_an_idle_thread_is_used_again_and_holds_nothing_of_its_last_call(on_threads):
    class Held:
        pass

    async def act(threads):
        ended = threading.Event()
        first = await threads.call(threading.get_ident)
        for _ in range(5):
            assert await threads.call(threading.get_ident) == first
        held = Held()
        reference = weakref.ref(held, lambda _: ended.set())
        await threads.call(held.__repr__)
        del held
        assert await asyncio.to_thread(ended.wait, 10)
        assert reference() is None

    on_threads(act)


@pytest.fixture
def no_more_threads(monkeypatch):
    """A context in which the system has no room for another thread."""

    @contextmanager
    def refuse_to_start():
        def refuse(_thread):
            raise RuntimeError("can't start new thread")

        with monkeypatch.context() as patched:
            patched.setattr(threading.Thread, "start", refuse)
            yield

    return refuse_to_start


def test_a_call_for_which_no_thread_starts_is_never_made_and_the_next_one_is(
    on_threads, no_more_threads
):
    made = []

    async def act(threads):
        with no_more_threads(), pytest.raises(RuntimeError, match="can't start"):
            threads.call(lambda: made.append(1))
        assert await asyncio.wait_for(threads.call(lambda: "done"), 5) == "done"
        assert made == []

    on_threads(act)


def test_calls_wait_for_the_threads_there_are_if_no_other_starts(on_any_loop, no_more_threads):
    async def act():
        threads, gate = Threads(asyncio.get_running_loop(), "test", 3), threading.Event()
        try:
            first = threads.call(gate.wait)
            with no_more_threads():
                others = [threads.call(lambda: "done") for _ in range(2)]
            gate.set()
            results = await asyncio.wait_for(asyncio.gather(first, *others), 5)
            assert results == [True, "done", "done"]
        finally:
            threads.close()

    on_any_loop(act())
