"""The number of requests of each caller."""

import threading
from collections import OrderedDict
from collections.abc import Callable
from math import ceil

from authz_server.admin.problems import Problem
from keys.plurals import counted

_WINDOW_SECONDS = 60.0
_MAXIMUM_CALLERS = 10_000


class CallerRates:
    """Counts the requests of each caller in windows of a minute; each process counts for itself.

    Args:
        maximum: the number of requests of a caller within a window.
        monotonic: returns monotonic seconds.
    """

    def __init__(self, maximum: int, monotonic: Callable[[], float]) -> None:
        self._maximum = maximum
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._windows: OrderedDict[str, tuple[float, int]] = OrderedDict()

    def count(self, caller: str) -> None:
        """Count a request.

        Raises:
            Problem: ``too-many-requests``.
        """
        now = self._monotonic()
        with self._lock:
            began_at, number = self._windows.pop(caller, (now, 0))
            if now - began_at >= _WINDOW_SECONDS:
                began_at, number = now, 0
            self._windows[caller] = (began_at, number + 1)
            if len(self._windows) > _MAXIMUM_CALLERS:
                self._windows.popitem(last=False)
        if number >= self._maximum:
            seconds = max(1, ceil(began_at + _WINDOW_SECONDS - now))
            raise Problem(
                "too-many-requests",
                f"A caller may send {counted(self._maximum, 'request')} a minute.",
                headers={"Retry-After": str(seconds)},
            )
