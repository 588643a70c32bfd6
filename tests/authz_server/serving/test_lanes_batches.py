"""Steps that an event loop performs together."""

import asyncio
import threading
import time
from contextvars import ContextVar, copy_context
from functools import partial

import pytest

from authz_server.endpoints.responses import Answer
from authz_server.serving import lanes as lanes_module
from authz_server.serving.lanes import BATCH_SIZE
from authz_server.waiting import Batch, BatchedStep, Lane, Step, run
from support.asked import Asked, lanes


class Doubling(Batch[int, int]):
    """Doubles numbers on a thread, once `gate` is set; fails for a batch with a negative one."""

    def __init__(self, *, held: bool = False) -> None:
        self.batches: list[list[int]] = []
        self.gate = threading.Event()
        if not held:
            self.gate.set()

    async def await_first(self) -> None:
        """Return once a batch is under way."""
        while not self.batches:  # noqa: ASYNC110 - it begins in one of the next turns
            await asyncio.sleep(0)

    async def perform(self, values):
        self.batches.append(list(values))
        await Step(Lane.DATABASE, partial(self.gate.wait, 60))
        if min(values) < 0:
            raise ValueError("negative")
        return [2 * value for value in values]


def test_steps_that_wait_for_a_batch_share_the_next_one(on_any_loop):
    async def act():
        batch = Doubling(held=True)
        async with lanes(maximum_waiting=1_000) as made:
            first = Asked(made, BatchedStep(batch, 0))
            await batch.await_first()
            later = [Asked(made, BatchedStep(batch, number)) for number in range(BATCH_SIZE + 1)]
            again = Asked(made, BatchedStep(batch, 7), BatchedStep(batch, 8))
            batch.gate.set()
            assert await first.result() == [0]
            assert [await each.result() for each in later] == [
                [2 * n] for n in range(BATCH_SIZE + 1)
            ]
            assert await again.result() == [14, 16]
        assert [len(each) for each in batch.batches] == [1, BATCH_SIZE, 2, 1]

    on_any_loop(act())


def test_a_batch_waits_for_the_steps_that_the_next_turns_of_the_loop_bring(
    on_any_loop, monkeypatch
):
    # However long the machine pauses.
    monkeypatch.setattr(lanes_module, "GATHER_SECONDS", 60.0)

    async def act():
        batch = Doubling()
        async with lanes() as made:
            asked = []
            for number in range(8):
                asked.append(Asked(made, BatchedStep(batch, number)))
                await asyncio.sleep(0)
            assert [await each.result() for each in asked] == [[2 * n] for n in range(8)]
        assert batch.batches == [[*range(8)]]

    on_any_loop(act())


def test_the_next_requests_of_those_just_answered_share_the_batch(on_any_loop, monkeypatch):
    monkeypatch.setattr(lanes_module, "GATHER_SECONDS", 60.0)

    async def respond(batch: Doubling, number: int) -> Answer:
        return Answer(await BatchedStep(batch, number), {}, b"")

    async def act():
        batch, loop = Doubling(held=True), asyncio.get_running_loop()
        answered = loop.create_future()
        async with lanes() as made:

            def send_next(_: Answer) -> None:
                # A request arrives in the turn after that in which the answer was written.
                loop.call_soon(made.start, respond(batch, 2), answered.set_result)

            made.start(respond(batch, 0), send_next)
            await batch.await_first()
            waiting = Asked(made, BatchedStep(batch, 1))
            batch.gate.set()
            assert (await answered).status == 4
            assert await waiting.result() == [2]
        assert batch.batches == [[0], [1, 2]]

    on_any_loop(act())


class Committing(Doubling):
    """Doubles numbers at a price that four of them share."""

    enough = 4


async def answer_together(made, batch: Batch, count: int) -> None:
    """Have so many steps share a batch, and return once they are answered."""
    asked = [Asked(made, BatchedStep(batch, number)) for number in range(count)]
    for each in asked:
        await each.result()
    assert batch.batches == [[*range(count)]]


async def pass_turns(count: int = 10) -> None:
    """Let the loop turn more often than a batch waits for steps that the next turns bring."""
    for _ in range(count):
        await asyncio.sleep(0)


@pytest.mark.parametrize("count", [2, 4])
def test_a_batch_waits_for_requests_of_those_just_answered(on_any_loop, monkeypatch, count):
    """Their clients take longer than two turns of an idle loop."""
    monkeypatch.setattr(lanes_module, "GATHER_SECONDS", 60.0)
    monkeypatch.setattr(lanes_module, "RETURN_SECONDS", 60.0)

    async def act():
        batch = Committing()
        async with lanes() as made:
            await answer_together(made, batch, count)
            asked = []
            for number in range(count):
                assert len(batch.batches) == 1
                asked.append(Asked(made, BatchedStep(batch, number)))
                await pass_turns()
            for each in asked:
                await each.result()
        assert batch.batches[1:] == [[*range(count)]]

    on_any_loop(act())


def test_steps_that_waited_for_the_last_batch_join_those_just_answered(on_any_loop, monkeypatch):
    """Otherwise two groups of connections would take turns, each with batches of its own."""
    monkeypatch.setattr(lanes_module, "GATHER_SECONDS", 60.0)
    monkeypatch.setattr(lanes_module, "RETURN_SECONDS", 60.0)

    async def act():
        batch = Committing(held=True)
        async with lanes() as made:
            first = [Asked(made, BatchedStep(batch, number)) for number in (1, 2)]
            await batch.await_first()
            second = Asked(made, BatchedStep(batch, 3))
            batch.gate.set()
            for each in first:
                await each.result()
            await pass_turns()
            again = [Asked(made, BatchedStep(batch, number)) for number in (4, 5)]
            for each in (second, *again):
                await each.result()
        assert batch.batches == [[1, 2], [3, 4, 5]]

    on_any_loop(act())


@pytest.mark.parametrize(("kind", "count"), [(Committing, 4), (Committing, 5), (Doubling, 4)])
def test_a_batch_does_not_wait_long_for_requests_that_do_not_come(
    on_any_loop, monkeypatch, kind, count
):
    """Nor at all for more than enough, or where each value has its own price."""
    if (kind, count) != (Committing, 4):
        monkeypatch.setattr(lanes_module, "RETURN_SECONDS", 60.0)

    async def act():
        batch = kind()
        async with lanes() as made:
            await answer_together(made, batch, count)
            for number in (7, 8):
                assert await Asked(made, BatchedStep(batch, number)).result() == [2 * number]
        assert batch.batches[1:] == [[7], [8]]

    on_any_loop(act())


def test_a_batch_that_follows_a_pause_does_not_wait(on_any_loop, monkeypatch):
    monkeypatch.setattr(lanes_module, "GATHER_SECONDS", 0.0)
    monkeypatch.setattr(lanes_module, "RETURN_SECONDS", 60.0)

    async def act():
        batch = Committing()
        async with lanes() as made:
            await answer_together(made, batch, 4)
            assert await Asked(made, BatchedStep(batch, 7)).result() == [14]

    on_any_loop(act())


def test_an_endpoint_continues_in_its_own_context(on_any_loop):
    """Its log lines keep the id of its request."""
    number = ContextVar("number")

    async def respond(batch: Doubling, own: int) -> Answer:
        number.set(own)
        await BatchedStep(batch, own)
        await BatchedStep(batch, own)
        return Answer(number.get(), {}, b"")

    async def act():
        loop, batch = asyncio.get_running_loop(), Doubling()
        async with lanes() as made:
            answers = [loop.create_future() for _ in range(3)]
            for own, answer in enumerate(answers):
                copy_context().run(made.start, respond(batch, own), answer.set_result)
            assert [(await answer).status for answer in answers] == [0, 1, 2]

    on_any_loop(act())


def test_a_batch_begins_although_every_turn_of_the_loop_brings_a_step(on_any_loop):
    async def act():
        batch, asked = Doubling(), []
        async with lanes(maximum_waiting=1_000) as made:
            while not batch.batches:
                asked.append(Asked(made, BatchedStep(batch, len(asked))))
                time.sleep(0.001)  # noqa: ASYNC251 - a turn of a busy loop
                await asyncio.sleep(0)
            for each in asked:
                await each.result()
        assert len(batch.batches[0]) < BATCH_SIZE

    on_any_loop(act())


def test_a_batch_that_fails_fails_each_of_its_steps_and_no_other(on_any_loop):
    async def act():
        batch, other = Doubling(), Doubling()
        async with lanes() as made:
            asked = [Asked(made, BatchedStep(batch, number)) for number in (1, -1)]
            well = Asked(made, BatchedStep(other, 1))
            for each in asked:
                (fault,) = await each.result()
                assert isinstance(fault, ValueError)
            assert await well.result() == [2]
            assert await Asked(made, BatchedStep(batch, 1)).result() == [2]

    on_any_loop(act())


class Negating(Batch[int, int]):
    """Negates numbers without waiting."""

    async def perform(self, values):
        return [-value for value in values]


def test_a_batch_need_not_wait(on_any_loop):
    async def act():
        async with lanes() as made:
            assert await Asked(made, BatchedStep(Negating(), 1)).result() == [-1]

    on_any_loop(act())


def test_a_batch_has_a_limit_of_steps_that_wait(on_any_loop):
    async def act():
        batch = Doubling(held=True)
        async with lanes(maximum_waiting=2) as made:
            first = Asked(made, BatchedStep(batch, 0))
            await batch.await_first()
            asked = [Asked(made, BatchedStep(batch, number)) for number in range(3)]
            batch.gate.set()
            results = [(await each.result())[0] for each in asked]
            assert results[:2] == [0, 2]
            assert results[2].error == "temporarily_unavailable"
            await first.result()

    on_any_loop(act())


def test_without_a_loop_a_step_is_a_batch_of_its_own():
    async def double(number: int) -> int:
        return await BatchedStep(Doubling(), number)

    assert run(double(21)) == 42
    with pytest.raises(ValueError, match="negative"):
        run(double(-1))
