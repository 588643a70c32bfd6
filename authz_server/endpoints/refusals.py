"""Records refusals one by one while they are few, and with a count when they are many.

One host could otherwise fill the disk with records until the server has to stop.
"""

import logging
import os
import threading
import time
from collections.abc import Callable, Iterable

import msgspec

from authz_server.audit.events import (
    Event,
    IntrospectionRefused,
    RequestRefused,
    RevocationRefused,
    TokenRefused,
)
from authz_server.clients.authentication.throttle import network_of
from authz_server.errors import OAuthError

logger = logging.getLogger(__name__)

Refusal = TokenRefused | IntrospectionRefused | RevocationRefused | RequestRefused

WINDOW_SECONDS = 60.0
#: How many refusals of one kind are recorded one by one within a window.
SINGLE_OF_A_KIND = 10
#: How many refusals of senders without proven credentials are recorded one by one, in all.
SINGLE_IN_ALL = 300
#: How many kinds are told apart, for senders with and without proven credentials each.
MAXIMUM_KINDS = 500
#: Reasons for which the client id is only a claim.
UNPROVEN = frozenset(
    {
        "client_unknown",
        "credentials_missing",
        "secret_wrong",
        "several_authentication_methods",
        "temporarily_unavailable",
        "throttled",
    }
)


class _Tally:
    """The refusals of one kind within a window.

    Args:
        network: where they come from; None for all kinds beyond the maximum together.
    """

    __slots__ = ("combined", "network", "seen")

    def __init__(self, network: str | None) -> None:
        self.network = network
        self.seen = 0
        self.combined: Refusal | None = None

    def count(self, event: Refusal) -> None:
        """Add a refusal to the one record of all that are not recorded one by one."""
        before = self.combined
        if before is None:
            self.combined = msgspec.structs.replace(
                event, request_id="", message_id="", source_address=self.network or ""
            )
            return
        # A value that is not the same for all of them is left out.
        different = {
            field: ""
            for field in ("client_id", "detail")
            if getattr(before, field, "") != getattr(event, field, "")
        }
        count = before.count + event.count
        self.combined = msgspec.structs.replace(before, count=count, **different)


class RefusalRecorder:
    """Records refusals in bounded memory and at a bounded rate.

    Refusals of the same event, network and reason are of one kind; with proven credentials, of the
    same client too. The first ones of a kind within a minute are recorded one by one. The others
    are counted, and recorded together when the minute has ended. ``docs/events.md`` describes both.

    Threads may share a recorder. A forked process begins without the counts of its parent.

    Args:
        record: records one event; raises OAuthError where it cannot.
        monotonic: returns seconds that only grow.
    """

    def __init__(
        self, record: Callable[[Event], None], *, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self._record = record
        self._monotonic = monotonic
        self._begin_in_this_process()

    def record(self, event: Refusal) -> None:
        """Record a refusal now, or count it.

        Raises:
            OAuthError: it is to be recorded now and cannot be.
        """
        self.flush()
        with self._lock:
            alone = self._is_recorded_alone(event)
        if alone:
            self._record(event)

    def flush(self, *, at_once: bool = False) -> None:
        """Record what was counted within a minute that has ended.

        What cannot be recorded is kept for the end of the next minute; a warning is logged.

        Args:
            at_once: do not wait for the end of the minute, because the process ends.
        """
        if self._process_id != os.getpid():
            self._begin_in_this_process()
        if not at_once and self._monotonic() < self._ends_at:
            return
        with self._lock:
            # Another thread may have done it meanwhile.
            if not at_once and self._monotonic() < self._ends_at:
                return
            tallies = list(self._tallies.values())
            self._begin_window()
        counted = [tally.combined for tally in tallies if tally.combined is not None]
        for position, event in enumerate(counted):
            try:
                self._record(event)
            except OAuthError as error:
                logger.warning("Counted refusals cannot be recorded yet: %s", error.detail)
                self._keep(counted[position:])
                return

    def _begin_in_this_process(self) -> None:
        self._process_id = os.getpid()
        self._lock = threading.Lock()
        self._begin_window()

    def _begin_window(self) -> None:
        self._ends_at = self._monotonic() + WINDOW_SECONDS
        self._tallies: dict[tuple[object, ...], _Tally] = {}
        self._kinds = {True: 0, False: 0}
        self._single = 0

    def _keep(self, events: Iterable[Refusal]) -> None:
        with self._lock:
            for event in events:
                self._find_tally(event).count(event)

    def _is_recorded_alone(self, event: Refusal) -> bool:
        tally = self._find_tally(event)
        tally.seen += 1
        proven = _is_proven(event)
        if (
            tally.network is None
            or tally.seen > SINGLE_OF_A_KIND
            or (not proven and self._single >= SINGLE_IN_ALL)
        ):
            tally.count(event)
            return False
        self._single += not proven
        return True

    def _find_tally(self, event: Refusal) -> _Tally:
        proven = _is_proven(event)
        network: str | None = network_of(event.source_address)
        client_id = getattr(event, "client_id", "") if proven else ""
        kind = (type(event), event.reason, network, client_id)
        if kind not in self._tallies:
            if self._kinds[proven] < MAXIMUM_KINDS:
                self._kinds[proven] += 1
            else:
                kind = (type(event), event.reason, None, "")
                network = None
        return self._tallies.setdefault(kind, _Tally(network))


def _is_proven(event: Refusal) -> bool:
    return event.reason not in UNPROVEN and bool(getattr(event, "client_id", ""))
