"""Introspection (RFC 7662) without I/O: the request, the response, the cache, the breaker."""

import hashlib
import logging
import threading
import time
from base64 import b64encode
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import quote_plus, urlencode

from authz_verifier.errors import Refusal, invalid_token, unavailable
from authz_verifier.metrics import BREAKER_OPEN, INTROSPECTIONS, Counters, Sample
from authz_verifier.strict_json import parse_object

logger = logging.getLogger(__name__)

MAXIMUM_CACHED_TOKENS = 10_000
#: The default of ``server.maximum_value_bytes`` of authz-server.
MAXIMUM_INTROSPECTED_CHARACTERS = 8_192
#: Failures in a row after which the server is left alone, and for how long; the time doubles.
BREAKER_FAILURES = 5
MINIMUM_OPEN_SECONDS = 1.0
MAXIMUM_OPEN_SECONDS = 30.0
_OK = 200
#: The statuses and the errors by which a server refuses one token. A proxy in front gives the same
#: statuses, and ``invalid_request`` may concern every request: without such an error they are
#: failures. A status of 401 concerns the API (RFC 7662, 2.3).
_STATUSES_OF_TOKEN = frozenset({400, 413, 414, 422, 431})
_ERRORS_OF_TOKEN = ("invalid_token", "unsupported_token_type")


class Introspection:
    """Prepares introspection requests and judges the responses. Safe for threads.

    Args:
        client_id: the API's credentials.
        client_secret: likewise.
        cache_seconds: how long a response is used again; never beyond the token's expiry or the
            ``max_age`` of the response.
        clock: returns seconds since 1970.
        counters: count the introspections.
        longest: the longest token that the server introspects, percent-encoded.
    """

    def __init__(  # noqa: PLR0913 - its parts
        self,
        client_id: str,
        client_secret: str,
        cache_seconds: float,
        clock: Callable[[], float],
        counters: Counters,
        *,
        longest: int = MAXIMUM_INTROSPECTED_CHARACTERS,
    ) -> None:
        self._counters = counters
        self._longest = longest
        # RFC 6749, 2.3.1: both are form-encoded before they are joined.
        pair = f"{quote_plus(client_id)}:{quote_plus(client_secret)}"
        self.headers = {
            "Authorization": f"Basic {b64encode(pair.encode()).decode()}",
            "Content-Type": "application/x-www-form-urlencoded",
            "Accept": "application/json",
            "Accept-Encoding": "identity",
            "User-Agent": "authz-verifier",
        }
        self._cache_seconds = cache_seconds
        self._clock = clock
        self._cached: OrderedDict[bytes, tuple[float, Mapping[str, Any]]] = OrderedDict()
        self._lock = threading.Lock()
        self._generation = 0
        self._failures = 0
        self._closed_at = 0.0
        self._open_seconds = MINIMUM_OPEN_SECONDS

    @property
    def generation(self) -> int:
        """A number that changes when responses are dropped."""
        return self._generation

    def find(self, token: str) -> Mapping[str, Any] | None:
        """Return a cached response, or None."""
        if not self._cache_seconds:
            return None
        with self._lock:
            until, members = self._cached.get(_key(token), (0.0, {}))
        if time.monotonic() >= until:
            return None
        self._counters.add(INTROSPECTIONS, "cached")
        return members

    def drop(self, token: str | None = None) -> None:
        """Drop the cached response of a token, or all of them."""
        with self._lock:
            self._generation += 1
            if token is None:
                self._cached.clear()
            else:
                self._cached.pop(_key(token), None)

    def body(self, token: str) -> bytes:
        """Return the body of the request (RFC 7662, 2.1).

        Raises:
            Refusal: the token is longer than any that the server introspects (401), or the
                breaker is open (503).
        """
        if len(quote_plus(token)) > self._longest:
            # The server would refuse it, so that a caller could open the breaker.
            self._counters.add(INTROSPECTIONS, "refused")
            raise invalid_token("too long to introspect")
        with self._lock:
            now = time.monotonic()
            if now < self._closed_at:
                self._counters.add(INTROSPECTIONS, "skipped")
                raise unavailable("introspection is failing", max(1, round(self._closed_at - now)))
            if self._failures >= BREAKER_FAILURES:
                # One request tries whether the server is back; the others wait for its outcome.
                self._closed_at = now + self._open_seconds
        return urlencode({"token": token, "token_type_hint": "access_token"}).encode()

    def read(self, token: str, status: int, body: bytes, generation: int) -> Mapping[str, Any]:
        """Return the members of a response.

        Args:
            token: the token.
            status: the status of the response.
            body: its body.
            generation: `generation` when the request was sent. A response that was under way
                while responses were dropped is not cached.

        Raises:
            Refusal: it is not an introspection response (503), or it refuses this token (401).
                The latter counts neither as a success nor as a failure.
        """
        if status in _STATUSES_OF_TOKEN and _is_about_the_token(body):
            self._counters.add(INTROSPECTIONS, "refused")
            raise invalid_token("refused by the authorization server")
        try:
            members = _parse_response(status, body)
        except ValueError as error:
            raise self.fail(str(error)) from None
        self._succeed(token, members, generation)
        self._counters.add(INTROSPECTIONS, "success")
        return members

    def samples(self) -> list[Sample]:
        """Return whether the breaker is open."""
        is_open = time.monotonic() < self._closed_at
        return [Sample(BREAKER_OPEN, "gauge", {}, int(is_open))]

    def forget_threads(self) -> None:
        """Replace the lock after a fork: a thread of the parent may have held it."""
        self._lock = threading.Lock()

    def fail(self, reason: str) -> Refusal:
        """Count a failure, and log the first one; return the refusal of the request (503)."""
        self._counters.add(INTROSPECTIONS, "failure")
        with self._lock:
            if not self._failures:
                logger.warning("Tokens cannot be introspected: %s", reason)
            self._failures += 1
            if self._failures >= BREAKER_FAILURES:
                self._closed_at = time.monotonic() + self._open_seconds
                self._open_seconds = min(2 * self._open_seconds, MAXIMUM_OPEN_SECONDS)
        return unavailable(f"introspection: {reason}")

    def _succeed(self, token: str, members: Mapping[str, Any], generation: int) -> None:
        seconds = self._cache_seconds
        expires = members.get("exp")
        if isinstance(expires, int | float):
            seconds = min(seconds, expires - self._clock())
        longest = members.get("max_age")
        if isinstance(longest, int | float):
            # The server's bound, by the risk of the token's scopes.
            seconds = min(seconds, longest)
        with self._lock:
            if self._failures:
                logger.info("Tokens are introspected again.")
            self._failures, self._closed_at = 0, 0.0
            self._open_seconds = MINIMUM_OPEN_SECONDS
            if seconds > 0 and generation == self._generation:
                self._cached[_key(token)] = (time.monotonic() + seconds, members)
                if len(self._cached) > MAXIMUM_CACHED_TOKENS:
                    self._cached.popitem(last=False)


def _parse_response(status: int, body: bytes) -> dict[str, Any]:
    if status != _OK:
        raise ValueError(f"status {status}")
    members = parse_object(body)
    active = members.get("active")
    # Not by comparison: 1 equals True.
    if active is not True and active is not False:
        raise ValueError("no member active")
    return members


def _is_about_the_token(body: bytes) -> bool:
    """Return whether an error concerns the presented token alone (RFC 6750, 3.1; RFC 7009, 2.2)."""
    try:
        return parse_object(body).get("error") in _ERRORS_OF_TOKEN
    except ValueError:
        return False


def _key(token: str) -> bytes:
    return hashlib.sha256(token.encode()).digest()
