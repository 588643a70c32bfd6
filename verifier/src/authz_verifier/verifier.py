"""Verifiers: the decision of `core` with its I/O, for threads and for asyncio."""

import asyncio
import os
import ssl
import threading
import time
from collections.abc import Mapping
from typing import Any, Self, Unpack
from weakref import WeakKeyDictionary

import httpcore
import httpx

from authz_verifier.base import VerifierBase
from authz_verifier.connections import FAILURES
from authz_verifier.core import Introspect, LoadKeys, LoadStatusList, Options
from authz_verifier.errors import Refusal, unavailable
from authz_verifier.fetching import FetchError
from authz_verifier.key_cache import Flight, Snapshot
from authz_verifier.posting import AsyncPoster, Poster
from authz_verifier.requests import Request
from authz_verifier.status_lists import StatusList
from authz_verifier.tokens import Token

_POLL_SECONDS = 0.01
#: A list that was under way while lists were dropped is fetched once more.
_STATUS_FETCHES = 2
#: The server closed a kept connection just as it was used: the request is sent once more.
_CLOSED = (httpcore.ReadError, httpcore.WriteError, httpcore.RemoteProtocolError)
#: The server did not answer as it should.
_FAILURES = (*FAILURES, FetchError, httpx.InvalidURL, OSError)


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
        self._poster: tuple[int, Poster] | None = None
        self._poster_lock = threading.Lock()

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
        if self._poster is not None:
            self._poster[1].close()
            self._poster = None

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
            connection = self._connection()
            try:
                status, data = connection.post(step.endpoint, body, ends_at)
            except _CLOSED:
                status, data = connection.post(step.endpoint, body, ends_at)
        except _FAILURES as error:
            raise introspection.fail(_reason(error)) from None
        return introspection.read(step.token, status, data, generation)

    def _connection(self) -> Poster:
        # A connection shared with a forked process would mix up responses.
        with self._poster_lock:
            if self._poster is None or self._poster[0] != os.getpid():
                self._poster = (os.getpid(), Poster(self._introspection.headers, self._ssl_context))
            return self._poster[1]


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
        self._posters: WeakKeyDictionary[asyncio.AbstractEventLoop, AsyncPoster] = (
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
        poster = self._posters.pop(asyncio.get_running_loop(), None)
        if poster is not None:
            await poster.aclose()

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
                connection = self._connection()
                try:
                    status, data = await connection.post(step.endpoint, body)
                except _CLOSED:
                    status, data = await connection.post(step.endpoint, body)
        except _FAILURES as error:
            raise introspection.fail(_reason(error)) from None
        return introspection.read(step.token, status, data, generation)

    def _connection(self) -> AsyncPoster:
        loop = asyncio.get_running_loop()
        poster = self._posters.get(loop)
        if poster is None:
            poster = self._posters[loop] = AsyncPoster(
                self._introspection.headers, self._ssl_context
            )
        return poster


async def _wait(flight: Flight | None) -> None:
    # Fetches run in a thread of their own, which serves every event loop.
    # An asyncio.Event belongs to one of them.
    while flight is not None and not flight.is_over:  # noqa: ASYNC110
        await asyncio.sleep(_POLL_SECONDS)


def _reason(error: Exception) -> str:
    return str(error) if isinstance(error, FetchError) else type(error).__name__
