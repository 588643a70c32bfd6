"""Poll security events (RFC 8936) in a thread, for a verifier of either kind."""

import json
import logging
import threading
import time
from math import inf
from typing import Any, Self

import httpx

from authz_verifier.errors import ConfigurationError
from authz_verifier.events import EventError, EventUnavailableError
from authz_verifier.fetching import FetchError, read_bounded
from authz_verifier.metrics import POLLS
from authz_verifier.strict_json import parse_object
from authz_verifier.verifier import AsyncVerifier, Verifier

logger = logging.getLogger(__name__)

MAXIMUM_EVENTS = 100
#: The longest time that a server holds a poll without events.
LONGEST_POLL_SECONDS = 70.0
FIRST_PAUSE_SECONDS = 1.0
LONGEST_PAUSE_SECONDS = 30.0
#: How long events are left to other processes while further ones wait behind them. They may have
#: acknowledged events that this one has not polled for longer.
FULL_PAGE_SECONDS = 1.0
#: The pause after a response without a new event.
_IDLE_SECONDS = 0.25


class EventPoller:
    """Fetches the events of an API and drops its verifier's caches. A context manager.

    Args:
        verifier: whose caches are dropped; its `client_id` and `client_secret` are used.
        url: where to poll; empty: `security_event_endpoint` of the issuer's metadata.
        acknowledge_after_seconds: how long an event is left to the other processes of the API,
            which poll the same stream. An acknowledged event is not sent again. While more events
            wait than a response has, it is a second at most, and each response drops the caches;
            so does the first response, and the first one after a failure or a pause.

    Attributes:
        failures: the number of polls that failed in a row.
    """

    def __init__(
        self,
        verifier: Verifier | AsyncVerifier,
        url: str = "",
        *,
        acknowledge_after_seconds: float = 10.0,
    ) -> None:
        settings = verifier.settings
        if not (settings.client_id and settings.client_secret):
            raise ConfigurationError("a poller needs client_id and client_secret")
        self._verifier = verifier
        self._url = url
        self._acknowledge_after_seconds = acknowledge_after_seconds
        #: When each event was taken that is not acknowledged yet.
        self._taken: dict[str, float] = {}
        #: The events that could not be verified; another process may acknowledge them.
        self._unverified: set[str] = set()
        #: When the last poll succeeded; -inf if none did, or one failed since.
        self._polled_at = -inf
        self._errors: dict[str, dict[str, str]] = {}
        self._has_more = False
        self._stopped = threading.Event()
        self.failures = 0

    def start(self) -> Self:
        """Start polling; a process that is forked later polls too."""
        self._verifier.on_fork(self._restart)
        self._start_thread()
        return self

    def stop(self) -> None:
        """Stop after the present poll, without waiting for it."""
        self._stopped.set()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _start_thread(self) -> None:
        timeout = httpx.Timeout(self._verifier.settings.timeout_seconds, read=LONGEST_POLL_SECONDS)
        # Made by the caller: a process that is forked while a thread reads the certificates of
        # the authorities inherits a lock of OpenSSL that is never released.
        client = self._verifier.new_client(timeout)
        name = "authz-verifier events"
        threading.Thread(target=self._run, args=(client,), name=name, daemon=True).start()

    def _restart(self) -> None:
        """Poll in a process that was forked: the thread is in the parent."""
        if not self._stopped.is_set():
            self._stopped = threading.Event()
            self._start_thread()

    def _run(self, client: httpx.Client) -> None:
        with client:
            while not self._stopped.is_set():
                pause = self._attempt(client)
                if pause:
                    self._stopped.wait(pause)

    def _attempt(self, client: httpx.Client) -> float:
        """Poll once; return the seconds to wait before the next poll."""
        try:
            received = self.poll(client)
        except Exception as error:  # noqa: BLE001 - polling never ends
            self._verifier.count(POLLS, "failure")
            self.failures += 1
            if self.failures == 1:
                reason = str(error) or type(error).__name__
                logger.warning("Security events cannot be polled: %s", reason)
            pause: float = FIRST_PAUSE_SECONDS * 2 ** min(self.failures - 1, 10)
            return min(pause, LONGEST_PAUSE_SECONDS)
        self._verifier.count(POLLS, "success")
        if self.failures:
            logger.info("Security events are polled again.")
            self.failures = 0
        return 0.0 if received else _IDLE_SECONDS

    def poll(self, client: httpx.Client) -> int:
        """Poll once; return the number of events that were taken or refused.

        An event that cannot be verified is not counted, as it comes again at once.

        Raises:
            FetchError: the response is not one of RFC 8936.
            httpx.HTTPError: there is none.
            ValueError: it is malformed.
        """
        is_late = time.monotonic() - self._polled_at > FULL_PAGE_SECONDS
        self._polled_at = -inf
        request = self._request() | {"returnImmediately": is_late}
        headers = {**self._verifier.event_headers(), "Accept-Encoding": "identity"}
        if self._errors:
            headers["Content-Language"] = "en"
        url = self._url or self._verifier.event_endpoint()
        content = json.dumps(request).encode()
        with client.stream("POST", url, content=content, headers=headers) as response:
            if response.status_code != httpx.codes.OK:
                raise FetchError(f"status {response.status_code}")
            document = parse_object(read_bounded(response))
        sets = document.get("sets")
        if not isinstance(sets, dict):
            raise FetchError("the response has no sets")
        self._polled_at = time.monotonic()
        self._has_more = document.get("moreAvailable") is True
        if is_late or not self._unverified <= sets.keys():
            # Another process may have acknowledged an event that this one did not take.
            self._verifier.drop_caches()
        elif self._has_more:
            # One that is not in this response may have ended what is cached.
            self._verifier.drop_answers()
        return self._take_all(sets, request.get("ack", []))

    def _request(self) -> dict[str, Any]:
        request: dict[str, Any] = {"maxEvents": MAXIMUM_EVENTS}
        left_seconds = self._acknowledge_after_seconds
        if self._has_more:
            left_seconds = min(left_seconds, FULL_PAGE_SECONDS)
        until = time.monotonic() - left_seconds
        acknowledged = [jti for jti, taken_at in self._taken.items() if taken_at <= until]
        if acknowledged:
            request["ack"] = acknowledged
        if self._errors:
            request["setErrs"] = self._errors
        return request

    def _take_all(self, sets: dict[str, Any], acknowledged: list[str]) -> int:
        self._errors = {}
        self._unverified = set()
        for jti in acknowledged:
            del self._taken[jti]
        new = [jti for jti in sets if jti not in self._taken and jti not in acknowledged]
        return sum(self._take(jti, sets[jti]) for jti in new)

    def _take(self, jti: str, token: object) -> bool:
        """Take an event; return False if it cannot be verified at present."""
        try:
            self._verifier.events.take(token if isinstance(token, str) else "")
        except EventError as error:
            logger.warning("A security event is refused: %s", error)
            self._errors[jti] = {"err": error.code, "description": error.description}
        except EventUnavailableError:
            logger.warning("A security event cannot be verified: there is no key.")
            self._unverified.add(jti)
            return False
        else:
            self._taken[jti] = time.monotonic()
        return True
