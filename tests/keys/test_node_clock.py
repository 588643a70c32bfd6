"""The clock of a machine beside the store's: alarms, corrections, leaps of either."""

from datetime import timedelta

import pytest

from keys.errors import ClockOffError, StoreUnavailable
from keys.events import Alarm
from keys.memory import MemoryKeyStore
from keys.node_clock import NodeClock
from support.clock import FakeClock
from support.received_events import ReceivedEvents

HOUR = 3_600.0
SECOND = timedelta(seconds=1)
D = 5


class Machine:
    """A machine whose clock a test sets, and a store whose clock it sets too."""

    def __init__(self) -> None:
        self.clock, self.seconds, self.events = FakeClock(), 0.0, ReceivedEvents()
        self.store = MemoryKeyStore(self.clock)
        self.node = NodeClock(
            self.store, self.clock, D, self.events, monotonic=lambda: self.seconds
        )

    def pass_time(self, seconds: float) -> None:
        self.seconds += seconds
        self.clock.advance(seconds)

    def set_own(self, seconds: float) -> None:
        """Set this machine's clock ahead; the store's stays as it is."""
        self.clock.advance(seconds)
        self.store.offset_seconds -= seconds

    def set_stores(self, seconds: float) -> None:
        """Set the store's clock ahead."""
        self.store.offset_seconds += seconds

    def measure(self) -> float:
        self.pass_time(5)
        self.node.measure()
        return self.node.correction_seconds


@pytest.fixture
def machine():
    return Machine()


def test_nothing_is_corrected_before_the_first_measurement(machine):
    machine.store.offset_seconds = HOUR
    assert (machine.node.offset_seconds, machine.node.correction_seconds) == (0.0, 0.0)
    assert machine.node.find_problem() == ""


@pytest.mark.parametrize("offset", [HOUR, -HOUR, D + 0.1, 2.0, -2.0])
def test_a_clock_that_is_off_from_the_start_is_corrected(machine, offset):
    machine.store.offset_seconds = offset
    assert machine.measure() == offset
    assert machine.measure() == offset


@pytest.mark.parametrize("offset", [0.0, 0.9, -0.9])
def test_less_than_a_second_is_not_corrected(machine, offset):
    machine.store.offset_seconds = offset
    assert machine.measure() == 0.0


@pytest.mark.parametrize("leap", [HOUR, -HOUR])
def test_a_leap_of_this_machines_clock_is_corrected(machine, leap):
    machine.measure()
    machine.set_own(leap)
    assert machine.measure() == pytest.approx(-leap)
    machine.set_own(-leap)
    assert machine.measure() == 0.0


@pytest.mark.parametrize("leap", [HOUR, -HOUR])
def test_a_leap_of_the_stores_clock_is_not_followed(machine, leap):
    """Expired tokens would live again, or all tokens end at once."""
    machine.measure()
    machine.set_stores(leap)
    assert machine.measure() == 0.0
    assert machine.measure() == 0.0, "not at the next measurement either"
    assert machine.node.find_problem(), "but nothing is signed meanwhile"
    machine.set_stores(-leap)
    assert machine.measure() == 0.0
    machine.set_own(600)
    assert machine.measure() == -600.0


def test_of_a_clock_that_is_off_already_a_leap_of_the_stores_changes_nothing(machine):
    machine.store.offset_seconds = HOUR
    machine.measure()
    machine.set_stores(2 * HOUR)
    assert machine.measure() == pytest.approx(HOUR)


def test_a_store_whose_clock_is_set_right_is_believed(machine):
    machine.store.offset_seconds = HOUR
    machine.measure()
    machine.set_stores(-HOUR)
    assert machine.measure() == 0.0
    machine.set_own(-2 * HOUR)
    assert machine.measure() == 2 * HOUR


def test_a_machine_that_slept_follows_the_store(machine):
    """Its monotonic clock stood still: both clocks seem to leap."""
    machine.measure()
    machine.clock.advance(HOUR)
    assert machine.measure() == 0.0
    machine.clock.advance(HOUR)
    machine.set_own(60)
    assert machine.measure() == -60.0


def test_a_clock_that_drifts_slowly_is_corrected(machine):
    for drift in range(1, 120):
        machine.set_own(-0.5)
        correction = machine.measure()
        assert correction == pytest.approx(drift / 2 if drift > 1 else 0.0)


def test_a_clock_that_is_off_is_one_alarm_until_it_is_right_again(machine):
    for _ in range(3):
        machine.store.offset_seconds = HOUR
        machine.measure()
        machine.measure()
        machine.store.offset_seconds = 0.0
        machine.measure()
    assert machine.events.alarms() == ["clock.off"] * 3
    assert "3600.0 s behind the database's; 5 s are tolerated" in machine.events.of(Alarm)[0].detail


def test_the_present_is_the_stores(machine):
    machine.store.offset_seconds = D
    assert (machine.node.require_now() - machine.clock()).total_seconds() == D
    machine.store.offset_seconds = -D - 0.1
    with pytest.raises(ClockOffError, match=r"5\.1 s ahead of the database's"):
        machine.node.require_now()
    assert (machine.node.measure_now() - machine.clock()).total_seconds() == -D - 0.1


def test_the_present_is_never_before_the_last_change(machine):
    """Two measurements, or two machines, differ by a little."""
    now = machine.clock()
    for changed_at, expected in ((now, now), (now + D * SECOND, now + D * SECOND)):
        assert machine.node.require_now(changed_at) == expected
    assert machine.node.require_now(now - SECOND) == now
    for _ in range(2):
        with pytest.raises(ClockOffError, match=r"6\.0 s before the last change: the clock went"):
            machine.node.require_now(now + (D + 1) * SECOND)
    assert machine.events.alarms() == ["clock.off"]


def test_a_store_that_is_away_leaves_the_last_measurement(machine, monkeypatch):
    machine.store.offset_seconds = HOUR
    machine.measure()

    def away():
        raise StoreUnavailable("away")

    monkeypatch.setattr(machine.store, "clock_offset_seconds", away)
    for measure in (machine.node.measure, machine.node.require_now, machine.node.measure_now):
        with pytest.raises(StoreUnavailable):
            measure()
    assert machine.node.correction_seconds == HOUR
