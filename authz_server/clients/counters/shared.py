"""Count together with other processes; without the store, callers count for themselves."""

import logging
import threading
import time
from collections.abc import Callable
from hashlib import sha256
from typing import NamedTuple

from sqlalchemy.exc import SQLAlchemyError

from authz_server.audit.notifier import Notify
from authz_server.errors import OAuthError
from authz_server.logs import redact
from authz_server.metrics.events import CountedAlone
from authz_server.waiting import Batch, BatchedStep

logger = logging.getLogger(__name__)

#: How long a store that failed is not used.
PAUSE_SECONDS = 5.0
#: How long an addition may take that is no step of the database, from its look-up of the host on.
COUNTING_SECONDS = 0.5


class StoreError(Exception):
    """The store of the counts cannot be used; the message has the reason."""


class Addition(NamedTuple):
    """A number that is to be added to a count.

    Attributes:
        key: 32 bytes that identify the count.
        now: the present time, in seconds since 1970 UTC.
        ends_at: the end of the count, in seconds since 1970 UTC, if this is its first.
        number: what is added; 0 to read the count.
    """

    key: bytes
    now: float
    ends_at: int
    number: int = 1


class Count(NamedTuple):
    """A count.

    Attributes:
        number: what was counted, including this one.
        ends_at: the time at which it begins again at 0, in seconds since 1970 UTC.
    """

    number: int
    ends_at: int


class Store(Batch[Addition, Count]):
    """Adds to counts."""

    def probe(self) -> bool:
        """Add to a count that is used for nothing else; return False if other checks do so.

        Raises:
            StoreError: the counts cannot be kept.
        """
        return False

    def find_risk(self) -> str:
        """Return why counts may be lost although the store takes them; empty: nothing is known.

        Raises:
            StoreError: the store cannot answer.
        """
        return ""


class SharedCounters:
    """Counts in a store, which several processes use.

    A store that fails is not asked for some seconds. It fails and returns in one line of the log
    each.

    Args:
        store: adds to counts.
        scope: the issuer; servers with one store and different issuers count apart.
        notify: receives an event for each count that could not be shared.
        monotonic: returns monotonic seconds.
    """

    def __init__(
        self,
        store: Store,
        scope: str,
        *,
        notify: Notify = lambda _: None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store = store
        self._scope = scope
        self._notify = notify
        self._monotonic = monotonic
        self._unused_until = 0.0
        self._probed_at = -PAUSE_SECONDS
        self._is_down = False
        self._reason = ""
        self._lock = threading.Lock()

    def find_failure(self) -> str:
        """Return why counts are not shared at present; empty if they are.

        Waits for the store, at most once in some seconds. What other checks notice is returned for
        some seconds.
        """
        now = self._monotonic()
        if now >= self._probed_at + PAUSE_SECONDS:
            self._probed_at = now
            try:
                if self._store.probe():
                    self._note_success()
                else:
                    self._reason = ""
            except StoreError as error:
                self._note_failure(error)
        return self._reason

    async def add(self, *name: str, now: float, ends_at: int, number: int = 1) -> Count | None:
        """Add to a count; return the count, or None if the store cannot be used.

        Args:
            name: the parts of the count's name.
            now: the present time, in seconds since 1970 UTC.
            ends_at: the end of the count, in seconds since 1970 UTC, if this is its first.
            number: what is added; 0 to read the count.
        """
        count = await self._add(name, now, ends_at, number)
        if count is None and number:
            self.note_alone()
        return count

    def note_alone(self) -> None:
        """Report that this process alone counts something."""
        self._notify(CountedAlone())

    async def _add(
        self, name: tuple[str, ...], now: float, ends_at: int, number: int
    ) -> Count | None:
        if self._is_down and self._monotonic() < self._unused_until:
            return None
        key = sha256("\0".join((self._scope, *name)).encode()).digest()
        try:
            count = await BatchedStep(self._store, Addition(key, now, ends_at, number))
        except OAuthError:
            # Too many requests wait: this is no failure of the store.
            return None
        except (StoreError, SQLAlchemyError) as error:
            self._note_failure(error)
            return None
        if self._is_down:
            self._note_success()
        return count

    def _note_success(self) -> None:
        with self._lock:
            was_down, self._is_down, self._reason = self._is_down, False, ""
        if was_down:
            logger.info("the shared counts work again")

    def _note_failure(self, error: Exception) -> None:
        self._unused_until = self._monotonic() + PAUSE_SECONDS
        with self._lock:
            was_down, self._is_down, self._reason = self._is_down, True, redact(str(error))
        if not was_down:
            logger.warning("each process counts for itself, because the counts fail: %s", error)
