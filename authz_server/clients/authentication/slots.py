"""Slots for slow computations, shared fairly between senders."""

import threading
from collections import Counter, OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from random import SystemRandom

from authz_server.errors import OAuthError

MAXIMUM_WAITING = 16
WAIT_SECONDS = 3.0
#: The system's generator; forked processes would share the state of another.
_random = SystemRandom()


class _Waiting:
    """One request that waits for a slot."""

    __slots__ = ("called", "client_id", "has_slot", "source")

    def __init__(self, source: str, client_id: str) -> None:
        self.source = source
        self.client_id = client_id
        self.called = threading.Event()
        self.has_slot = False

    @property
    def pair(self) -> tuple[str, str]:
        return self.source, self.client_id


class FairSlots:
    """Limits the number of simultaneous slow computations, and shares them between sources.

    - A pair of source and client id has at most one slot.
    - The next slot goes to the source that has the fewest, and among these to the one served
      longest ago. Within a source, a client id is chosen at random.
    - If too many requests wait, one of the source with the most of them is refused.

    A flood from one source delays the requests of another by at most one computation. The client
    id is the claimed one, so that an unknown client is treated like a known one.

    Args:
        slots: the number of computations that run at once.
        wait_seconds: the longest wait of a request for a slot.
        maximum_waiting: the number of requests that wait at once.
    """

    def __init__(
        self,
        slots: int,
        *,
        wait_seconds: float = WAIT_SECONDS,
        maximum_waiting: int = MAXIMUM_WAITING,
    ) -> None:
        self._free = slots
        self._wait_seconds = wait_seconds
        self._maximum_waiting = maximum_waiting
        self._lock = threading.Lock()
        self._running: set[tuple[str, str]] = set()
        # In the order in which the sources have their next turn.
        self._waiting: OrderedDict[str, list[_Waiting]] = OrderedDict()

    @property
    def waiting(self) -> int:
        """The number of requests that wait for a slot."""
        with self._lock:
            return self._count_waiting()

    @contextmanager
    def take(self, source: str, client_id: str) -> Iterator[None]:
        """Hold a slot for the time of the ``with`` block.

        Args:
            source: the network of the sender.
            client_id: the claimed client id.

        Raises:
            OAuthError: ``temporarily_unavailable``; no slot became free in time, or too many wait.
        """
        waiting = _Waiting(source, client_id)
        if not self._enter(waiting):
            waiting.called.wait(self._wait_seconds)
            if not self._has_slot(waiting):
                raise OAuthError("temporarily_unavailable", "no slot came free")
        try:
            yield
        finally:
            self._leave(waiting)

    def _enter(self, waiting: _Waiting) -> bool:
        with self._lock:
            if self._free and waiting.pair not in self._running:
                self._give_slot(waiting)
                return True
            self._waiting.setdefault(waiting.source, []).append(waiting)
            if self._count_waiting() > self._maximum_waiting:
                refused = self._draw_refused()
                self._forget(refused)
                refused.called.set()
            return False

    def _count_waiting(self) -> int:
        return sum(map(len, self._waiting.values()))

    def _has_slot(self, waiting: _Waiting) -> bool:
        with self._lock:
            if not waiting.has_slot:
                self._forget(waiting)
            return waiting.has_slot

    def _leave(self, done: _Waiting) -> None:
        with self._lock:
            self._running.discard(done.pair)
            self._free += 1
            if done.source in self._waiting:
                self._waiting.move_to_end(done.source)
            while self._free and (waiting := self._draw_next()) is not None:
                self._forget(waiting)
                self._give_slot(waiting)

    def _give_slot(self, waiting: _Waiting) -> None:
        self._free -= 1
        self._running.add(waiting.pair)
        waiting.has_slot = True
        waiting.called.set()

    def _draw_next(self) -> _Waiting | None:
        held = Counter(source for source, _ in self._running)
        # The sort is stable: sources with equally many slots keep their order.
        for source in sorted(self._waiting, key=lambda each: held[each]):
            eligible = [each for each in self._waiting[source] if each.pair not in self._running]
            if eligible:
                client_id = _random.choice(sorted({each.client_id for each in eligible}))
                return next(each for each in eligible if each.client_id == client_id)
        return None

    def _draw_refused(self) -> _Waiting:
        waiting = [each for waiting_here in self._waiting.values() for each in waiting_here]
        by_source = Counter(each.source for each in waiting)
        by_pair = Counter(each.pair for each in waiting)

        def crowd(each: _Waiting) -> tuple[int, int]:
            return by_source[each.source], by_pair[each.pair]

        largest = max(map(crowd, waiting))
        return _random.choice([each for each in waiting if crowd(each) == largest])

    def _forget(self, waiting: _Waiting) -> None:
        waiting_here = self._waiting.get(waiting.source, [])
        if waiting in waiting_here:
            waiting_here.remove(waiting)
            if not waiting_here:
                del self._waiting[waiting.source]
