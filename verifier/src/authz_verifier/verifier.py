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

from authz_verifier.base import VerifierBase
from authz_verifier.core import Introspect, LoadKeys, LoadStatusList, Options
from authz_verifier.errors import Refusal, unavailable
from authz_verifier.fetching import FetchError, read_bounded, require_bounded, require_identity
from authz_verifier.key_cache import Flight, Snapshot
from authz_verifier.requests import Request
from authz_verifier.status_lists import StatusList
from authz_verifier.tokens import Token

_POLL_SECONDS = 0.01
#: A list that was under way while lists were dropped is fetched once more.
_STATUS_FETCHES = 2
#: The server closed a kept connection just as it was used: the request is sent once more.
_CLOSED = (httpx.ReadError, httpx.WriteError, httpx.RemoteProtocolError)


class Verifier(VerifierBase):
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
        self._notice_fork()
        steps = self._core.decide(request, scopes)
        result: object = None
        try:
            while True:
                try:
                    step = steps.send(result)
                except StopIteration as end:
                    return self._accept(end)
                result = self._perform(step)
        except Refusal as refusal:
            self._note(refusal)
            raise

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
            self._note_load(step)
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
        ends_at = time.monotonic() + self.settings.timeout_seconds
        try:
            try:
                status, data = self._post(step.endpoint, body, ends_at)
            except _CLOSED:
                status, data = self._post(step.endpoint, body, ends_at)
        except (httpx.HTTPError, FetchError, OSError) as error:
            raise introspection.fail(_reason(error)) from None
        return introspection.read(step.token, status, data, generation)

    def _post(self, endpoint: str, body: bytes, ends_at: float) -> tuple[int, bytes]:
        headers, left = self._introspection.headers, ends_at - time.monotonic()
        with self._connection().stream(
            "POST", endpoint, content=body, headers=headers, timeout=left
        ) as response:
            return response.status_code, read_bounded(response)

    def _connection(self) -> httpx.Client:
        # A connection shared with a forked process would mix up responses.
        with self._client_lock:
            if self._client is None or self._client[0] != os.getpid():
                client = self.new_client(self.settings.timeout_seconds)
                self._client = (os.getpid(), client)
            return self._client[1]


class AsyncVerifier(VerifierBase):
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
        self._notice_fork()
        steps = self._core.decide(request, scopes)
        result: object = None
        try:
            while True:
                try:
                    step = steps.send(result)
                except StopIteration as end:
                    return self._accept(end)
                result = await self._perform(step)
        except Refusal as refusal:
            self._note(refusal)
            raise

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
            self._note_load(step)
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
        try:
            async with asyncio.timeout(self.settings.timeout_seconds):
                try:
                    status, data = await self._post(step.endpoint, body)
                except _CLOSED:
                    status, data = await self._post(step.endpoint, body)
        except (httpx.HTTPError, FetchError, OSError) as error:
            raise introspection.fail(_reason(error)) from None
        return introspection.read(step.token, status, data, generation)

    async def _post(self, endpoint: str, body: bytes) -> tuple[int, bytes]:
        data = bytearray()
        async with self._connection().stream(
            "POST", endpoint, content=body, headers=self._introspection.headers
        ) as response:
            require_identity(response)
            async for chunk in response.aiter_bytes():
                data += chunk
                require_bounded(data)
        return response.status_code, bytes(data)

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


def _reason(error: Exception) -> str:
    return str(error) if isinstance(error, FetchError) else type(error).__name__
