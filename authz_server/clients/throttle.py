"""Slows down failed authentications, for each pair of client and source."""

import threading
from collections import OrderedDict

MAXIMUM_PAIRS = 20_000
# One more than an id can have: longer ones, which are nobody's, take no more room than this.
MAXIMUM_ID_CHARACTERS = 129


class FailureThrottle:
    """Counts failures of a pair in a window; one party's failures never touch another's requests.

    Kept in this process's memory, in bounded space: with several processes, each has its own count.

    Args:
        failures: how many failures a pair may have within the window.
        window_seconds: how long after its first failure a pair's count starts anew.
    """

    def __init__(self, failures: int, window_seconds: int) -> None:
        self._failures = failures
        self._window_seconds = window_seconds
        self._pairs: OrderedDict[tuple[str, str], tuple[int, float]] = OrderedDict()
        self._lock = threading.Lock()

    def seconds_to_wait(self, client_id: str, source: str, now: float) -> int:
        """Return how long the pair has to wait; 0 where it may try.

        Args:
            client_id: as the request claims it.
            source: the sender's address.
            now: seconds since 1970 UTC.
        """
        if not self._pairs:
            return 0
        found = self._pairs.get((client_id[:MAXIMUM_ID_CHARACTERS], source))
        if found is None or found[0] < self._failures:
            return 0
        return (
            max(0, int(found[1] + self._window_seconds - now) + 1) if self._holds(found, now) else 0
        )

    def count_failure(self, client_id: str, source: str, now: float) -> None:
        """Note a failed authentication."""
        pair = (client_id[:MAXIMUM_ID_CHARACTERS], source)
        with self._lock:
            found = self._pairs.pop(pair, None)
            if found is None or not self._holds(found, now):
                found = (0, now)
            self._pairs[pair] = (found[0] + 1, found[1])
            while len(self._pairs) > MAXIMUM_PAIRS:
                self._pairs.popitem(last=False)

    def _holds(self, found: tuple[int, float], now: float) -> bool:
        return 0 <= now - found[1] < self._window_seconds
