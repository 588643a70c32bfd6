"""Record and log key alarms, and pass key events to the metrics."""

import logging
import threading
import time
from collections.abc import Callable

from authz_server.audit.events import Event, KeyAlarm
from authz_server.audit.sink import AuditUnavailable
from keys.observer import Observer, SilentObserver

logger = logging.getLogger(__name__)

#: Shortest interval between two records of the same alarm with the same subject.
SILENCE_SECONDS = 60.0


class KeyObserver:
    """Records and logs alarms, and passes every event on (``keys.observer.Observer``).

    Args:
        record: records an event.
        counter: receives every event.
        monotonic: returns monotonic seconds.
    """

    def __init__(
        self,
        record: Callable[[Event], None],
        counter: Observer | None = None,
        *,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._record = record
        self._counter = counter or SilentObserver()
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._silent_until: dict[tuple[str, str], float] = {}
        self._down: set[str] = set()

    def signed(self, backend: str, alg: str, result: str, seconds: float) -> None:
        """Pass the event on."""
        self._counter.signed(backend, alg, result, seconds)

    def mismatch(self, ring: str, kid: str) -> None:
        """Record ``sign.mismatch``."""
        self._counter.mismatch(ring, kid)
        self._record_alarm("sign.mismatch", kid, f"a signature of {ring} was discarded")

    def unknown_kid(self) -> None:
        """Pass the event on."""
        self._counter.unknown_kid()

    def backend_up(self, uri: str) -> None:
        """Record ``backend.up`` if the backend was down."""
        self._counter.backend_up(uri)
        if uri not in self._down:
            return
        with self._lock:
            was_down = uri in self._down
            self._down.discard(uri)
        if was_down:
            self._write(KeyAlarm(alarm="backend.up", subject=uri, detail="it answers again"))

    def backend_down(self, uri: str, reason: str) -> None:
        """Record ``backend.down``, once until the backend is up again."""
        self._counter.backend_down(uri, reason)
        with self._lock:
            if uri in self._down:
                return
            self._down.add(uri)
        self._write(KeyAlarm(alarm="backend.down", subject=uri, detail=reason))

    def vault_token(self, vault: str, ttl_seconds: float, full_ttl_seconds: float) -> None:
        """Pass the event on."""
        self._counter.vault_token(vault, ttl_seconds, full_ttl_seconds)

    def batch(self, size: int) -> None:
        """Pass the event on."""
        self._counter.batch(size)

    def viewed(self, ring: str) -> None:
        """Pass the event on."""
        self._counter.viewed(ring)

    def alarm(self, event: str, subject: str, detail: str) -> None:
        """Record the alarm, at most once a minute."""
        self._counter.alarm(event, subject, detail)
        self._record_alarm(event, subject, detail)

    def _record_alarm(self, alarm: str, subject: str, detail: str) -> None:
        now = self._monotonic()
        with self._lock:
            if now < self._silent_until.get((alarm, subject), 0.0):
                return
            self._silent_until[alarm, subject] = now + SILENCE_SECONDS
        self._write(KeyAlarm(alarm=alarm, subject=subject, detail=detail))

    def _write(self, event: KeyAlarm) -> None:
        logger.warning("%s: %s: %s", event.alarm, event.subject, event.detail)
        try:
            self._record(event)
        except AuditUnavailable as error:
            logger.error("%s of %s is not recorded: %s", event.alarm, event.subject, error.detail)  # noqa: TRY400 - the message has the cause
