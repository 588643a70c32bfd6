"""Status lists in memory: fetched once for all requests, and used for their `ttl`."""

import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, replace

from authz_verifier.errors import unavailable
from authz_verifier.fetching import FetchedList, FetchError
from authz_verifier.key_cache import Flight, KeyCache, Snapshot
from authz_verifier.metrics import FETCHES, Counters
from authz_verifier.status_lists import StatusList, parse_status_list
from authz_verifier.tokens import UnknownKeyError

logger = logging.getLogger(__name__)

MAXIMUM_LISTS = 64
#: The part of the `ttl` after which a list is fetched again in the background.
_REFRESH_PART = 0.75
MINIMUM_PAUSE_SECONDS = 1.0
MAXIMUM_PAUSE_SECONDS = 15.0

#: Fetches a list: its address, the entity tag of the last one, and whether caches are passed.
FetchList = Callable[[str, str, bool], FetchedList]


@dataclass(frozen=True, slots=True)
class _Entry:
    """The state of one list; times are of the monotonic clock."""

    statuses: StatusList | None = None
    etag: str = ""
    refresh_at: float = 0.0
    fresh_until: float = 0.0
    usable_until: float = 0.0
    dropped: bool = False
    pause: float = MINIMUM_PAUSE_SECONDS
    next_fetch_at: float = 0.0


class StatusCache:
    """Keeps lists. Safe for threads; at most one fetch of each list is under way.

    Args:
        fetch: fetches a list.
        keys: the issuer's keys, which sign the lists.
        issuer: the only accepted issuer.
        algorithms: the accepted algorithms, within those of the metadata.
        flight_seconds: how long a caller waits for a fetch.
        kept_seconds: how long a list is used beyond its `ttl` while fetching fails.
        clock: returns seconds since 1970.
        counters: count the fetches.
    """

    def __init__(  # noqa: PLR0913 - its parts, by name
        self,
        *,
        fetch: FetchList,
        keys: KeyCache,
        issuer: str,
        algorithms: frozenset[str],
        flight_seconds: float,
        kept_seconds: float,
        clock: Callable[[], float],
        counters: Counters,
    ) -> None:
        self._counters = counters
        self._fetch = fetch
        self._keys = keys
        self._issuer = issuer
        self._algorithms = algorithms
        self._flight_seconds = flight_seconds
        self._kept_seconds = kept_seconds
        self._clock = clock
        self._lock = threading.Lock()
        self._entries: OrderedDict[str, _Entry] = OrderedDict()
        self._flights: dict[str, Flight] = {}
        self._generation = 0

    def find(self, uri: str) -> StatusList | None:
        """Return a list that is fresh, or None; start fetching it again before it is not."""
        entry = self._entries.get(uri)
        if entry is None:
            return None
        now = time.monotonic()
        if now >= entry.fresh_until:
            return None
        if now >= entry.refresh_at:
            self.start_fetch(uri)
        return entry.statuses

    def require(self, uri: str) -> StatusList:
        """Return a list after a fetch: a fresh one, or the last one while fetching fails.

        Raises:
            Refusal: there is none that may be used (503).
        """
        found = self.find(uri)
        if found is not None:
            return found
        entry = self._entries.get(uri)
        statuses = entry.statuses if entry is not None else None
        if entry is None or statuses is None or time.monotonic() >= entry.usable_until:
            raise unavailable("the status list is not at hand")
        return statuses

    def drop(self) -> None:
        """Use no list any more that was fetched until now."""
        with self._lock:
            self._generation += 1
            for uri, entry in self._entries.items():
                self._entries[uri] = replace(
                    entry,
                    refresh_at=0.0,
                    fresh_until=0.0,
                    usable_until=0.0,
                    dropped=True,
                    next_fetch_at=0.0,
                )

    def start_fetch(self, uri: str) -> Flight | None:
        """Start a fetch, or join the one under way; None after a failure a moment ago."""
        with self._lock:
            now = time.monotonic()
            flight = self._flights.get(uri)
            if flight is not None and not flight.is_over:
                return flight
            entry = self._entries.get(uri)
            if entry is not None and now < entry.next_fetch_at:
                return None
            flight = Flight(now + self._flight_seconds, for_unknown_key=False)
            self._flights[uri] = flight
            generation = self._generation
        threading.Thread(
            target=self._run,
            args=(uri, entry or _Entry(), flight, generation),
            name="authz-verifier status list",
            daemon=True,
        ).start()
        return flight

    def _run(self, uri: str, known: _Entry, flight: Flight, generation: int) -> None:
        began = time.monotonic()
        try:
            fetched = self._fetch(uri, known.etag, known.dropped)
            statuses = self._read(uri, known.statuses, fetched)
        except (FetchError, UnknownKeyError, ValueError) as error:
            reason = str(error) or "signed by an unknown key"
            logger.warning("A status list cannot be used: %s: %s", uri, reason)
            self._slow_down(uri)
        except Exception:
            logger.exception("A status list cannot be used: %s", uri)
            self._slow_down(uri)
        else:
            self._keep(uri, statuses, fetched, began, generation)
            self._counters.add(FETCHES, "status_list", "success")
        finally:
            with self._lock:
                if self._flights.get(uri) is flight:
                    del self._flights[uri]
            flight.land()

    def _read(self, uri: str, known: StatusList | None, fetched: FetchedList) -> StatusList:
        if not fetched.unchanged:
            return self._parse(uri, fetched.data)
        if known is None or self._clock() >= known.expires_at:
            raise ValueError("expired")
        return known

    def _parse(self, uri: str, data: bytes) -> StatusList:
        snapshot = self._snapshot(None)
        try:
            return self._parse_by(snapshot, uri, data)
        except UnknownKeyError:
            return self._parse_by(self._snapshot(snapshot), uri, data)

    def _parse_by(self, snapshot: Snapshot, uri: str, data: bytes) -> StatusList:
        algorithms = self._algorithms & snapshot.metadata.algorithms
        return parse_status_list(data, uri, self._issuer, snapshot.keys, algorithms, self._clock())

    def _snapshot(self, newer_than: Snapshot | None) -> Snapshot:
        """Return the issuer's keys; wait for them if there are none, or one is missing."""
        snapshot = self._keys.require(newer_than)
        if snapshot is None:
            raise FetchError("the authorization server's keys are not at hand")
        return snapshot

    def _keep(
        self, uri: str, statuses: StatusList, fetched: FetchedList, began: float, generation: int
    ) -> None:
        left = statuses.expires_at - self._clock()
        ttl = max(0.0, min(statuses.ttl_seconds - fetched.age_seconds, left))
        with self._lock:
            if generation != self._generation:
                # The list was under way while lists were dropped; the next request fetches again.
                return
            self._entries[uri] = _Entry(
                statuses,
                fetched.etag,
                refresh_at=began + _REFRESH_PART * ttl,
                fresh_until=began + ttl,
                usable_until=began + min(ttl + self._kept_seconds, left),
            )
            self._entries.move_to_end(uri)
            if len(self._entries) > MAXIMUM_LISTS:
                self._entries.popitem(last=False)

    def forget_threads(self) -> None:
        """Forget the fetches under way after a fork: their threads are in the parent."""
        self._lock = threading.Lock()
        self._flights = {}

    def _slow_down(self, uri: str) -> None:
        self._counters.add(FETCHES, "status_list", "failure")
        with self._lock:
            entry = self._entries.get(uri, _Entry())
            self._entries[uri] = replace(
                entry,
                pause=min(2 * entry.pause, MAXIMUM_PAUSE_SECONDS),
                next_fetch_at=time.monotonic() + entry.pause,
            )
            if len(self._entries) > MAXIMUM_LISTS:
                self._entries.popitem(last=False)
