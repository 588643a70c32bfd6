"""Signatures wanted at the same time share calls; every caller gets its own, or its own error."""

import os
import signal
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from time import monotonic

import pytest

from keys.backends.vault.batching import LIMITS, RSA_LIMITS, BatchLimits, SignatureBatcher
from keys.backends.vault.transit import TransitBackend
from keys.errors import BackendBroken, BackendDenied, BackendError, BackendUnavailable
from keys.events import BatchSent
from keys.jose.algorithms import get_algorithm
from keys.jose.jwk import load_public_key
from keys.jose.signatures import make_verifier
from support.received_events import ReceivedEvents
from support.vault_parts import open_client, token_access


class GatedCalls:
    """Calls that wait until the test releases them; `sent` holds the inputs of each one."""

    def __init__(self, limits: BatchLimits = LIMITS, seconds: float = 5.0) -> None:
        self.sent: list[list[bytes]] = []
        self.errors: list[BackendError] = []
        self.gate = threading.Semaphore(0)
        self.batcher = SignatureBatcher(self.sign_batch, seconds, limits)
        self.pool = ThreadPoolExecutor(32)

    def sign_batch(self, inputs: Sequence[bytes], deadline: float) -> list[bytes | BackendError]:
        assert deadline > monotonic()
        self.sent.append(list(inputs))
        assert self.gate.acquire(timeout=10)
        if self.errors:
            raise self.errors.pop()
        return [BackendBroken("bad") if data == b"bad" else b"signed " + data for data in inputs]

    def ask(self, *inputs: bytes):
        """Have a thread ask; return its future."""
        return self.pool.submit(self.batcher.sign, inputs)

    def await_sent(self, count: int) -> None:
        await_that(lambda: len(self.sent) == count)

    def await_waiting(self, count: int) -> None:
        await_that(lambda: self.batcher.waiting == count)

    def release(self, count: int) -> None:
        self.gate.release(count)


def await_that(condition) -> None:
    deadline = monotonic() + 60
    while not condition():
        assert monotonic() < deadline
        time.sleep(0.001)


@pytest.fixture
def calls():
    calls = GatedCalls()
    yield calls
    calls.release(1000)
    calls.pool.shutdown()


def test_a_single_caller_goes_at_once(calls):
    asked = calls.ask(b"a", b"b")
    calls.await_sent(1)
    calls.release(1)
    assert asked.result() == [b"signed a", b"signed b"]


def test_who_comes_during_a_call_shares_the_next_one(calls):
    first = calls.ask(b"0")
    calls.await_sent(1)
    others = [calls.ask(b"%d" % number, b"x") for number in range(1, 10)]
    calls.await_waiting(9)
    calls.release(1)
    assert first.result() == [b"signed 0"]
    calls.await_sent(2)
    calls.release(1)
    assert [other.result() for other in others] == [
        [b"signed %d" % number, b"signed x"] for number in range(1, 10)
    ]
    assert [len(inputs) for inputs in calls.sent] == [1, 18]


def test_after_the_rush_a_single_caller_goes_at_once_again(calls):
    calls.release(1000)
    list(calls.pool.map(lambda _: calls.batcher.sign([b"x"]), range(200)))
    before = len(calls.sent)
    assert calls.batcher.sign([b"y"]) == [b"signed y"]
    assert calls.sent[before:] == [[b"y"]]


def test_no_call_carries_more_than_the_batch_size():
    calls = GatedCalls(BatchLimits(calls_in_flight=1, batch_size=3))
    calls.release(1000)
    assert calls.batcher.sign([b"x"] * 10) == [b"signed x"] * 10
    assert [len(inputs) for inputs in calls.sent] == [3, 3, 3, 1]
    calls.pool.shutdown()


def test_a_full_call_leaves_the_rest_for_the_next():
    calls = GatedCalls(BatchLimits(calls_in_flight=1, batch_size=3))
    asked = [calls.ask(b"0")]
    calls.await_sent(1)
    for number in range(1, 5):
        asked.append(calls.ask(b"%d" % number, b"x"))
        calls.await_waiting(number)
    calls.release(1000)
    assert [future.result()[0] for future in asked] == [b"signed %d" % n for n in range(5)]
    assert [len(inputs) for inputs in calls.sent] == [1, 2, 2, 2, 2]
    calls.pool.shutdown()


def test_several_calls_are_on_their_way_where_the_limits_permit():
    calls = GatedCalls(BatchLimits(calls_in_flight=2, batch_size=10))
    asked = [calls.ask(b"x") for _ in range(4)]
    calls.await_sent(2)
    calls.await_waiting(2)
    calls.release(1000)
    assert [future.result() for future in asked] == [[b"signed x"]] * 4
    assert len(calls.sent) == 3
    calls.pool.shutdown()


def test_a_bad_input_fails_its_own_caller_alone(calls):
    first = calls.ask(b"0")
    calls.await_sent(1)
    good, bad, other = calls.ask(b"1"), calls.ask(b"2", b"bad"), calls.ask(b"3")
    calls.await_waiting(3)
    calls.release(2)
    assert first.result() == [b"signed 0"]
    assert good.result() == [b"signed 1"]
    assert other.result() == [b"signed 3"]
    with pytest.raises(BackendBroken, match="bad"):
        bad.result()


def test_a_failed_call_fails_those_taken_along_and_no_others(calls):
    first = calls.ask(b"0")
    calls.await_sent(1)
    taken_along = [calls.ask(b"1"), calls.ask(b"2")]
    calls.await_waiting(2)
    calls.release(1)
    calls.await_sent(2)
    later = calls.ask(b"3")
    calls.await_waiting(1)
    calls.errors.append(BackendDenied("no"))
    calls.release(1)
    for future in taken_along:
        with pytest.raises(BackendDenied, match="no"):
            future.result()
    calls.await_sent(3)
    calls.release(1)
    assert (first.result(), later.result()) == ([b"signed 0"], [b"signed 3"])


def test_an_unforeseen_error_leaves_nobody_waiting_or_without_signature(calls):
    first = calls.ask(b"0")
    calls.await_sent(1)
    leader, other = calls.ask(b"1"), calls.ask(b"2")
    calls.await_waiting(2)
    calls.errors.append(RuntimeError("a fault of our own"))
    calls.release(1)
    with pytest.raises(RuntimeError):
        first.result()
    calls.await_sent(2)
    calls.errors.append(RuntimeError("another"))
    calls.release(1)
    outcomes = {type(leader.exception()), type(other.exception())}
    assert outcomes == {RuntimeError, BackendUnavailable}
    calls.release(1)
    assert calls.batcher.sign([b"x"]) == [b"signed x"]


def test_nobody_waits_longer_than_the_bound():
    calls = GatedCalls(seconds=0.4)
    first = calls.ask(b"0")
    calls.await_sent(1)
    begun = monotonic()
    with pytest.raises(BackendUnavailable, match="too many"):
        calls.batcher.sign([b"1"])
    assert 0.3 < monotonic() - begun < 10
    calls.release(1)
    assert first.result() == [b"signed 0"]
    calls.release(1)
    assert calls.batcher.sign([b"2"]) == [b"signed 2"]
    assert calls.sent == [[b"0"], [b"2"]]
    calls.pool.shutdown()


def test_who_has_no_time_left_is_not_sent_on_its_way():
    calls = GatedCalls(seconds=0.4)
    first = calls.ask(b"0")
    calls.await_sent(1)
    late = calls.ask(b"1")
    calls.await_waiting(1)
    time.sleep(0.2)
    calls.release(1)
    assert first.result() == [b"signed 0"]
    with pytest.raises(BackendUnavailable, match="too many"):
        late.result()
    assert calls.sent == [[b"0"]]
    calls.pool.shutdown()


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_fork_during_a_call_leaves_the_child_able_to_sign():
    calls = GatedCalls()
    first = calls.ask(b"0")
    calls.await_sent(1)
    child = os.fork()
    if child == 0:
        signal.alarm(10)  # whatever goes wrong, no child is left behind
        try:
            calls.release(1)
            os._exit(calls.batcher.sign([b"child"]) != [b"signed child"])
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    calls.release(1)
    assert first.result() == [b"signed 0"]
    calls.pool.shutdown()


@pytest.mark.parametrize(("alg", "limits"), [("ES256", LIMITS), ("PS256", RSA_LIMITS)])
def test_a_crowd_shares_calls_to_a_real_server(bao_mount, alg, limits):
    access = token_access(bao_mount.server.address, token=bao_mount.server.token)
    received = ReceivedEvents()
    with open_client(access, notify=received) as client:
        backend = TransitBackend(client, bao_mount.mount, "ring", "ring", notify=received)
        version = backend.create("ring", alg)
        verify = make_verifier(load_public_key(version.jwk, alg), get_algorithm(alg))

        def sign(number: int) -> None:
            inputs = [b"%d-%d" % (number, item) for item in range(2)]
            for data, signature in zip(inputs, backend.sign("ring", "1", alg, inputs), strict=True):
                verify(signature, data)

        with ThreadPoolExecutor(24) as pool:
            list(pool.map(sign, range(240)))
        sizes = [size for (size,) in received.of(BatchSent)]
        assert sum(sizes) == 480
        assert max(sizes) <= limits.batch_size
        assert len(sizes) < 200
        received.all.clear()
        assert len(backend.sign("ring", "1", alg, [b"x"] * 250)) == 250
        assert len(received.of(BatchSent)) == -(-250 // limits.batch_size)
