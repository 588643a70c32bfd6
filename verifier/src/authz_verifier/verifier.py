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

from authz_verifier.core import Core, Introspect, LoadKeys, Options, Settings
from authz_verifier.errors import Refusal, unavailable
from authz_verifier.fetching import (
    DocumentFetcher,
    FetchError,
    check_bounds,
    read_bounded,
)
from authz_verifier.introspection import Introspection
from authz_verifier.key_cache import Flight, KeyCache, Snapshot
from authz_verifier.requests import Request
from authz_verifier.responses import Response, Responses
from authz_verifier.tokens import Token

#: A fetch reads three documents at most.
_DOCUMENTS = 3
_POLL_SECONDS = 0.01


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
        self._core = Core(self.settings, self._keys)
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
        """Forget introspection responses, and fetch the keys again at the next request.

        Args:
            token: forget the response of this token alone, and keep the keys.
        """
        self._introspection.drop(token)
        if token is None:
            self._keys.expire()

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

    def _perform(self, step: LoadKeys | Introspect) -> Snapshot | Mapping[str, Any]:
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

    async def _perform(self, step: LoadKeys | Introspect) -> Snapshot | Mapping[str, Any]:
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
                async for chunk in response.aiter_bytes(65_536):
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
