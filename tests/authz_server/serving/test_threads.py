"""The threads on which an event loop's calls wait."""

import asyncio
import threading
import weakref

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
    gate, made = threading.Event(), []

    async def act(threads):
        held, waiting = threads.call(gate.wait), threads.call(lambda: made.append(1))
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
