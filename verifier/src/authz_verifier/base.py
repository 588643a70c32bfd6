"""The state that the verifiers for threads and for asyncio share."""

import logging
import os
import ssl
from collections.abc import Callable
from typing import Unpack
from weakref import WeakSet

import httpx

from authz_verifier.connections import new_client
from authz_verifier.core import Core, LoadKeys, Options, Settings
from authz_verifier.errors import Refusal, unavailable
from authz_verifier.events import EventReceiver
from authz_verifier.fetching import DocumentFetcher, FetchError, StatusListFetcher
from authz_verifier.introspection import Introspection
from authz_verifier.key_cache import KeyCache, Snapshot
from authz_verifier.metrics import CLOCK_OFFSET, REQUESTS, UNKNOWN_KEYS, Counters, Sample, render
from authz_verifier.responses import Response, Responses
from authz_verifier.status_cache import StatusCache
from authz_verifier.tokens import Token

logger = logging.getLogger(__name__)

#: A fetch reads three documents at most.
_DOCUMENTS = 3
#: The verifiers of this process, for forks.
_verifiers: "WeakSet[VerifierBase]" = WeakSet()


class VerifierBase:
    """The state that both verifiers have."""

    def __init__(
        self,
        issuer: str,
        audience: str,
        *,
        ssl_context: ssl.SSLContext | None = None,
        **settings: Unpack[Options],
    ) -> None:
        self.settings = Settings(issuer=issuer, audience=audience, **settings)
        seconds = self.settings.timeout_seconds
        self._counters = Counters()
        self._fetcher = fetcher = DocumentFetcher(
            issuer,
            seconds,
            ssl_context,
            wants_keys=self.settings.mode != "introspection",
            clock=self.settings.clock,
        )
        self._keys = KeyCache(
            fetcher.fetch, _DOCUMENTS * seconds, self.settings.keys_kept_seconds, self._counters
        )
        self._statuses = StatusCache(
            fetch=StatusListFetcher(seconds, ssl_context).fetch,
            keys=self._keys,
            issuer=issuer,
            algorithms=frozenset(self.settings.algorithms),
            flight_seconds=(_DOCUMENTS + 1) * seconds,
            kept_seconds=self.settings.status_kept_seconds,
            clock=self.settings.clock,
            counters=self._counters,
        )
        self._core = Core(self.settings, self._keys, self._statuses)
        self._events = EventReceiver(
            issuer=issuer,
            audience=audience,
            algorithms=frozenset(self.settings.algorithms),
            keys=self._keys,
            want_keys=fetcher.want_keys,
            drop=self.drop_answers,
            renew_keys=self._keys.renew,
            clock=self.settings.clock,
            counters=self._counters,
        )
        self._introspection = Introspection(
            self.settings.client_id,
            self.settings.client_secret,
            self.settings.introspection_cache_seconds,
            self.settings.clock,
            self._counters,
            longest=self.settings.maximum_introspected_characters,
        )
        self._ssl_context = ssl_context
        self.scopes: set[str] = set()
        self._process_id = os.getpid()
        self._restarts: list[Callable[[], None]] = []
        _verifiers.add(self)

    def metrics(self) -> list[Sample]:
        """Return the metrics of this process; the README describes them."""
        samples = self._counters.samples() + self._keys.samples()
        if self.settings.mode in ("introspection", "hybrid"):
            samples += self._introspection.samples()
        if (offset := self._fetcher.clock_offset_seconds) is not None:
            samples.append(Sample(CLOCK_OFFSET, "gauge", {}, round(offset, 3)))
        return samples

    def metrics_text(self) -> str:
        """Return the metrics of this process in Prometheus' text format."""
        return render(self.metrics())

    def count(self, *key: str) -> None:
        """Add one to a counter: the name of its metric, and the values of its labels."""
        self._counters.add(*key)

    def on_fork(self, restart: Callable[[], None]) -> None:
        """Call a function in each process that is forked from now."""
        self._restarts.append(restart)

    def forget_threads(self) -> None:
        """Forget what threads of the parent held or had begun, after a fork."""
        self._process_id = os.getpid()
        self._counters.renew_lock()
        for part in (self._keys, self._statuses, self._introspection, self._events, self._core):
            part.forget_threads()
        for restart in self._restarts:
            restart()

    def _notice_fork(self) -> None:
        # uWSGI forks without Python's hooks.
        if os.getpid() != self._process_id:
            self.forget_threads()

    @property
    def responses(self) -> Responses:
        """Renders refusals and the metadata of the API."""
        return self._core.responses

    def respond(self, refusal: Refusal) -> Response:
        """Return the response for a refusal."""
        return self._core.responses.refuse(refusal)

    def metadata_response(self, path: str) -> Response | None:
        """Return the protected resource metadata (RFC 9728) if `path` is its path, or None."""
        if path != self.responses.resource_metadata_path or not path:
            return None
        return self.responses.metadata_response(sorted(self.scopes))

    def drop_caches(self, token: str | None = None) -> None:
        """Forget introspection responses and status lists, and fetch the keys at the next request.

        Args:
            token: forget the response of this token alone, and keep the lists and the keys.
        """
        if token is not None:
            self._introspection.drop(token)
            return
        self.drop_answers()
        self._keys.expire()

    def drop_answers(self) -> None:
        """Forget introspection responses and status lists."""
        self._introspection.drop(None)
        self._statuses.drop()

    @property
    def events(self) -> EventReceiver:
        """Receives security events, which drop the caches."""
        return self._events

    def receive_event(self, body: bytes, content_type: str) -> Response:
        """Return the response to a pushed security event (RFC 8935); it may wait for the keys.

        Args:
            body: the body of the POST.
            content_type: its type.
        """
        return self._events.receive(body, content_type)

    def new_client(self, timeout: float | httpx.Timeout) -> httpx.Client:
        """Return a client for requests to the authorization server."""
        return new_client(timeout, self._ssl_context)

    def event_headers(self) -> dict[str, str]:
        """Return the headers of a poll for security events."""
        return self._introspection.headers | {"Content-Type": "application/json"}

    def event_endpoint(self) -> str:
        """Return the address at which events are polled; it may wait for the metadata.

        Raises:
            FetchError: the metadata cannot be fetched, or names no address.
        """
        snapshot = self._keys.require()
        if snapshot is None or not snapshot.metadata.security_event_endpoint:
            raise FetchError("the metadata names no security_event_endpoint")
        return snapshot.metadata.security_event_endpoint

    def _accept(self, end: StopIteration) -> Token:
        token: Token = end.value
        self._counters.add(REQUESTS, "accepted")
        return token

    def _note(self, refusal: Refusal) -> None:
        self._counters.add(REQUESTS, refusal.error or "no_token")
        logger.info(
            "A request is refused: %d %s: %s", refusal.status, refusal.error, refusal.reason
        )

    def _note_load(self, step: LoadKeys) -> None:
        if step.newer_than is not None:
            self._counters.add(UNKNOWN_KEYS)

    def _loaded(self, newer_than: Snapshot | None) -> Snapshot:
        snapshot = self._keys.snapshot() or newer_than
        if snapshot is None:
            raise unavailable("the authorization server's keys are not at hand")
        return snapshot


def _forget_threads() -> None:
    for verifier in list(_verifiers):
        verifier.forget_threads()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_threads)
