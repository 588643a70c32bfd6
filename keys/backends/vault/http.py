"""HTTP to one address of a Vault: kept connections and a hard end to every exchange.

A read time-out alone does not bound an answer that comes byte by byte, so every single read here
gets only what is left of the exchange's time. The environment's proxies and netrc are not honoured,
and redirects are not followed: a token goes to the configured address or nowhere.
"""

import socket
import ssl
from collections.abc import Mapping
from http.client import HTTPException, HTTPResponse, RemoteDisconnected
from ipaddress import ip_address
from queue import Empty, SimpleQueue
from select import POLLIN, poll
from threading import Thread
from time import monotonic
from typing import Any, NamedTuple
from urllib.parse import urlsplit
from weakref import finalize

from keys.errors import KeysError

#: A key with 300 versions takes 91 KB.
MAXIMUM_REPLY_BYTES = 8 * 1024 * 1024
#: Networks forget connections that rest; OpenBao itself closes them after five minutes.
LONGEST_REST_SECONDS = 30.0
MAXIMUM_RESTING = 32
DEFAULT_PORTS = {"http": 80, "https": 443}
#: The other side gave up a connection that rested, maybe before it saw the request.
GIVEN_UP = (RemoteDisconnected, ConnectionResetError, BrokenPipeError)


class HttpRequest(NamedTuple):
    """A request; ``path`` is encoded, and ``repeatable`` says that doing it twice does no harm."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes
    repeatable: bool


class HttpReply(NamedTuple):
    """A whole answer."""

    status: int
    body: bytes
    is_json: bool


class ExchangeError(Exception):
    """No whole answer came.

    Args:
        message: Why not.
        sent: Whether the other side may have got the request.
    """

    def __init__(self, message: str, *, sent: bool) -> None:
        super().__init__(message)
        self.sent = sent


class Timing(NamedTuple):
    """How long to wait at most, in seconds, and the moment (monotonic) at which all must end."""

    connect_seconds: float
    read_seconds: float
    deadline: float

    def remaining(self, limit: float) -> float:
        """Return what is left, at most ``limit``; TimeoutError when nothing is."""
        left = self.deadline - monotonic()
        if left <= 0:
            raise TimeoutError("the time for the call is over")
        return min(left, limit)


class _PlainSocket(socket.socket):
    """A socket whose reads all end by one moment."""

    timing = Timing(0.3, 1.0, 0.0)

    def recv_into(self, *arguments: Any) -> int:  # noqa: ANN401 - as inherited
        """Read within what is left."""
        self.settimeout(self.timing.remaining(self.timing.read_seconds))
        return super().recv_into(*arguments)


class _TlsSocket(ssl.SSLSocket):
    """The same by TLS."""

    timing = Timing(0.3, 1.0, 0.0)

    def recv_into(self, *arguments: Any) -> int:  # noqa: ANN401 - as inherited
        """Read within what is left."""
        self.settimeout(self.timing.remaining(self.timing.read_seconds))
        return super().recv_into(*arguments)


class _Connection:
    """A connection whose every exchange ends in time.

    Args:
        host: A name or an IP address.
        port: The TCP port.
        tls: None: without TLS.
        timing: For connecting and the first exchange.
    """

    def __init__(self, host: str, port: int, tls: ssl.SSLContext | None, timing: Timing) -> None:
        self.rests_since = 0.0
        plain = _connect(host, port, timing)
        try:
            plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._socket: Any = plain
            if tls is not None:
                plain.settimeout(timing.remaining(timing.read_seconds))
                self._socket = tls.wrap_socket(plain, server_hostname=host)
        except BaseException:
            plain.close()
            raise

    def exchange(self, method: str, request: bytes, timing: Timing) -> tuple[HttpReply, bool]:
        """Send a whole request; return its answer and whether the connection can be used again."""
        self._socket.timing = timing
        self._socket.settimeout(timing.remaining(timing.read_seconds))
        self._socket.sendall(request)
        with HTTPResponse(self._socket, method=method) as response:
            response.begin()
            content = response.read(MAXIMUM_REPLY_BYTES)
            # Of a broken-off answer, reading a limited part tells only that something is left.
            if response.length or response.read(1):
                raise ValueError("the answer is too long or was broken off")
            keep = not response.will_close
            is_json = (response.getheader("Content-Type") or "").startswith("application/json")
        return HttpReply(response.status, content, is_json), keep

    def is_silent(self) -> bool:
        """Tell whether nothing came while the connection rested: neither an end nor garbage."""
        watch = poll()
        watch.register(self._socket, POLLIN)
        return not watch.poll(0)

    def close(self) -> None:
        """Close it."""
        self._socket.close()


class VaultAddress:
    """One base URL with its kept connections; safe for threads, not for fork.

    Args:
        url: ``http://`` or ``https://``, host, port, and a path before ``/v1`` if there is any.
        tls: For ``https``; from ``make_tls_context``.
    """

    def __init__(self, url: str, tls: ssl.SSLContext | None) -> None:
        self.url = url
        parts = split_address(url)
        self._host = parts.hostname or ""
        self._port = parts.port or DEFAULT_PORTS[parts.scheme]
        self._netloc = parts.netloc
        self._prefix = parts.path.rstrip("/")
        self._tls = tls if parts.scheme == "https" else None
        self._resting: list[_Connection] = []
        # Where it is dropped rather than closed, as after a fork: closing ends nothing elsewhere.
        finalize(self, _close_all, self._resting)

    def exchange(self, request: HttpRequest, timing: Timing) -> HttpReply:
        """Send one request and return its answer; ExchangeError if none came in time."""
        connection = self._take_resting()
        if connection is not None:
            try:
                return self._exchange(connection, request, timing)
            except ExchangeError as error:
                if not (request.repeatable and isinstance(error.__cause__, GIVEN_UP)):
                    raise
        try:
            connection = _Connection(self._host, self._port, self._tls, timing)
        except (OSError, ValueError) as error:
            raise ExchangeError(_describe(error), sent=False) from error
        return self._exchange(connection, request, timing)

    def _exchange(self, connection: _Connection, request: HttpRequest, timing: Timing) -> HttpReply:
        try:
            content = _format(request, self._netloc, self._prefix)
            reply, keep = connection.exchange(request.method, content, timing)
        except (OSError, HTTPException, ValueError) as error:
            connection.close()
            raise ExchangeError(_describe(error), sent=True) from error
        if keep:
            self._rest(connection)
        else:
            connection.close()
        return reply

    def close(self) -> None:
        """Close the connections that nobody uses."""
        _close_all(self._resting)

    def _take_resting(self) -> _Connection | None:
        while True:
            try:
                connection = self._resting.pop()
            except IndexError:
                return None
            rested_seconds = monotonic() - connection.rests_since
            if rested_seconds < LONGEST_REST_SECONDS and connection.is_silent():
                return connection
            connection.close()

    def _rest(self, connection: _Connection) -> None:
        connection.rests_since = monotonic()
        if len(self._resting) < MAXIMUM_RESTING:
            self._resting.append(connection)
        else:
            connection.close()


def _close_all(connections: list[_Connection]) -> None:
    while connections:
        connections.pop().close()


def split_address(url: str) -> Any:  # noqa: ANN401 - a result of urlsplit
    """Return the parts of a Vault's address; KeysError if it is none."""
    try:
        parts = urlsplit(url)
        usable = parts.scheme in DEFAULT_PORTS and parts.hostname and parts.port != 0
    except ValueError:
        usable = False
    if not usable or parts.query or parts.fragment or "@" in parts.netloc:
        raise KeysError(f"not the address of a Vault: {url!r}")
    return parts


def make_tls_context(
    ca_file: str, certificate_file: str = "", private_key_file: str = ""
) -> ssl.SSLContext:
    """Return what TLS connections are made with.

    Args:
        ca_file: The only CA to trust; empty: those of the system.
        certificate_file: A client certificate to show, with its key.
        private_key_file: That key; empty: it stands in the same file.

    Raises:
        KeysError: A file cannot be read.
    """
    try:
        context = ssl.create_default_context(cafile=ca_file or None)
        if certificate_file:
            context.load_cert_chain(certificate_file, private_key_file or None)
    except OSError as error:
        names = ", ".join(filter(None, (ca_file, certificate_file, private_key_file)))
        raise KeysError(f"TLS files for a Vault cannot be used ({names}): {error}") from error
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.sslsocket_class = _TlsSocket
    return context


def _format(request: HttpRequest, host: str, prefix: str) -> bytes:
    # In one piece, because each piece would wake the other side: http.client sends two.
    lines = [f"{request.method} {prefix}{request.path} HTTP/1.1", f"Host: {host}"]
    lines += [f"{name}: {value}" for name, value in request.headers.items()]
    lines.append(f"Content-Length: {len(request.body)}")
    if any("\r" in line or "\n" in line for line in lines):
        raise ValueError("a header of the request has several lines")
    return "\r\n".join((*lines, "", "")).encode("latin-1") + request.body


def _connect(host: str, port: int, timing: Timing) -> _PlainSocket:
    problem: OSError = OSError(f"{host} has no address")
    for family, kind, protocol, _, address in _resolve(host, port, timing):
        made = _PlainSocket(family, kind, protocol)
        try:
            made.settimeout(timing.remaining(timing.connect_seconds))
            made.connect(address)
        except OSError as error:
            made.close()
            problem = error
        else:
            return made
    raise problem


def _resolve(host: str, port: int, timing: Timing) -> list[Any]:
    try:
        ip_address(host)
    except ValueError:
        return _resolve_name(host, port, timing)
    return socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)


def _resolve_name(host: str, port: int, timing: Timing) -> list[Any]:
    # The system's resolver has time-outs of its own, up to half a minute, and cannot be stopped.
    answers: SimpleQueue[list[Any] | OSError] = SimpleQueue()

    def look_up() -> None:
        try:
            answers.put(socket.getaddrinfo(host, port, type=socket.SOCK_STREAM))
        except OSError as error:
            answers.put(error)
        except UnicodeError as error:
            answers.put(OSError(f"{host} is no name of a host: {error}"))

    Thread(target=look_up, name="vault-name-lookup", daemon=True).start()
    try:
        answer = answers.get(timeout=timing.remaining(timing.read_seconds))
    except Empty:
        raise TimeoutError(f"looking up {host} takes too long") from None
    if isinstance(answer, OSError):
        raise answer
    return answer


def _describe(error: Exception) -> str:
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
