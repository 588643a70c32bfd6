"""Record refusals one by one up to a limit, then as counts.

Without the limit one host could fill the disk with records until the server stops.
"""

import logging
import os
import threading
import time
from collections.abc import Callable, Iterable

import msgspec

from authz_server.audit.events import (
    ClientRefused,
    EventPollRefused,
    IntrospectionRefused,
    RegistrationRefused,
    RequestRefused,
    RevocationRefused,
    TokenRefused,
)
from authz_server.audit.notifier import Notify
from authz_server.audit.operator_events import OperatorSignInRefused
from authz_server.clients.authentication.throttle import network_of
from authz_server.errors import OAuthError
from authz_server.logs import cut_text

logger = logging.getLogger(__name__)

Refusal = (
    TokenRefused
    | IntrospectionRefused
    | RevocationRefused
    | RegistrationRefused
    | EventPollRefused
    | RequestRefused
    | OperatorSignInRefused
)

WINDOW_SECONDS = 60.0
#: Refusals of one kind recorded one by one within a window.
SINGLE_OF_A_KIND = 10
#: Refusals of unauthenticated senders recorded one by one within a window, in all.
SINGLE_IN_ALL = 300
#: Kinds counted apart, for authenticated and for unauthenticated senders each.
MAXIMUM_KINDS = 500
#: Bytes in JSON of each value that a sender can make long: with the other fields, a record has
#: less than ``MAXIMUM_LINE_BYTES`` of ``authz_server.logs``.
MAXIMUM_VALUE_BYTES = 3_000
#: Errors of clients that are not authenticated; of these reasons, the credentials were right.
_UNPROVEN_ERRORS = frozenset({"invalid_client", "slow_down"})
_PROVEN = frozenset(
    {
        "assertion_replayed",
        "certificate_expired",
        "client_disabled",
        "client_expired",
        "client_not_yet_valid",
        "method_not_registered",
        "network_not_allowed",
        "secret_expired",
        "token_budget_spent",
    }
)
#: Reasons of other errors, for which the client id is unproven.
_UNPROVEN = frozenset(
    {
        "dpop_nonce_required",
        "dpop_proof_invalid",
        "dpop_proof_outside_window",
        "registration_token_invalid",
        "several_authentication_methods",
        "temporarily_unavailable",
    }
)


class _Tally:
    """The refusals of one kind within a window.

    Args:
        network: the senders' network; None for all kinds beyond the maximum together.
    """

    __slots__ = ("combined", "network", "seen")

    def __init__(self, network: str | None) -> None:
        self.network = network
        self.seen = 0
        self.combined: Refusal | None = None

    def count(self, event: Refusal) -> None:
        """Add a refusal to the combined record."""
        before = self.combined
        if before is None:
            self.combined = msgspec.structs.replace(
                event, request_id="", message_id="", source_address=self.network or ""
            )
            return
        # A value that differs between them is left out.
        different = {
            field: ""
            for field in ("client_id", "detail", "operator", "path")
            if getattr(before, field, "") != getattr(event, field, "")
        }
        count = before.count + event.count
        self.combined = msgspec.structs.replace(before, count=count, **different)


class RefusalRecorder:
    """Records refusals in bounded memory and at a bounded rate.

    Refusals with the same event, network and reason are of one kind; for an authenticated client,
    the client is part of the kind. The first refusals of a kind in each minute are recorded one by
    one. Further ones are counted, and recorded together at the end of the minute.
    ``docs/events.md`` describes both.

    A recorder is thread-safe. A forked process starts with empty counts.

    Args:
        notify: records one event; raises OAuthError if it cannot.
        monotonic: returns monotonic seconds.
    """

    def __init__(self, notify: Notify, *, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._notify = notify
        self._monotonic = monotonic
        self._reset_after_fork()

    def record(self, event: Refusal) -> None:
        """Record a refusal now, or count it.

        Raises:
            OAuthError: the refusal was to be recorded now and could not be.
        """
        self.flush()
        event = _shortened(event)
        with self._lock:
            alone = self._is_recorded_alone(event)
        if alone:
            self._notify(event)

    def flush(self, *, at_once: bool = False) -> None:
        """Record the counts of a minute that has ended.

        Counts that cannot be recorded are logged as a warning and kept for the next minute.

        Args:
            at_once: record before the end of the minute, because the process stops.
        """
        if self._process_id != os.getpid():
            self._reset_after_fork()
        if not at_once and self._monotonic() < self._ends_at:
            return
        with self._lock:
            # Another thread may have flushed meanwhile.
            if not at_once and self._monotonic() < self._ends_at:
                return
            tallies = list(self._tallies.values())
            self._start_window()
        counted = [tally.combined for tally in tallies if tally.combined is not None]
        for position, event in enumerate(counted):
            try:
                self._notify(event)
            except OAuthError as error:
                logger.warning("counted refusals cannot be recorded yet: %s", error.detail)
                self._keep(counted[position:])
                return

    def _reset_after_fork(self) -> None:
        self._process_id = os.getpid()
        self._lock = threading.Lock()
        self._start_window()

    def _start_window(self) -> None:
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


def _shortened(event: Refusal) -> Refusal:
    """Return the refusal with the beginning of each value that is too long."""
    values = {field: getattr(event, field, "") for field in ("detail", "path")}
    shortened = {field: cut_text(value, MAXIMUM_VALUE_BYTES) for field, value in values.items()}
    if shortened == values:
        return event
    different = {field: value for field, value in shortened.items() if value != values[field]}
    return msgspec.structs.replace(event, **different)


def _is_proven(event: Refusal) -> bool:
    if not isinstance(event, ClientRefused) or not event.client_id or event.reason in _UNPROVEN:
        return False
    return event.error not in _UNPROVEN_ERRORS or event.reason in _PROVEN
