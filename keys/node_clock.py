"""The clock of this machine beside the store's: what a process may do, and by what time."""

import time
from collections.abc import Callable
from datetime import datetime, timedelta
from socket import gethostname
from typing import NamedTuple

from keys.errors import ClockOffError
from keys.observer import Observer, SilentObserver
from keys.store import KeyStore

#: The name of the alarm.
CLOCK_ALARM = "clock.off"
#: A smaller offset is not corrected: times in tokens are whole seconds.
LEAST_CORRECTION_SECONDS = 1.0


class _Reading(NamedTuple):
    """This machine's clock, the seconds that it ran, and the offset at one moment."""

    at: datetime
    seconds: float
    offset_seconds: float


class NodeClock:
    """Measures this machine's clock against the store's, and whether it is near enough to work by.

    A clock that is off by more than the tolerance is the alarm ``clock.off``, raised once until it
    is right again.

    Args:
        store: Has the clock that counts.
        clock: Returns the present by this machine, timezone-aware.
        tolerance_seconds: How far the two may be apart.
        observer: Receives the alarm.
        monotonic: Returns seconds that only grow, whatever is done to the clock.
    """

    def __init__(
        self,
        store: KeyStore,
        clock: Callable[[], datetime],
        tolerance_seconds: float,
        observer: Observer | None = None,
        *,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store = store
        self._clock = clock
        self._tolerance = float(tolerance_seconds)
        self._observer = observer or SilentObserver()
        self._monotonic = monotonic
        self._last: _Reading | None = None
        self._store_leap_seconds = 0.0
        self._told: set[str] = set()
        self._correction_seconds = 0.0

    @property
    def offset_seconds(self) -> float:
        """The store's clock less this machine's, as last measured; 0 before the first time."""
        return self._last.offset_seconds if self._last is not None else 0.0

    @property
    def correction_seconds(self) -> float:
        """Seconds to add to this machine's clock where expiry is judged.

        The measured offset, without what comes from a leap of the store's own clock while this
        process watched: of two clocks, that one is wrong then. Zero where the offset is below
        ``LEAST_CORRECTION_SECONDS`` or was never measured.
        """
        return self._correction_seconds

    def measure(self) -> None:
        """Ask the store for the time.

        Raises:
            StoreUnavailable: It cannot be asked; the last measurement stays.
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
        self._tell("offset", self.find_problem())

    def find_problem(self) -> str:
        """Return why the clock is off, in words, as last measured; empty if it is not."""
        offset = self.offset_seconds
        if abs(offset) <= self._tolerance:
            return ""
        way = "behind" if offset > 0 else "ahead of"
        return (
            f"this machine's clock is {abs(offset):.1f} s {way} the database's; "
            f"{self._tolerance:g} s are tolerated"
        )

    def measure_now(self) -> datetime:
        """Measure, and return the present by the store's clock, however far this machine's is off.

        Raises:
            StoreUnavailable: The store cannot be asked.
        """
        self.measure()
        return self._clock() + timedelta(seconds=self.offset_seconds)

    def require_now(self, changed_at: datetime | None = None) -> datetime:
        """Measure, and return the present by the store's clock, never before ``changed_at``.

        Args:
            changed_at: When what is planned for was changed last. No plan rests on an earlier time:
                two measurements may differ by a little, and a clock may have gone back.

        Raises:
            ClockOffError: This machine's clock is off by more than the tolerance, or the present is
                before ``changed_at`` by more.
            StoreUnavailable: The store cannot be asked.
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
        self._tell("setback", problem)
        return problem

    def _tell(self, kind: str, problem: str) -> None:
        if problem and kind not in self._told:
            self._observer.alarm(CLOCK_ALARM, gethostname(), problem)
        (self._told.add if problem else self._told.discard)(kind)


def _store_leap(last: _Reading, reading: _Reading, tolerance: float) -> float:
    """Return by how many seconds the store's clock leapt while this machine's went evenly."""
    passed = reading.seconds - last.seconds
    here = (reading.at - last.at).total_seconds() - passed
    there = here + reading.offset_seconds - last.offset_seconds
    return there if abs(there) > tolerance >= abs(here) else 0.0
