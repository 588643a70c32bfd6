"""This machine's clock compared with the store's."""

import time
from collections.abc import Callable
from datetime import datetime, timedelta
from socket import gethostname
from typing import NamedTuple

from keys.errors import ClockOffError
from keys.events import Alarm, Notify, ignore
from keys.store import KeyStore

#: The name of the alarm.
CLOCK_ALARM = "clock.off"
#: Smaller offsets are not corrected: times in tokens are whole seconds.
LEAST_CORRECTION_SECONDS = 1.0


class _Reading(NamedTuple):
    """This machine's clock, its monotonic seconds, and the offset at one moment."""

    at: datetime
    seconds: float
    offset_seconds: float


class NodeClock:
    """Measures this machine's clock against the store's, and checks the tolerance.

    An offset beyond the tolerance raises the alarm ``clock.off``, once until the clock is right
    again.

    Args:
        store: the reference clock.
        clock: returns the present time by this machine, timezone-aware.
        tolerance_seconds: the largest accepted offset.
        notify: receives the alarm.
        monotonic: returns monotonic seconds.
    """

    def __init__(
        self,
        store: KeyStore,
        clock: Callable[[], datetime],
        tolerance_seconds: float,
        notify: Notify = ignore,
        *,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store = store
        self._clock = clock
        self._tolerance = float(tolerance_seconds)
        self._notify = notify
        self._monotonic = monotonic
        self._last: _Reading | None = None
        self._store_leap_seconds = 0.0
        self._reported: set[str] = set()
        self._correction_seconds = 0.0

    @property
    def offset_seconds(self) -> float:
        """The store's clock minus this machine's, as last measured; 0 before that."""
        return self._last.offset_seconds if self._last is not None else 0.0

    @property
    def correction_seconds(self) -> float:
        """Seconds to add to this machine's clock to check expiry.

        The measured offset without leaps of the store's clock that this process observed: after
        such a leap, the store's clock is the wrong one. Zero if the offset is below
        ``LEAST_CORRECTION_SECONDS`` or was never measured.
        """
        return self._correction_seconds

    def measure(self) -> None:
        """Measure the offset.

        Raises:
            StoreUnavailable: the store cannot be reached; the last measurement stays.
        """
        offset = self._store.clock_offset_seconds()
        reading = _Reading(self._clock(), self._monotonic(), offset)
        if abs(offset) <= self._tolerance:
            self._store_leap_seconds = 0.0
        elif self._last is not None:
            self._store_leap_seconds += _store_leap(self._last, reading, self._tolerance)
        self._last = reading
        correction = offset - self._store_leap_seconds
        is_small = abs(correction) < LEAST_CORRECTION_SECONDS
        self._correction_seconds = 0.0 if is_small else correction
        self._report("offset", self.find_problem())

    def find_problem(self) -> str:
        """Return why the clock is off, as last measured; empty if it is not."""
        offset = self.offset_seconds
        if abs(offset) <= self._tolerance:
            return ""
        way = "behind" if offset > 0 else "ahead of"
        return (
            f"this machine's clock is {abs(offset):.1f} s {way} the database's; "
            f"{self._tolerance:g} s are tolerated"
        )

    def measure_now(self) -> datetime:
        """Measure, and return the present time by the store's clock, at any offset.

        Raises:
            StoreUnavailable: the store cannot be reached.
        """
        self.measure()
        return self._clock() + timedelta(seconds=self.offset_seconds)

    def require_now(self, changed_at: datetime | None = None) -> datetime:
        """Measure, and return the present time by the store's clock, not before ``changed_at``.

        Args:
            changed_at: the last change of the ring to plan for. No plan uses an earlier time: two
                measurements may differ slightly, and a clock may have gone back.

        Raises:
            ClockOffError: this machine's clock is off by more than the tolerance, or the present is
                before ``changed_at`` by more.
            StoreUnavailable: the store cannot be reached.
        """
        now = self.measure_now()
        problem = self.find_problem()
        if not problem and changed_at is not None:
            problem = self._find_setback(now, changed_at)
        if problem:
            raise ClockOffError(f"{problem}: no ring is changed from here")
        return now if changed_at is None else max(now, changed_at)

    def _find_setback(self, now: datetime, changed_at: datetime) -> str:
        seconds = (changed_at - now).total_seconds()
        problem = (
            f"the present is {seconds:.1f} s before the last change: the clock went back"
            if seconds > self._tolerance
            else ""
        )
        self._report("setback", problem)
        return problem

    def _report(self, kind: str, problem: str) -> None:
        if problem and kind not in self._reported:
            self._notify(Alarm(CLOCK_ALARM, gethostname(), problem))
        (self._reported.add if problem else self._reported.discard)(kind)


def _store_leap(last: _Reading, reading: _Reading, tolerance: float) -> float:
    """Return by how many seconds the store's clock leapt while this machine's ran evenly."""
    passed = reading.seconds - last.seconds
    here = (reading.at - last.at).total_seconds() - passed
    there = here + reading.offset_seconds - last.offset_seconds
    return there if abs(there) > tolerance >= abs(here) else 0.0
