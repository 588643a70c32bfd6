"""Signatures wanted at the same time share calls; every caller gets its own, or its own error."""

import os
import signal
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from time import monotonic

import pytest

from keys.backends.vault.batching import FLEET, RSA_FLEET, Fleet, SignatureBatcher
from keys.backends.vault.transit import TransitBackend
from keys.errors import BackendBroken, BackendDenied, BackendError, BackendUnavailable
from keys.jose.algorithms import get_algorithm
from keys.jose.jwk import load_public_key
from keys.jose.signatures import make_verifier
from support.vault_parts import Ear, open_session, token_access


class Airport:
    """Calls that wait until the test lets them go; `flights` holds what each one carried."""

    def __init__(self, fleet: Fleet = FLEET, seconds: float = 5.0) -> None:
        self.flights: list[list[bytes]] = []
        self.errors: list[BackendError] = []
        self.gate = threading.Semaphore(0)
        self.batcher = SignatureBatcher(self.fly, seconds, fleet)
        self.pool = ThreadPoolExecutor(32)

    def fly(self, inputs: Sequence[bytes], seconds: float) -> list[bytes | BackendError]:
        assert seconds > 0
        self.flights.append(list(inputs))
        assert self.gate.acquire(timeout=10)
        if self.errors:
            raise self.errors.pop()
        return [BackendBroken("bad") if data == b"bad" else b"signed " + data for data in inputs]

    def ask(self, *inputs: bytes):
        """Have a thread ask; return its future."""
        return self.pool.submit(self.batcher.sign, inputs)

    def await_flights(self, count: int) -> None:
        await_that(lambda: len(self.flights) == count)

    def await_waiting(self, count: int) -> None:
        await_that(lambda: self.batcher.waiting == count)

    def let_go(self, count: int) -> None:
        self.gate.release(count)


def await_that(condition) -> None:
    deadline = monotonic() + 10
    while not condition():
        assert monotonic() < deadline
        time.sleep(0.001)


@pytest.fixture
def airport():
    airport = Airport()
    yield airport
    airport.let_go(1000)
    airport.pool.shutdown()


def test_a_single_caller_goes_at_once(airport):
    asked = airport.ask(b"a", b"b")
    airport.await_flights(1)
    airport.let_go(1)
    assert asked.result() == [b"signed a", b"signed b"]


def test_who_comes_during_a_call_shares_the_next_one(airport):
    first = airport.ask(b"0")
    airport.await_flights(1)
    others = [airport.ask(b"%d" % number, b"x") for number in range(1, 10)]
    airport.await_waiting(9)
    airport.let_go(1)
    assert first.result() == [b"signed 0"]
    airport.await_flights(2)
    airport.let_go(1)
    assert [other.result() for other in others] == [
        [b"signed %d" % number, b"signed x"] for number in range(1, 10)
    ]
    assert [len(flight) for flight in airport.flights] == [1, 18]


def test_after_the_rush_a_single_caller_goes_at_once_again(airport):
    airport.let_go(1000)
    list(airport.pool.map(lambda _: airport.batcher.sign([b"x"]), range(200)))
    before = len(airport.flights)
    assert airport.batcher.sign([b"y"]) == [b"signed y"]
    assert airport.flights[before:] == [[b"y"]]


def test_no_call_carries_more_than_its_seats():
    airport = Airport(Fleet(flights=1, seats=3))
    airport.let_go(1000)
    assert airport.batcher.sign([b"x"] * 10) == [b"signed x"] * 10
    assert [len(flight) for flight in airport.flights] == [3, 3, 3, 1]
    airport.pool.shutdown()


def test_a_full_call_leaves_the_rest_for_the_next():
    airport = Airport(Fleet(flights=1, seats=3))
    asked = [airport.ask(b"0")]
    airport.await_flights(1)
    for number in range(1, 5):
        asked.append(airport.ask(b"%d" % number, b"x"))
        airport.await_waiting(number)
    airport.let_go(1000)
    assert [future.result()[0] for future in asked] == [b"signed %d" % n for n in range(5)]
    assert [len(flight) for flight in airport.flights] == [1, 2, 2, 2, 2]
    airport.pool.shutdown()


def test_several_calls_are_on_their_way_where_the_fleet_has_several():
    airport = Airport(Fleet(flights=2, seats=10))
    asked = [airport.ask(b"x") for _ in range(4)]
    airport.await_flights(2)
    airport.await_waiting(2)
    airport.let_go(1000)
    assert [future.result() for future in asked] == [[b"signed x"]] * 4
    assert len(airport.flights) == 3
    airport.pool.shutdown()


def test_a_bad_input_fails_its_own_caller_alone(airport):
    first = airport.ask(b"0")
    airport.await_flights(1)
    good, bad, other = airport.ask(b"1"), airport.ask(b"2", b"bad"), airport.ask(b"3")
    airport.await_waiting(3)
    airport.let_go(2)
    assert first.result() == [b"signed 0"]
    assert good.result() == [b"signed 1"]
    assert other.result() == [b"signed 3"]
    with pytest.raises(BackendBroken, match="bad"):
        bad.result()


def test_a_failed_call_fails_those_on_board_and_nobody_else(airport):
    first = airport.ask(b"0")
    airport.await_flights(1)
    on_board = [airport.ask(b"1"), airport.ask(b"2")]
    airport.await_waiting(2)
    airport.let_go(1)
    airport.await_flights(2)
    later = airport.ask(b"3")
    airport.await_waiting(1)
    airport.errors.append(BackendDenied("no"))
    airport.let_go(1)
    for future in on_board:
        with pytest.raises(BackendDenied, match="no"):
            future.result()
    airport.await_flights(3)
    airport.let_go(1)
    assert (first.result(), later.result()) == ([b"signed 0"], [b"signed 3"])


def test_an_unforeseen_error_leaves_nobody_waiting_or_without_signature(airport):
    first = airport.ask(b"0")
    airport.await_flights(1)
    pilot, passenger = airport.ask(b"1"), airport.ask(b"2")
    airport.await_waiting(2)
    airport.errors.append(RuntimeError("a fault of our own"))
    airport.let_go(1)
    with pytest.raises(RuntimeError):
        first.result()
    airport.await_flights(2)
    airport.errors.append(RuntimeError("another"))
    airport.let_go(1)
    outcomes = {type(pilot.exception()), type(passenger.exception())}
    assert outcomes == {RuntimeError, BackendUnavailable}
    airport.let_go(1)
    assert airport.batcher.sign([b"x"]) == [b"signed x"]


def test_nobody_waits_longer_than_the_bound():
    airport = Airport(seconds=0.4)
    first = airport.ask(b"0")
    airport.await_flights(1)
    begun = monotonic()
    with pytest.raises(BackendUnavailable, match="too many"):
        airport.batcher.sign([b"1"])
    assert 0.3 < monotonic() - begun < 1.5
    airport.let_go(1)
    assert first.result() == [b"signed 0"]
    airport.let_go(1)
    assert airport.batcher.sign([b"2"]) == [b"signed 2"]
    assert airport.flights == [[b"0"], [b"2"]]
    airport.pool.shutdown()


def test_who_has_no_time_left_is_not_sent_on_its_way():
    airport = Airport(seconds=0.4)
    first = airport.ask(b"0")
    airport.await_flights(1)
    late = airport.ask(b"1")
    airport.await_waiting(1)
    time.sleep(0.2)
    airport.let_go(1)
    assert first.result() == [b"signed 0"]
    with pytest.raises(BackendUnavailable, match="too many"):
        late.result()
    assert airport.flights == [[b"0"]]
    airport.pool.shutdown()


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_fork_during_a_call_leaves_the_child_able_to_sign():
    airport = Airport()
    first = airport.ask(b"0")
    airport.await_flights(1)
    child = os.fork()
    if child == 0:
        signal.alarm(10)  # whatever goes wrong, no child is left behind
        try:
            airport.let_go(1)
            os._exit(airport.batcher.sign([b"child"]) != [b"signed child"])
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    airport.let_go(1)
    assert first.result() == [b"signed 0"]
    airport.pool.shutdown()


@pytest.mark.parametrize(("alg", "fleet"), [("ES256", FLEET), ("PS256", RSA_FLEET)])
def test_a_crowd_shares_calls_to_a_real_server(bao_mount, alg, fleet):
    access = token_access(bao_mount.server.address, token=bao_mount.server.token)
    ear = Ear()
    with open_session(access, observer=ear) as session:
        backend = TransitBackend(session, bao_mount.mount, "ring", "ring", observer=ear)
        version = backend.create("ring", alg)
        verify = make_verifier(load_public_key(version.jwk, alg), get_algorithm(alg))

        def sign(number: int) -> None:
            inputs = [b"%d-%d" % (number, item) for item in range(2)]
            for data, signature in zip(inputs, backend.sign("ring", "1", alg, inputs), strict=True):
                verify(signature, data)

        with ThreadPoolExecutor(24) as pool:
            list(pool.map(sign, range(240)))
        sizes = [size for (size,) in ear.all("batch")]
        assert sum(sizes) == 480
        assert max(sizes) <= fleet.seats
        assert len(sizes) < 200
        ear.heard.clear()
        assert len(backend.sign("ring", "1", alg, [b"x"] * 250)) == 250
        assert len(ear.all("batch")) == -(-250 // fleet.seats)
