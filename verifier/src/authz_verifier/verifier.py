"""Verifiers: the decision of `core` with its I/O, for threads and for asyncio."""

import asyncio
import os
import ssl
import threading
import time
from collections.abc import Mapping
from typing import Any, Self, Unpack
from weakref import WeakKeyDictionary

import httpx

from authz_verifier.core import Core, Introspect, LoadKeys, LoadStatusList, Options, Settings
from authz_verifier.errors import Refusal, unavailable
from authz_verifier.events import EventReceiver
from authz_verifier.fetching import (
    DocumentFetcher,
    FetchError,
    StatusListFetcher,
    check_bounds,
    read_bounded,
)
from authz_verifier.introspection import Introspection
from authz_verifier.key_cache import Flight, KeyCache, Snapshot
from authz_verifier.requests import Request
from authz_verifier.responses import Response, Responses
from authz_verifier.status_cache import StatusCache
from authz_verifier.status_lists import StatusList
from authz_verifier.tokens import Token

#: A fetch reads three documents at most.
_DOCUMENTS = 3
_POLL_SECONDS = 0.01
#: A list that was under way while lists were dropped is fetched once more.
_STATUS_FETCHES = 2


class _Base:
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
        fetcher = DocumentFetcher(
            issuer, seconds, ssl_context, wants_keys=self.settings.mode != "introspection"
        )
        self._keys = KeyCache(fetcher.fetch, _DOCUMENTS * seconds, self.settings.keys_kept_seconds)
        self._statuses = StatusCache(
            fetch=StatusListFetcher(seconds, ssl_context).fetch,
            keys=self._keys,
            issuer=issuer,
            algorithms=frozenset(self.settings.algorithms),
            flight_seconds=(_DOCUMENTS + 1) * seconds,
            kept_seconds=self.settings.status_kept_seconds,
            clock=self.settings.clock,
        )
        self._core = Core(self.settings, self._keys, self._statuses)
        self._events = EventReceiver(
            issuer=issuer,
            audience=audience,
            algorithms=frozenset(self.settings.algorithms),
            keys=self._keys,
            want_keys=fetcher.want_keys,
            drop=self.drop_caches,
            clock=self.settings.clock,
        )
        self._introspection = Introspection(
            self.settings.client_id,
            self.settings.client_secret,
            self.settings.introspection_cache_seconds,
            self.settings.clock,
        )
        self._ssl_context = ssl_context
        self.scopes: set[str] = set()

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
        self._introspection.drop(token)
        if token is None:
            self._statuses.drop()
            self._keys.expire()

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

    def new_client(self, timeout: httpx.Timeout) -> httpx.Client:
        """Return a client for requests to the authorization server."""
        return httpx.Client(timeout=timeout, verify=self._ssl_context or True)

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

    def _loaded(self, newer_than: Snapshot | None) -> Snapshot:
        snapshot = self._keys.snapshot() or newer_than
        if snapshot is None:
            raise unavailable("the authorization server's keys are not at hand")
        return snapshot


class Verifier(_Base):
    """Decides about requests in threads. Safe for threads; connections are kept.

    Args:
        issuer: the identifier of the authorization server.
        audience: the identifier of the API.
        ssl_context: for https; None: the certificate authorities of httpx.
        settings: the further attributes of `Settings`.
    """

    def __init__(
        self,
        issuer: str,
        audience: str,
        *,
        ssl_context: ssl.SSLContext | None = None,
        **settings: Unpack[Options],
    ) -> None:
        super().__init__(issuer, audience, ssl_context=ssl_context, **settings)
        self._client: tuple[int, httpx.Client] | None = None
        self._client_lock = threading.Lock()

    def authenticate(self, request: Request, *scopes: str) -> Token:
        """Return the token of a request that may be served.

        Args:
            request: the request.
            scopes: what it needs; all of them.

        Raises:
            Refusal: it must not be served; `respond` returns the response.
        """
        steps = self._core.decide(request, scopes)
        result: object = None
        while True:
            try:
                step = steps.send(result)
            except StopIteration as end:
                return _token_of(end)
            result = self._perform(step)

    def close(self) -> None:
        """Close the connections."""
        if self._client is not None:
            self._client[1].close()
            self._client = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _perform(
        self, step: LoadKeys | Introspect | LoadStatusList
    ) -> Snapshot | Mapping[str, Any] | StatusList:
        if isinstance(step, LoadStatusList):
            for _ in range(_STATUS_FETCHES):
                if (flight := self._statuses.start_fetch(step.uri)) is not None:
                    flight.wait()
                if (found := self._statuses.find(step.uri)) is not None:
                    return found
            return self._statuses.require(step.uri)
        if isinstance(step, LoadKeys):
            if (flight := self._keys.start_fetch(step.newer_than)) is not None:
                flight.wait()
            return self._loaded(step.newer_than)
        return self._introspect(step)

    def _introspect(self, step: Introspect) -> Mapping[str, Any]:
        introspection = self._introspection
        if (cached := introspection.find(step.token)) is not None:
            return cached
        if not step.endpoint:
            raise unavailable("the authorization server has no introspection endpoint")
        generation, body = introspection.generation, introspection.body(step.token)
        try:
            with self._connection().stream(
                "POST", step.endpoint, content=body, headers=introspection.headers
            ) as response:
                data = read_bounded(response, self.settings.timeout_seconds)
        except (httpx.HTTPError, FetchError, OSError) as error:
            raise introspection.fail(type(error).__name__) from None
        return introspection.read(step.token, response.status_code, data, generation)

    def _connection(self) -> httpx.Client:
        # A connection shared with a forked process would mix up responses.
        with self._client_lock:
            if self._client is None or self._client[0] != os.getpid():
                client = httpx.Client(
                    timeout=self.settings.timeout_seconds, verify=self._ssl_context or True
                )
                self._client = (os.getpid(), client)
            return self._client[1]


class AsyncVerifier(_Base):
    """Decides about requests in asyncio; never blocks the event loop.

    Args:
        issuer: the identifier of the authorization server.
        audience: the identifier of the API.
        ssl_context: for https; None: the certificate authorities of httpx.
        settings: the further attributes of `Settings`.
    """

    def __init__(
        self,
        issuer: str,
        audience: str,
        *,
        ssl_context: ssl.SSLContext | None = None,
        **settings: Unpack[Options],
    ) -> None:
        super().__init__(issuer, audience, ssl_context=ssl_context, **settings)
        self._clients: WeakKeyDictionary[asyncio.AbstractEventLoop, httpx.AsyncClient] = (
            WeakKeyDictionary()
        )

    async def authenticate(self, request: Request, *scopes: str) -> Token:
        """Return the token of a request that may be served.

        Args:
            request: the request.
            scopes: what it needs; all of them.

        Raises:
            Refusal: it must not be served; `respond` returns the response.
        """
        steps = self._core.decide(request, scopes)
        result: object = None
        while True:
            try:
                step = steps.send(result)
            except StopIteration as end:
                return _token_of(end)
            result = await self._perform(step)

    async def aclose(self) -> None:
        """Close the connections of the running event loop."""
        client = self._clients.pop(asyncio.get_running_loop(), None)
        if client is not None:
            await client.aclose()

    async def _perform(
        self, step: LoadKeys | Introspect | LoadStatusList
    ) -> Snapshot | Mapping[str, Any] | StatusList:
        if isinstance(step, LoadStatusList):
            for _ in range(_STATUS_FETCHES):
                await _wait(self._statuses.start_fetch(step.uri))
                if (found := self._statuses.find(step.uri)) is not None:
                    return found
            return self._statuses.require(step.uri)
        if isinstance(step, LoadKeys):
            await _wait(self._keys.start_fetch(step.newer_than))
            return self._loaded(step.newer_than)
        return await self._introspect(step)

    async def _introspect(self, step: Introspect) -> Mapping[str, Any]:
        introspection = self._introspection
        if (cached := introspection.find(step.token)) is not None:
            return cached
        if not step.endpoint:
            raise unavailable("the authorization server has no introspection endpoint")
        generation, body = introspection.generation, introspection.body(step.token)
        deadline, data = time.monotonic() + self.settings.timeout_seconds, bytearray()
        try:
            async with self._connection().stream(
                "POST", step.endpoint, content=body, headers=introspection.headers
            ) as response:
                async for chunk in response.aiter_bytes():
                    data += chunk
                    check_bounds(data, deadline)
        except (httpx.HTTPError, FetchError, OSError) as error:
            raise introspection.fail(type(error).__name__) from None
        return introspection.read(step.token, response.status_code, bytes(data), generation)

    def _connection(self) -> httpx.AsyncClient:
        loop = asyncio.get_running_loop()
        client = self._clients.get(loop)
        if client is None:
            client = httpx.AsyncClient(
                timeout=self.settings.timeout_seconds, verify=self._ssl_context or True
            )
            self._clients[loop] = client
        return client


async def _wait(flight: Flight | None) -> None:
    # Fetches run in a thread of their own, which serves every event loop.
    # An asyncio.Event belongs to one of them.
    while flight is not None and not flight.is_over:  # noqa: ASYNC110
        await asyncio.sleep(_POLL_SECONDS)


def _token_of(end: StopIteration) -> Token:
    token: Token = end.value
    return token
