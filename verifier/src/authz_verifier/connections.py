"""HTTP connections whose exchanges have one time limit each, however slowly a server sends."""

import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import partial
from math import inf
from typing import Any, Generic, TypeVar
from urllib.request import getproxies, proxy_bypass

import httpcore
import httpx

#: The exchange failed.
FAILURES = (
    httpcore.TimeoutException,
    httpcore.NetworkError,
    httpcore.ProtocolError,
    httpcore.ProxyError,
    httpcore.UnsupportedProtocol,
)
#: As the client of httpx limits its connections.
_CONNECTIONS, _KEPT_CONNECTIONS, _KEPT_SECONDS = 100, 20, 5.0
_Pool = TypeVar("_Pool")
#: When the exchange of this thread has to end, by the monotonic clock.
_ends_at: ContextVar[float] = ContextVar("authz_verifier_ends_at")


def new_client(timeout: float | httpx.Timeout, ssl_context: ssl.SSLContext | None) -> httpx.Client:
    """Return a client that follows no redirects and uses the proxies of the environment.

    httpx limits the time of each read, so that a server which sends a byte now and then is read
    for ever. With this client, the time limit for reads (in seconds) is that of the whole exchange:
    connecting, sending, the headers and the body of the response. The time in which the system
    resolves the name of a host counts, but only the resolver's own limits end it.

    Args:
        timeout: the time limits; a limit of None for reads: no limit of the whole exchange.
        ssl_context: for https; None: the certificate authorities of httpx.
    """
    transport = _Transport(ssl_context or httpx.create_ssl_context())
    return httpx.Client(timeout=timeout, transport=transport, follow_redirects=False)


class _Transport(httpx.BaseTransport):
    """Sends requests through pools of connections."""

    def __init__(self, ssl_context: ssl.SSLContext) -> None:
        self._pools = Pools(partial(new_pool, ssl_context=ssl_context))

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """Return the response; its body is read by the caller, in the same thread."""
        seconds = request.extensions["timeout"]["read"]
        end_exchange_at(inf if seconds is None else time.monotonic() + seconds)
        with _errors_of_httpx():
            answer = self._pools.find(request.url).handle_request(
                httpcore.Request(
                    request.method,
                    to_httpcore(request.url),
                    headers=request.headers.raw,
                    content=request.stream,
                    extensions=request.extensions,
                )
            )
        return httpx.Response(
            answer.status,
            headers=answer.headers,
            stream=_Body(answer),
            extensions=answer.extensions,
        )

    def close(self) -> None:
        """Close the connections."""
        for pool in self._pools.made():
            pool.close()


class Pools(Generic[_Pool]):
    """Pools of connections, one for each proxy of the environment. Safe for threads.

    Args:
        make: makes a pool for a proxy; for an empty one, without a proxy.
    """

    def __init__(self, make: Callable[[str], _Pool]) -> None:
        self._make = make
        self._proxies = getproxies()
        self._pools: dict[str, _Pool] = {}
        self._lock = threading.Lock()

    def find(self, url: httpx.URL) -> _Pool:
        """Return the pool for requests to an address."""
        proxy = self._proxies.get(url.scheme) or self._proxies.get("all", "")
        if proxy and proxy_bypass(url.host):
            proxy = ""
        with self._lock:
            if proxy not in self._pools:
                self._pools[proxy] = self._make(proxy)
            return self._pools[proxy]

    def made(self) -> list[_Pool]:
        """Return the pools that there are, to close them."""
        return list(self._pools.values())


class _Body(httpx.SyncByteStream):
    def __init__(self, answer: httpcore.Response) -> None:
        self._answer = answer

    def __iter__(self) -> Iterator[bytes]:
        with _errors_of_httpx():
            yield from self._answer.iter_stream()

    def close(self) -> None:
        self._answer.close()


class _Backend(httpcore.NetworkBackend):
    """Connects within the time that is left, which the addresses of a host share."""

    def __init__(self) -> None:
        self._backend = httpcore.SyncBackend()

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.NetworkStream:
        try:
            found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError) as error:
            # UnicodeError: a label of the name is empty or longer than 63 characters.
            raise httpcore.ConnectError(str(error)) from error
        addresses = list(dict.fromkeys(str(place[0]) for *_, place in found))
        while True:
            address = addresses.pop(0)
            left = _left(timeout, httpcore.ConnectTimeout)
            seconds = None if left is None else left / (len(addresses) + 1)
            try:
                stream = self._backend.connect_tcp(
                    address, port, seconds, local_address, socket_options
                )
            except (httpcore.ConnectError, httpcore.ConnectTimeout):
                if not addresses:
                    raise
            else:
                return _Stream(stream)


class _Stream(httpcore.NetworkStream):
    """Reads and writes within the time that is left."""

    def __init__(self, stream: httpcore.NetworkStream) -> None:
        self._stream = stream

    def close(self) -> None:
        self._stream.close()

    def get_extra_info(self, info: str) -> Any:  # noqa: ANN401 - of any type
        return self._stream.get_extra_info(info)

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        return self._stream.read(max_bytes, _left(timeout, httpcore.ReadTimeout))

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self._stream.write(buffer, _left(timeout, httpcore.WriteTimeout))

    def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,
    ) -> httpcore.NetworkStream:
        seconds = _left(timeout, httpcore.ConnectTimeout)
        return _Stream(self._stream.start_tls(ssl_context, server_hostname, seconds))


def new_pool(proxy: str, ssl_context: ssl.SSLContext) -> httpcore.ConnectionPool:
    """Return a pool for threads, whose exchanges end at the time of `end_exchange_at`.

    Args:
        proxy: its address; empty: none.
        ssl_context: for https.
    """
    kinds = httpcore.ConnectionPool, httpcore.HTTPProxy, httpcore.SOCKSProxy
    return _make_pool(kinds, proxy, ssl_context, network_backend=_Backend())


def new_async_pool(proxy: str, ssl_context: ssl.SSLContext) -> httpcore.AsyncConnectionPool:
    """Return a pool for asyncio, likewise; its caller limits the time."""
    kinds = httpcore.AsyncConnectionPool, httpcore.AsyncHTTPProxy, httpcore.AsyncSOCKSProxy
    return _make_pool(kinds, proxy, ssl_context)


def _make_pool(
    kinds: tuple[Callable[..., _Pool], Callable[..., _Pool], Callable[..., _Pool]],
    proxy: str,
    ssl_context: ssl.SSLContext,
    **options: object,
) -> _Pool:
    options |= {
        "ssl_context": ssl_context,
        "max_connections": _CONNECTIONS,
        "max_keepalive_connections": _KEPT_CONNECTIONS,
        "keepalive_expiry": _KEPT_SECONDS,
    }
    direct, forwarding, socks = kinds
    if not proxy:
        return direct(**options)
    parts = httpx.Proxy(proxy if "://" in proxy else f"http://{proxy}")
    make = socks if parts.url.scheme.startswith("socks") else forwarding
    return make(str(parts.url), parts.raw_auth, **options)


def to_httpcore(url: httpx.URL) -> httpcore.URL:
    """Return an address as httpcore takes it."""
    return httpcore.URL(
        scheme=url.raw_scheme, host=url.raw_host, port=url.port, target=url.raw_path
    )


def end_exchange_at(ends_at: float) -> None:
    """Set when the exchange of this thread has to end, by the monotonic clock."""
    _ends_at.set(ends_at)


def _left(timeout: float | None, error: Callable[[str], Exception]) -> float | None:
    """Return the smaller of a time limit and the time that is left for the exchange, if any."""
    left = _ends_at.get() - time.monotonic()
    if left <= 0:
        raise error("the exchange takes too long")
    if left == inf:
        return timeout
    return left if timeout is None else min(timeout, left)


@contextmanager
def _errors_of_httpx() -> Iterator[None]:
    """Raise the error of httpx in place of the one of httpcore, which has the same name."""
    try:
        yield
    except FAILURES as error:
        raise getattr(httpx, type(error).__name__)(str(error)) from error
