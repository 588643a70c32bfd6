"""POST requests over kept connections of httpcore, with an address and headers that are made once.

A client of httpx makes both for each request, and a jar of cookies, which costs more than the
exchange itself.
"""

import ssl
import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Generic, TypeVar

import httpcore
import httpx

from authz_verifier.connections import Pools, end_exchange_at, new_async_pool, new_pool, to_httpcore
from authz_verifier.fetching import require_bounded, require_identity

_Pool = TypeVar("_Pool")


@dataclass(frozen=True, slots=True)
class _Destination(Generic[_Pool]):
    """The parts that all requests to an address share."""

    address: str
    url: httpcore.URL
    headers: list[tuple[bytes, bytes]]
    pool: _Pool

    def request(self, body: bytes, pool_seconds: float | None = None) -> httpcore.Request:
        length = (b"Content-Length", b"%d" % len(body))
        return httpcore.Request(
            b"POST",
            self.url,
            headers=[*self.headers, length],
            content=body,
            extensions={"timeout": {"pool": pool_seconds}},
        )


class _Poster(Generic[_Pool]):
    def __init__(self, pools: Pools[_Pool], headers: Mapping[str, str]) -> None:
        self._pools = pools
        self._headers = headers
        self._last: _Destination[_Pool] | None = None

    def _destination(self, address: str) -> _Destination[_Pool]:
        last = self._last
        if last is None or last.address != address:
            made = httpx.Request("POST", address, headers=self._headers)
            headers = [each for each in made.headers.raw if each[0].lower() != b"content-length"]
            pool = self._pools.find(made.url)
            self._last = last = _Destination(address, to_httpcore(made.url), headers, pool)
        return last


class Poster(_Poster[httpcore.ConnectionPool]):
    """Posts in threads. Safe for threads.

    Args:
        headers: of each request.
        ssl_context: for https; None: the certificate authorities of httpx.
    """

    def __init__(self, headers: Mapping[str, str], ssl_context: ssl.SSLContext | None) -> None:
        context = ssl_context or httpx.create_ssl_context()
        super().__init__(Pools(partial(new_pool, ssl_context=context)), headers)

    def post(self, address: str, body: bytes, ends_at: float) -> tuple[int, bytes]:
        """Return the status and the body of the response.

        Args:
            address: where to send the request.
            body: its body.
            ends_at: when the exchange has to end, by the monotonic clock.

        Raises:
            FetchError: the body is compressed or too large.
            httpx.InvalidURL: the address is malformed.
            Exception: one of `connections.FAILURES`.
        """
        destination = self._destination(address)
        end_exchange_at(ends_at)
        request = destination.request(body, ends_at - time.monotonic())
        response = destination.pool.handle_request(request)
        data = bytearray()
        try:
            _require_identity(response)
            for chunk in response.iter_stream():
                data += chunk
                require_bounded(data)
        finally:
            response.close()
        return response.status, bytes(data)

    def close(self) -> None:
        """Close the connections."""
        for pool in self._pools.made():
            pool.close()


class AsyncPoster(_Poster[httpcore.AsyncConnectionPool]):
    """Posts in one event loop.

    Args:
        headers: of each request.
        ssl_context: for https; None: the certificate authorities of httpx.
    """

    def __init__(self, headers: Mapping[str, str], ssl_context: ssl.SSLContext | None) -> None:
        context = ssl_context or httpx.create_ssl_context()
        super().__init__(Pools(partial(new_async_pool, ssl_context=context)), headers)

    async def post(self, address: str, body: bytes) -> tuple[int, bytes]:
        """Return the status and the body of the response; the caller limits the time.

        Args:
            address: where to send the request.
            body: its body.

        Raises:
            FetchError: the body is compressed or too large.
            httpx.InvalidURL: the address is malformed.
            Exception: one of `connections.FAILURES`.
        """
        destination = self._destination(address)
        response = await destination.pool.handle_async_request(destination.request(body))
        data = bytearray()
        try:
            _require_identity(response)
            async for chunk in response.aiter_stream():
                data += chunk
                require_bounded(data)
        finally:
            await response.aclose()
        return response.status, bytes(data)

    async def aclose(self) -> None:
        """Close the connections."""
        for pool in self._pools.made():
            await pool.aclose()


def _require_identity(response: httpcore.Response) -> None:
    for name, value in response.headers:
        if name.lower() == b"content-encoding":
            require_identity(value.decode("latin-1"))
