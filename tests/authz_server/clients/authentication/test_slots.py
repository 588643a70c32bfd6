"""Slots for slow computations are shared fairly between sources and clients."""

import threading
import time

import pytest

from authz_server.clients.authentication.slots import FairSlots
from authz_server.errors import OAuthError

PATIENCE_SECONDS = 30


class Computation(threading.Thread):
    """A computation that holds its slot until it is told to end."""

    def __init__(self, slots: FairSlots, source: str, client_id: str) -> None:
        super().__init__(daemon=True)
        self._slots, self._pair, self.source = slots, (source, client_id), source
        self.began, self.end = threading.Event(), threading.Event()
        self.refused: OAuthError | None = None
        self.start()

    def run(self) -> None:
        try:
            with self._slots.take(*self._pair):
                self.began.set()
                self.end.wait(PATIENCE_SECONDS)
        except OAuthError as refused:
            self.refused = refused

    def finish(self) -> None:
        self.end.set()
        self.join(PATIENCE_SECONDS)
        assert not self.is_alive()


def wait_until(slots: FairSlots, waiting: int) -> None:
    """Wait until this many requests wait for a slot."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while slots.waiting != waiting:
        assert time.monotonic() < deadline
        time.sleep(0.001)


def wait_for_one_of(computations: list[Computation]) -> Computation:
    """Return the first that begins, and take it off the list."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < deadline:
        for each in computations:
            if each.began.is_set():
                computations.remove(each)
                return each
        time.sleep(0.001)
    raise AssertionError("none of them began")


def queue(slots: FairSlots, *pairs: tuple[str, str]) -> list[Computation]:
    """Have these wait, in this order."""
    queued = []
    for number, pair in enumerate(pairs, start=slots.waiting + 1):
        queued.append(Computation(slots, *pair))
        wait_until(slots, number)
    return queued


def test_only_so_many_run_at_once():
    slots = FairSlots(2, wait_seconds=PATIENCE_SECONDS)
    running = [Computation(slots, "192.0.2.1", f"client-{n}") for n in range(2)]
    assert all(each.began.wait(PATIENCE_SECONDS) for each in running)
    (third,) = queue(slots, ("192.0.2.2", "client-3"))
    assert not third.began.is_set()
    running[0].finish()
    assert third.began.wait(PATIENCE_SECONDS)
    for each in (running[1], third):
        each.finish()


def test_pair_of_source_and_client_has_one_slot():
    slots = FairSlots(2, wait_seconds=PATIENCE_SECONDS)
    first = Computation(slots, "192.0.2.1", "client")
    assert first.began.wait(PATIENCE_SECONDS)
    (second,) = queue(slots, ("192.0.2.1", "client"))
    for pair in (("192.0.2.1", "other"), ("192.0.2.2", "client")):
        other = Computation(slots, *pair)
        assert other.began.wait(PATIENCE_SECONDS)
        other.finish()
        assert not second.began.is_set()
    first.finish()
    assert second.began.wait(PATIENCE_SECONDS)
    second.finish()


@pytest.mark.parametrize("count", [1, 2])
def test_flood_of_one_source_delays_another_by_one_computation(count):
    slots = FairSlots(count, wait_seconds=PATIENCE_SECONDS)
    running = [Computation(slots, "flood", f"running-{n}") for n in range(count)]
    assert all(each.began.wait(PATIENCE_SECONDS) for each in running)
    flood = queue(slots, *(("flood", f"client-{n}") for n in range(10)))
    (honest,) = queue(slots, ("home", "honest"))
    for each in running:
        each.finish()
        assert honest.began.wait(PATIENCE_SECONDS)
    honest.finish()
    while flood:
        wait_for_one_of(flood).finish()


def test_sources_that_wait_take_turns():
    slots = FairSlots(1, wait_seconds=PATIENCE_SECONDS)
    running = Computation(slots, "a", "running")
    assert running.began.wait(PATIENCE_SECONDS)
    waiting = queue(slots, *((source, f"{n}") for source in "aabbcc" for n in range(2)))
    turns = []
    while waiting:
        running.finish()
        running = wait_for_one_of(waiting)
        turns.append(running.source)
    running.finish()
    assert turns == ["b", "c", "a"] * 4


def test_flood_for_one_client_leaves_turns_to_another_of_the_same_source():
    """Which of the clients of a source is next is drawn by lot."""
    slots = FairSlots(1, wait_seconds=PATIENCE_SECONDS)
    places = []
    for _ in range(20):
        running = Computation(slots, "proxy", "first")
        assert running.began.wait(PATIENCE_SECONDS)
        waiting = queue(slots, *(("proxy", "attacked") for _ in range(8)), ("proxy", "honest"))
        honest = waiting[-1]
        running.finish()
        place = 0
        while waiting:
            began = wait_for_one_of(waiting)
            if began is honest:
                places.append(place)
            began.finish()
            place += 1
    # By chance one turn in two is the honest client's; in the order of arrival it were the ninth.
    assert sum(places) / len(places) < 4


def test_crowd_of_one_source_is_refused_before_anyone_else():
    slots = FairSlots(1, wait_seconds=PATIENCE_SECONDS, maximum_waiting=4)
    running = Computation(slots, "flood", "first")
    assert running.began.wait(PATIENCE_SECONDS)
    early = queue(slots, ("home", "honest"))
    flood = queue(slots, *(("flood", f"client-{n}") for n in range(3)))
    late = Computation(slots, "elsewhere", "honest")
    refused = [each for each in flood if not each.end.is_set() and _is_refused(each, flood)]
    assert len(refused) == 1
    assert refused[0].refused is not None
    assert refused[0].refused.reason == "temporarily_unavailable"
    running.finish()
    waiting = [*early, late, *(each for each in flood if each is not refused[0])]
    while waiting:
        wait_for_one_of(waiting).finish()


def _is_refused(computation: Computation, all_of_them: list[Computation]) -> bool:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not any(each.refused for each in all_of_them):
        assert time.monotonic() < deadline
        time.sleep(0.001)
    return computation.refused is not None


def test_request_waits_for_a_limited_time():
    slots = FairSlots(1, wait_seconds=0.05)
    with slots.take("192.0.2.1", "client"):
        with pytest.raises(OAuthError) as refusal, slots.take("192.0.2.2", "other"):
            pass
        assert refusal.value.reason == "temporarily_unavailable"
    with slots.take("192.0.2.2", "other"):
        assert slots.waiting == 0


def test_slot_comes_free_when_the_computation_fails():
    slots = FairSlots(1, wait_seconds=0.05)
    with pytest.raises(MemoryError), slots.take("192.0.2.1", "client"):
        raise MemoryError
    with slots.take("192.0.2.1", "client"):
        pass
