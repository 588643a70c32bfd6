"""Alarms about keys: recorded, logged and not repeated."""

import logging
import threading
import time
from collections.abc import Callable

from authz_server.audit.events import KeyAlarm
from authz_server.audit.notifier import AuditUnavailable, Notify
from keys.events import Alarm, BackendAnswered, BackendFailed, KeyEvent, SignatureDiscarded

logger = logging.getLogger(__name__)

#: Shortest interval between two records of the same alarm with the same subject.
SILENCE_SECONDS = 60.0


class KeyAlarms:
    """Converts key events to the event ``key.alarm``, and logs each.

    Args:
        notify: records an event.
        monotonic: returns monotonic seconds.

    Attributes:
        kinds: the key events that may become an alarm.
    """

    kinds = frozenset({Alarm, BackendAnswered, BackendFailed, SignatureDiscarded})

    def __init__(self, notify: Notify, *, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._notify = notify
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._silent_until: dict[tuple[str, str], float] = {}
        self._down: set[str] = set()

    def receive(self, event: KeyEvent) -> None:
        """Record an alarm, at most once a minute, or that a backend failed or answers again."""
        match event:
            case Alarm(name, subject, detail):
                self._record_alarm(name, subject, detail)
            case SignatureDiscarded(ring, kid):
                self._record_alarm("sign.mismatch", kid, f"a signature of {ring} was discarded")
            case BackendFailed(uri, reason):
                self._record_failure(uri, reason)
            case BackendAnswered(uri) if uri in self._down:
                self._record_recovery(uri)

    def _record_recovery(self, uri: str) -> None:
        with self._lock:
            was_down = uri in self._down
            self._down.discard(uri)
        if was_down:
            self._record(KeyAlarm(alarm="backend.up", subject=uri, detail="it answers again"))

    def _record_failure(self, uri: str, reason: str) -> None:
        with self._lock:
            if uri in self._down:
                return
            self._down.add(uri)
        self._record(KeyAlarm(alarm="backend.down", subject=uri, detail=reason))

    def _record_alarm(self, alarm: str, subject: str, detail: str) -> None:
        now = self._monotonic()
        with self._lock:
            if now < self._silent_until.get((alarm, subject), 0.0):
                return
            self._silent_until[alarm, subject] = now + SILENCE_SECONDS
        self._record(KeyAlarm(alarm=alarm, subject=subject, detail=detail))

    def _record(self, event: KeyAlarm) -> None:
        logger.warning("%s: %s: %s", event.alarm, event.subject, event.detail)
        try:
            self._notify(event)
        except AuditUnavailable as error:
            logger.error("%s of %s is not recorded: %s", event.alarm, event.subject, error.detail)  # noqa: TRY400 - the message has the cause
