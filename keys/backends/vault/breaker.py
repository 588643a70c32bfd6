"""A circuit breaker, which suspends an address after repeated failures."""

from collections.abc import Callable
from random import SystemRandom
from threading import Lock
from time import monotonic

#: The system's: forked processes would share the state of any other.
_random = SystemRandom()

#: So many failures in a row open the circuit; one may be chance, and each costs its caller time.
FAILURES_TO_OPEN = 3
FIRST_OPEN_SECONDS = 1.0
LONGEST_OPEN_SECONDS = 15.0
#: How long one caller may try an address whose circuit was open, with all others kept off.
TRIAL_SECONDS = 2.0


class CircuitBreaker:
    """The circuit of one address; safe for threads.

    While it is closed, every caller may try. ``FAILURES_TO_OPEN`` failures in a row open it: no
    caller may. When its time is over, one may; success closes it, failure opens it for longer.

    Args:
        clock: returns monotonic seconds.

    Attributes:
        failures: the present number of failures in a row.
    """

    def __init__(self, clock: Callable[[], float] = monotonic) -> None:
        self._clock = clock
        self._lock = Lock()
        self.failures = 0
        self._open_until = 0.0

    def may_try(self) -> bool:
        """Return whether the caller may try the address; it then reports the outcome."""
        if self.failures < FAILURES_TO_OPEN:
            return True
        with self._lock:
            now = self._clock()
            if self.failures >= FAILURES_TO_OPEN:
                if now < self._open_until:
                    return False
                self._open_until = now + TRIAL_SECONDS
            return True

    def seconds_to_wait(self) -> float:
        """Return the seconds until a caller may try; zero when closed."""
        if self.failures < FAILURES_TO_OPEN:
            return 0.0
        return max(0.0, self._open_until - self._clock())

    def succeeded(self) -> bool:
        """Note an answer; return whether that ends a row of failures."""
        if self.failures == 0:
            return False
        with self._lock:
            recovered, self.failures = self.failures > 0, 0
            return recovered

    def failed(self) -> bool:
        """Note a failure; return whether it is the first of a row."""
        with self._lock:
            self.failures += 1
            rounds = self.failures - FAILURES_TO_OPEN
            if rounds >= 0:
                longest = min(LONGEST_OPEN_SECONDS, FIRST_OPEN_SECONDS * 2 ** min(rounds, 10))
                # Unequal, so that many processes do not come back in the same moment.
                share = _random.uniform(0.75, 1.0)
                self._open_until = self._clock() + longest * share
            return self.failures == 1
