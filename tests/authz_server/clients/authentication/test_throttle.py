"""The throttle counts failures for each pair of client id and network, in bounded space."""

import pytest

from authz_server.clients.authentication import throttle as throttle_module
from authz_server.clients.authentication.throttle import (
    FailureThrottle,
    SharedFailures,
    network_of,
)
from authz_server.clients.counters.shared import Addition, Count, SharedCounters
from authz_server.metrics.events import CountedAlone
from authz_server.waiting import Batch, run


@pytest.mark.parametrize(
    ("address", "network"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("::FFFF:c000:201", "192.0.2.1"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:DB8:1:2::", "2001:db8:1:2::/64"),
        ("::1", "::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("", ""),
        ("unix:", "unix:"),
        ("x" * 500, "x" * 64),
    ],
)
def test_sender_is_counted_by_its_network(address, network):
    """Case A13."""
    assert network_of(address) == network


def test_failure_beyond_the_limit_has_to_wait_until_the_window_ends():
    """Case A13."""
    throttle = FailureThrottle(failures=2, window_seconds=60)
    assert [throttle.count_failure("a", "192.0.2.1", 1_000.0) for _ in range(3)] == [0, 0, 61]
    assert throttle.seconds_to_wait("a", "192.0.2.1", 1_030.5) == 30
    assert throttle.seconds_to_wait("b", "192.0.2.1", 1_030.5) == 0
    assert throttle.seconds_to_wait("a", "192.0.2.2", 1_030.5) == 0
    assert throttle.count_failure("a", "192.0.2.1", 1_059.0) == 2
    assert throttle.seconds_to_wait("a", "192.0.2.1", 1_060.0) == 0
    assert throttle.count_failure("a", "192.0.2.1", 1_060.0) == 0


def test_clock_that_was_set_back_ends_the_window():
    """Case A13."""
    throttle = FailureThrottle(failures=1, window_seconds=60)
    throttle.count_failure("a", "192.0.2.1", 1_000.0)
    assert throttle.seconds_to_wait("a", "192.0.2.1", 900.0) == 0
    assert throttle.count_failure("a", "192.0.2.1", 900.0) == 0


def test_oldest_pairs_are_dropped_beyond_the_maximum(monkeypatch):
    """Case A13."""
    monkeypatch.setattr(throttle_module, "MAXIMUM_PAIRS", 3)
    throttle = FailureThrottle(failures=1, window_seconds=60)
    for number in range(5):
        throttle.count_failure(f"client-{number}", "192.0.2.1", 1_000.0)
    waits = [throttle.seconds_to_wait(f"client-{n}", "192.0.2.1", 1_000.0) for n in range(5)]
    assert waits == [0, 0, 61, 61, 61]


class Counting(Batch[Addition, Count]):
    """A store in memory."""

    def __init__(self) -> None:
        self.numbers: dict[bytes, int] = {}

    async def perform(self, values):
        for key, _, _, number in values:
            self.numbers[key] = self.numbers.get(key, 0) + number
        return [Count(self.numbers[each.key], each.ends_at) for each in values]


@pytest.fixture
def store() -> Counting:
    return Counting()


@pytest.fixture
def alone() -> list[object]:
    """The events of what this process counts alone."""
    return []


@pytest.fixture
def failures(store: Counting, alone: list[object], monkeypatch) -> SharedFailures:
    """Shared failures with little room."""
    monkeypatch.setattr(throttle_module, "MAXIMUM_PAIRS", 50)
    monkeypatch.setattr(throttle_module, "MAXIMUM_IDS_OF_NETWORK", 5)
    counters = SharedCounters(store, "https://auth.example", notify=alone.append)
    return SharedFailures(counters, failures=2, window_seconds=60)


def test_invented_ids_of_one_network_share_an_entry_in_the_store(store, failures, alone):
    """And those before them keep theirs."""

    def wait(client_id: str) -> int:
        return run(failures.count_failure(client_id, "192.0.2.1", 1_000.0))

    waits = [wait(f"invented-{number}") for number in range(500)]
    assert waits == [0] * 7 + [60] * 493
    assert len(store.numbers) == 6
    assert [wait("invented-0") for _ in range(2)] == [0, 60]
    assert alone == []


def test_beyond_a_number_of_pairs_the_process_counts_alone(store, failures, alone):
    """A sender may have many networks; the room is there again in the next window."""

    def wait(number: int, now: float) -> int:
        return run(failures.count_failure("ministry", f"2001:db8:0:{number:x}::1", now))

    assert [wait(number, 1_000.0) for number in range(500)] == [0] * 500
    assert len(store.numbers) == 50
    assert alone == [CountedAlone()] * 450
    assert [wait(0, 1_001.0) for _ in range(2)] == [0, 60]
    wait(499, 1_061.0)
    assert len(store.numbers) == 51
