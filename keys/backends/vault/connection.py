"""Connections to one address of a Vault, with a deadline over every read.

A read time-out alone does not bound an answer that comes byte by byte, so every single read gets
only what is left until the deadline. The environment's proxies and netrc are not honoured.
"""

import socket
import ssl
from collections.abc import Sequence
from http.client import HTTPResponse
from ipaddress import ip_address
from queue import Empty, SimpleQueue
from select import POLLIN, poll
from threading import Thread
from time import monotonic
from typing import Any, NamedTuple
from urllib.parse import SplitResult, urlsplit
from weakref import finalize

from keys.backends.vault.settings import VaultAccess
from keys.errors import KeysError

#: A key with 300 versions takes 91 KB.
MAXIMUM_REPLY_BYTES = 8 * 1024 * 1024
#: Networks forget idle connections; OpenBao itself closes them after five minutes.
MAXIMUM_IDLE_SECONDS = 30.0
MAXIMUM_IDLE_CONNECTIONS = 32
DEFAULT_PORTS = {"http": 80, "https": 443}


class HttpReply(NamedTuple):
    """A complete answer."""

    status: int
    body: bytes
    is_json: bool


class TimeLimits(NamedTuple):
    """Longest waits in seconds: for a connection, and for one read."""

    connect_seconds: float
    read_seconds: float


def seconds_left(deadline: float, limit: float) -> float:
    """Return the seconds until ``deadline`` (monotonic), at most ``limit``.

    Raises:
        TimeoutError: the deadline has passed.
    """
    left = deadline - monotonic()
    if left <= 0:
        raise TimeoutError("the time for the call is over")
    return min(left, limit)


class _PlainSocket(socket.socket):
    """A socket whose reads all end by one deadline."""

    deadline = 0.0
    read_seconds = 1.0

    def recv_into(self, *arguments: Any) -> int:  # noqa: ANN401 - as inherited
        """Read within the time that is left."""
        self.settimeout(seconds_left(self.deadline, self.read_seconds))
        return super().recv_into(*arguments)


class _TlsSocket(ssl.SSLSocket):
    """A TLS socket whose reads all end by one deadline."""

    deadline = 0.0
    read_seconds = 1.0

    def recv_into(self, *arguments: Any) -> int:  # noqa: ANN401 - as inherited
        """Read within the time that is left."""
        self.settimeout(seconds_left(self.deadline, self.read_seconds))
        return super().recv_into(*arguments)


class Connection:
    """An open connection; for one thread at a time.

    Args:
        host: a name or an IP address.
        port: the TCP port.
        tls: None: without TLS.
        limits: the time-outs for the connection and for every read.
        deadline: the monotonic time at which the connection must be made.

    Attributes:
        idle_since: the end of the last exchange, for an idle connection.
        watch: reports data or an end on an idle connection, which then cannot be used.

    Raises:
        OSError: there is no connection in time.
        ValueError: the host or the names of the certificate are malformed.
    """

    def __init__(
        self, host: str, port: int, tls: ssl.SSLContext | None, limits: TimeLimits, deadline: float
    ) -> None:
        self.idle_since = 0.0
        plain = _connect(host, port, limits, deadline)
        try:
            plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._socket: Any = plain
            if tls is not None:
                plain.settimeout(seconds_left(deadline, limits.read_seconds))
                self._socket = tls.wrap_socket(plain, server_hostname=host)
        except BaseException:
            plain.close()
            raise
        self._socket.read_seconds = limits.read_seconds
        self.watch = poll()
        self.watch.register(self._socket, POLLIN)

    def exchange(
        self, lines: Sequence[str], body: bytes, deadline: float
    ) -> tuple[HttpReply, bool]:
        """Send a request; return its answer, and True if the connection can be used again.

        Args:
            lines: the request line and the headers, without ``Content-Length``.
            body: the request's body.
            deadline: the monotonic time at which the answer must be complete.

        Raises:
            OSError: the peer closed the connection, or did not answer in time.
            HTTPException: the answer is not HTTP.
            ValueError: a header has several lines, or the answer is too long or incomplete.
        """
        head = "\r\n".join((*lines, f"Content-Length: {len(body)}", "", ""))
        if head.count("\n") != len(lines) + 2 or head.count("\r") != len(lines) + 2:
            raise ValueError("a header of the request has several lines")
        self._socket.deadline = deadline
        self._socket.settimeout(seconds_left(deadline, self._socket.read_seconds))
        # In one piece, because each piece would wake the other side: http.client sends two.
        self._socket.sendall(head.encode("latin-1") + body)
        with HTTPResponse(self._socket, method=lines[0].partition(" ")[0]) as response:
            response.begin()
            content = response.read(MAXIMUM_REPLY_BYTES)
            # A limited read of an incomplete answer shows only that something is left.
            if response.length or response.read(1):
                raise ValueError("the answer is too long or was broken off")
            keep = not response.will_close
            is_json = (response.getheader("Content-Type") or "").startswith("application/json")
        return HttpReply(response.status, content, is_json), keep

    def close(self) -> None:
        """Close it."""
        self._socket.close()


class ConnectionPool:
    """The connections to one address; safe for threads.

    Args:
        address: the parts of the address, from ``split_address``.
        tls: the context for ``https``, from ``make_tls_context``.
        limits: the time-outs of every connection.
    """

    def __init__(
        self, address: SplitResult, tls: ssl.SSLContext | None, limits: TimeLimits
    ) -> None:
        self._host = address.hostname or ""
        self._port = address.port or DEFAULT_PORTS[address.scheme]
        self._tls = tls if address.scheme == "https" else None
        self._limits = limits
        self._idle: list[Connection] = []
        # For a pool that is dropped without a close, as after a fork; others keep their sockets.
        finalize(self, _close_all, self._idle)

    def take_idle(self) -> Connection | None:
        """Return an idle connection that is still good, if there is one."""
        while True:
            try:
                connection = self._idle.pop()
            except IndexError:
                return None
            is_young = monotonic() - connection.idle_since < MAXIMUM_IDLE_SECONDS
            if is_young and not connection.watch.poll(0):
                return connection
            connection.close()

    def connect(self, deadline: float) -> Connection:
        """Return a new connection; see ``Connection`` for the errors."""
        return Connection(self._host, self._port, self._tls, self._limits, deadline)

    def release(self, connection: Connection, *, keep: bool) -> None:
        """Keep a connection for the next exchange, or close it."""
        if keep and len(self._idle) < MAXIMUM_IDLE_CONNECTIONS:
            connection.idle_since = monotonic()
            self._idle.append(connection)
        else:
            connection.close()

    def close(self) -> None:
        """Close the idle connections."""
        _close_all(self._idle)


def _close_all(connections: list[Connection]) -> None:
    while connections:
        connections.pop().close()


def split_address(url: str) -> SplitResult:
    """Return the parts of a Vault's address; KeysError if it is not one."""
    try:
        parts = urlsplit(url)
        usable = parts.scheme in DEFAULT_PORTS and parts.hostname and parts.port != 0
    except ValueError:
        usable = False
    if not usable or parts.query or parts.fragment or "@" in parts.netloc:
        raise KeysError(f"not the address of a Vault: {url!r}")
    return parts


def make_tls_context(access: VaultAccess) -> Any:  # noqa: ANN401 - an SSLContext or None
    """Return the context of TLS connections; None if no address is https.

    Raises:
        KeysError: a file cannot be read, or an address is not one.
    """
    if not any(split_address(url).scheme == "https" for url in access.addresses):
        return None
    login, ca_file = access.login, access.ca_file
    try:
        context = ssl.create_default_context(cafile=ca_file or None)
        if login.certificate_file:
            context.load_cert_chain(login.certificate_file, login.private_key_file or None)
    except OSError as error:
        files = (ca_file, login.certificate_file, login.private_key_file)
        names = ", ".join(filter(None, files))
        raise KeysError(f"TLS files for a Vault cannot be used ({names}): {error}") from error
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.sslsocket_class = _TlsSocket
    return context


def _connect(host: str, port: int, limits: TimeLimits, deadline: float) -> _PlainSocket:
    problem: OSError = OSError(f"{host} has no address")
    for family, kind, protocol, _, address in _resolve(host, port, limits, deadline):
        made = _PlainSocket(family, kind, protocol)
        try:
            made.settimeout(seconds_left(deadline, limits.connect_seconds))
            made.connect(address)
        except OSError as error:
            made.close()
            problem = error
        else:
            return made
    raise problem


def _resolve(host: str, port: int, limits: TimeLimits, deadline: float) -> list[Any]:
    try:
        ip_address(host)
    except ValueError:
        return _resolve_name(host, port, seconds_left(deadline, limits.read_seconds))
    return socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)


def _resolve_name(host: str, port: int, seconds: float) -> list[Any]:
    # The system's resolver has time-outs of its own, up to half a minute, and cannot be stopped.
    answers: SimpleQueue[list[Any] | OSError] = SimpleQueue()

    def look_up() -> None:
        try:
            answers.put(socket.getaddrinfo(host, port, type=socket.SOCK_STREAM))
        except OSError as error:
            answers.put(error)
        except UnicodeError as error:
            answers.put(OSError(f"{host} is not a valid host name: {error}"))

    Thread(target=look_up, name="vault-name-lookup", daemon=True).start()
    try:
        answer = answers.get(timeout=seconds)
    except Empty:
        raise TimeoutError(f"looking up {host} takes too long") from None
    if isinstance(answer, OSError):
        raise answer
    return answer
