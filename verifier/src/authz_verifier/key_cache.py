"""The issuer's keys in memory: fetched once, refreshed in the background, kept through outages."""

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

from authz_verifier.documents import KeySet, Metadata
from authz_verifier.fetching import Fetched, FetchError
from authz_verifier.metrics import FETCHES, KEYS_AGE, KEYS_LEFT, Counters, Sample

logger = logging.getLogger(__name__)

#: Time between two fetches after a failure or for an unknown key; it doubles up to a maximum.
MINIMUM_PAUSE_SECONDS = 5.0
MAXIMUM_FAILURE_PAUSE_SECONDS = 15.0
MAXIMUM_UNKNOWN_PAUSE_SECONDS = 60.0
#: How long after an event about keys a server may still answer with the earlier ones.
SETTLING_SECONDS = 1.0


@dataclass(frozen=True, slots=True, eq=False)
class Snapshot:
    """The documents of an issuer at one time.

    Attributes:
        metadata: its metadata.
        keys: its keys.
        fetched_at: when they were fetched, by the monotonic clock.
        fresh_until: when they are fetched again, likewise.
        usable_until: when they are refused unless they were fetched again.
    """

    metadata: Metadata
    keys: KeySet
    fetched_at: float
    fresh_until: float
    usable_until: float


class Flight:
    """A fetch that is under way.

    Args:
        deadline: when to stop waiting for it, by the monotonic clock.
        for_unknown_key: whether a token with an unknown key caused it.
    """

    def __init__(self, deadline: float, *, for_unknown_key: bool) -> None:
        self.deadline = deadline
        self.for_unknown_key = for_unknown_key
        self._landed = threading.Event()

    def wait(self) -> None:
        """Return when the fetch has ended, or at the deadline."""
        self._landed.wait(max(0.0, self.deadline - time.monotonic()))

    def land(self) -> None:
        """End the waiting."""
        self._landed.set()

    @property
    def is_over(self) -> bool:
        """Whether the fetch has ended or is too late."""
        return self._landed.is_set() or time.monotonic() >= self.deadline


class KeyCache:
    """Keeps a snapshot of an issuer's documents. Safe for threads.

    At most one fetch is under way. A failed one leaves the snapshot as it is; one during which the
    keys expired is followed by another one.

    Args:
        fetch: fetches the documents; it is given the last metadata.
        flight_seconds: how long a caller waits for a fetch.
        kept_seconds: how long a snapshot is used while fetching fails.
        counters: count the fetches.
    """

    def __init__(
        self,
        fetch: Callable[[Metadata | None], Fetched],
        flight_seconds: float,
        kept_seconds: float,
        counters: Counters,
    ) -> None:
        self._fetch = fetch
        self._counters = counters
        self._flight_seconds = flight_seconds
        self._kept_seconds = kept_seconds
        self._lock = threading.Lock()
        self._snapshot: Snapshot | None = None
        self._flight: Flight | None = None
        self._pauses = {False: MINIMUM_PAUSE_SECONDS, True: MINIMUM_PAUSE_SECONDS}
        self._next_fetch_at = {False: 0.0, True: 0.0}
        self._settled_at = 0.0
        #: How many times the keys were expired.
        self._generation = 0

    def snapshot(self) -> Snapshot | None:
        """Return the snapshot, or None; start fetching a new one when it is no longer fresh."""
        snapshot = self._snapshot
        if snapshot is None:
            return None
        now = time.monotonic()
        if now < snapshot.fresh_until:
            return snapshot
        self.start_fetch()
        return snapshot if now < snapshot.usable_until else None

    def start_fetch(self, newer_than: Snapshot | None = None) -> Flight | None:
        """Start a fetch, or join the one under way.

        Args:
            newer_than: the snapshot that lacks a key, if that is why.

        Returns:
            the fetch; None if there was one a moment ago, or `newer_than` has been replaced.
        """
        with self._lock:
            now = time.monotonic()
            if self._flight is not None and not self._flight.is_over:
                return self._flight
            replaced = newer_than is not None and newer_than is not self._snapshot
            unknown = newer_than is not None
            if replaced or now < self._next_fetch_at[unknown]:
                return None
            self._next_fetch_at[unknown] = now + self._pauses[unknown]
            self._flight = flight = Flight(now + self._flight_seconds, for_unknown_key=unknown)
        threading.Thread(
            target=self._run, args=(flight,), name="authz-verifier keys", daemon=True
        ).start()
        return flight

    def require(self, newer_than: Snapshot | None = None) -> Snapshot | None:
        """Return a snapshot, after a fetch if there is none; None: it cannot be had.

        Args:
            newer_than: a snapshot that lacks a key: a newer one is fetched.
        """
        snapshot = self.snapshot()
        if snapshot is None or newer_than is not None:
            flight = self.start_fetch(newer_than)
            if flight is not None:
                flight.wait()
            snapshot = self.snapshot() or newer_than
        return snapshot

    def expire(self) -> None:
        """Fetch the keys again at the next request, even if they are fresh."""
        with self._lock:
            self._generation += 1
            self._next_fetch_at = {False: 0.0, True: 0.0}
            if (last := self._snapshot) is not None:
                self._snapshot = replace(last, fresh_until=0.0)

    def renew(self) -> None:
        """Fetch the keys now, and once more when every process of the server has the new ones."""
        self.expire()
        self.start_fetch()
        with self._lock:
            now = time.monotonic()
            waits, self._settled_at = now < self._settled_at, now + SETTLING_SECONDS
        if not waits:
            name = "authz-verifier keys again"
            threading.Thread(target=self._fetch_settled, name=name, daemon=True).start()

    def samples(self) -> list[Sample]:
        """Return the age of the keys, and how long they may still be used."""
        snapshot, now = self._snapshot, time.monotonic()
        if snapshot is None:
            return []
        return [
            Sample(KEYS_AGE, "gauge", {}, round(now - snapshot.fetched_at, 3)),
            Sample(KEYS_LEFT, "gauge", {}, round(max(0.0, snapshot.usable_until - now), 3)),
        ]

    def forget_threads(self) -> None:
        """Forget the fetch under way after a fork: its thread is in the parent."""
        self._lock = threading.Lock()
        self._flight = None
        self._next_fetch_at = {False: 0.0, True: 0.0}
        self._settled_at = 0.0

    def _run(self, flight: Flight) -> None:
        known = self._snapshot
        try:
            while True:
                generation = self._generation
                fetched = self._fetch(known.metadata if known else None)
                self._counters.add(FETCHES, "keys", "success")
                if self._keep(fetched, flight, known, generation):
                    break
        except FetchError as error:
            logger.warning("The authorization server's keys cannot be fetched: %s", error)
            self._fail(flight)
        except Exception:
            logger.exception("The authorization server's keys cannot be fetched.")
            self._fail(flight)
        finally:
            flight.land()

    def _fetch_settled(self) -> None:
        while (left := self._settled_at - time.monotonic()) > 0:
            time.sleep(left)
        self.expire()
        self.start_fetch()

    def _keep(
        self, fetched: Fetched, flight: Flight, known: Snapshot | None, generation: int
    ) -> bool:
        """Keep the documents; return False if they have to be fetched again.

        Args:
            fetched: the documents.
            flight: their fetch.
            known: the snapshot before the fetch.
            generation: the number of times that the keys were expired before the fetch.
        """
        now = time.monotonic()
        with self._lock:
            is_outdated = generation != self._generation
            if is_outdated and flight is not self._flight:
                return True  # It took so long that a later fetch began.
            is_changed = known is None or known.keys.kids != fetched.keys.kids
            self._snapshot = Snapshot(
                fetched.metadata,
                fetched.keys,
                now,
                0.0 if is_outdated else now + fetched.fresh_seconds,
                now + fetched.fresh_seconds + self._kept_seconds,
            )
            if is_outdated:
                return False
            if flight is self._flight:
                self._flight = None
            self._pauses[False] = MINIMUM_PAUSE_SECONDS
            if is_changed:
                self._pauses[True] = MINIMUM_PAUSE_SECONDS
        if flight.for_unknown_key and not is_changed:
            self._slow_down(flight)
        return True

    def _fail(self, flight: Flight) -> None:
        self._counters.add(FETCHES, "keys", "failure")
        self._slow_down(flight)

    def _slow_down(self, flight: Flight) -> None:
        """Lengthen the pause after a fetch that failed, or did not bring the unknown key."""
        unknown = flight.for_unknown_key
        longest = MAXIMUM_UNKNOWN_PAUSE_SECONDS if unknown else MAXIMUM_FAILURE_PAUSE_SECONDS
        with self._lock:
            self._pauses[unknown] = min(2 * self._pauses[unknown], longest)
