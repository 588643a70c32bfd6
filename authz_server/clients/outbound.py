"""Requests to URLs that clients and issuers supply: which are permitted, and the exchange.

The addresses of a host are checked, and the connection is made to one of them, without a second
look-up. Redirects are not followed, and the environment's proxies are not used.
"""

import re
import socket
import ssl
from collections.abc import Sequence
from datetime import UTC
from email.utils import parsedate_to_datetime
from http.client import CONTINUE, HTTPException, HTTPResponse
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from queue import Empty, SimpleQueue
from threading import Thread
from time import monotonic, time
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from authz_server.settings.origins import DEFAULT_PORTS, LOWEST_FREE_PORT, is_host

MAXIMUM_URL_CHARACTERS = 2_048
MAXIMUM_HEADER_BYTES = 16_384
_MAXIMUM_DIGITS = 9
_OK = 200
_INTERIM = range(102, 200)  # after 101 another protocol follows

_URL = re.compile(r"[!$-;=?-Z_a-z~%\[\]]+")  # the characters of RFC 3986 without "#"

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

#: The IANA registries of special-purpose addresses, and multicast.
_SPECIAL_IPV4 = tuple(
    IPv4Network(each)
    for each in (
        "0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16",
        "172.16.0.0/12", "192.0.0.0/24", "192.0.2.0/24", "192.88.99.0/24", "192.168.0.0/16",
        "198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24", "224.0.0.0/4", "240.0.0.0/4",
    )
)  # fmt: skip
_GLOBAL_IPV6 = IPv6Network("2000::/3")
_SPECIAL_IPV6 = tuple(
    IPv6Network(each) for each in ("2001::/23", "2001:db8::/32", "2002::/16", "3fff::/20")
)
_NAT64 = IPv6Network("64:ff9b::/96")


class FetchError(Exception):
    """A URL gave no usable document; the message gives the reason, without the document.

    Args:
        message: the reason.
        is_response: whether the URL gave an HTTP response, with a status that is an error.
        retry_after_seconds: when the answer asks for the next attempt; 0: no time is given.
    """

    def __init__(
        self, message: str = "", *, is_response: bool = False, retry_after_seconds: float = 0.0
    ) -> None:
        super().__init__(message)
        self.is_response = is_response
        self.retry_after_seconds = retry_after_seconds


class UrlRefusedError(FetchError):
    """A URL is not one that may be fetched."""


class FetchUrl(NamedTuple):
    """The parts of a URL that may be fetched.

    Attributes:
        origin: the scheme and the host, with the port unless it is the scheme's.
        host: a name or an IP address, without brackets.
        target: the path and the query.
    """

    scheme: str
    origin: str
    host: str
    port: int
    target: str


class Limits(NamedTuple):
    """The limits of one exchange.

    Attributes:
        deadline: the monotonic time at which it ends, complete or not.
        maximum_bytes: the largest body.
    """

    deadline: float
    maximum_bytes: int

    def seconds_left(self) -> float:
        """Return the seconds until the deadline; TimeoutError if it has passed."""
        left = self.deadline - monotonic()
        if left <= 0:
            raise TimeoutError("it takes too long")
        return left


def split_url(url: str, *, plain_http: bool = False) -> FetchUrl:
    """Return the parts of a URL that a client or an issuer supplied.

    Args:
        url: https, without user and fragment, in ASCII; the host is a name or an IP address in its
            usual notation.
        plain_http: whether http is accepted too, for the loopback addresses of a test.

    Raises:
        UrlRefusedError: it is any other URL.
    """
    if len(url) > MAXIMUM_URL_CHARACTERS or not _URL.fullmatch(url):
        raise UrlRefusedError("the URL is too long, or has characters or a fragment not allowed")
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise UrlRefusedError("the URL is malformed") from None
    scheme, host = parts.scheme, parts.hostname or ""
    if scheme != "https" and not (plain_http and scheme == "http"):
        raise UrlRefusedError("the URL does not begin with https://")
    if "@" in parts.netloc:
        raise UrlRefusedError("the URL has a user")
    shown = f"[{host}]" if ":" in host else host
    written = shown if port is None else f"{shown}:{port}"
    if parts.netloc.lower() != written or not is_host(host):
        raise UrlRefusedError("the URL has no valid host")
    if port is None:
        port = DEFAULT_PORTS[scheme]
    if port != DEFAULT_PORTS[scheme] and port < LOWEST_FREE_PORT:
        raise UrlRefusedError(f"port {port} is not one of web servers")
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    if port != DEFAULT_PORTS[scheme]:
        shown = f"{shown}:{port}"
    return FetchUrl(scheme, f"{scheme}://{shown}", host, port, target)


def is_public(address: Address) -> bool:
    """Return whether an address is a unicast address of the public Internet.

    An IPv6 address that stands for an IPv4 address is judged as that one.
    """
    if isinstance(address, IPv6Address):
        inner = _find_ipv4(address)
        if inner is None:
            special = any(address in network for network in _SPECIAL_IPV6)
            return address in _GLOBAL_IPV6 and not special
        address = inner
    return not any(address in network for network in _SPECIAL_IPV4)


def _find_ipv4(address: IPv6Address) -> IPv4Address | None:
    if address in _NAT64:
        return IPv4Address(int(address) & 0xFFFF_FFFF)
    return address.ipv4_mapped


class AddressRule:
    """Decides which addresses may be connected to.

    Args:
        networks: further permitted networks, besides the public Internet.

    Raises:
        ValueError: a network is malformed.
    """

    def __init__(self, networks: Sequence[str]) -> None:
        self._networks: tuple[Network, ...] = tuple(ip_network(each) for each in networks)

    def permits(self, address: Address) -> bool:
        """Return whether the address is public, or in a network of the settings."""
        if is_public(address):
            return True
        found: list[Address] = [address]
        if isinstance(address, IPv6Address) and (inner := _find_ipv4(address)) is not None:
            found = [inner]
        return any(each in network for network in self._networks for each in found)

    def require(self, addresses: Sequence[str]) -> None:
        """Raise UrlRefusedError unless every address is permitted."""
        for each in addresses:
            if not self.permits(ip_address(each)):
                raise UrlRefusedError("the host has an address that is not public")


def resolve_host(host: str, seconds: float) -> list[str]:
    """Return the IP addresses of a name, in the order of the system's resolver.

    Args:
        host: a name or an IP address.
        seconds: the longest wait; the resolver's own time-out may be half a minute.

    Raises:
        FetchError: the name has no address.
        TimeoutError: the answer takes too long.
    """
    answers: SimpleQueue[list[Any]] = SimpleQueue()

    def look_up() -> None:
        try:
            answers.put(socket.getaddrinfo(host, None, type=socket.SOCK_STREAM))
        except (OSError, UnicodeError):
            answers.put([])

    Thread(target=look_up, name="outbound-name-lookup", daemon=True).start()
    try:
        found = answers.get(timeout=seconds)
    except Empty:
        raise TimeoutError("looking up the host takes too long") from None
    if not found:
        raise FetchError("the host has no address")
    return [str(address[0]).partition("%")[0] for *_, address in found]


class _Deadline:
    """Reads of a socket that all end by one deadline, and after a number of bytes."""

    limits = Limits(0.0, 0)
    received = 0

    def recv_into(self, *arguments: Any) -> int:  # noqa: ANN401 - as inherited
        if self.received > self.limits.maximum_bytes + MAXIMUM_HEADER_BYTES:
            raise FetchError("the answer is too large")
        self.settimeout(self.limits.seconds_left())  # type: ignore[attr-defined]
        count: int = super().recv_into(*arguments)  # type: ignore[misc]
        self.received += count
        return count


class _PlainSocket(_Deadline, socket.socket): ...


class _TlsSocket(_Deadline, ssl.SSLSocket): ...


class _Response(HTTPResponse):
    """An answer after any interim ones (RFC 9110, 15.2); the library knows 100 alone."""

    def _read_status(self) -> tuple[str, int, str]:
        version, status, reason = super()._read_status()  # type: ignore[misc]
        return version, CONTINUE if status in _INTERIM else status, reason


def make_tls_context(ca_file: str = "", *, alone: bool = False) -> ssl.SSLContext:
    """Return the context of outbound connections.

    Args:
        ca_file: a file of authorities; empty: those of the system alone.
        alone: whether these are the only trusted ones.

    Raises:
        OSError: the file cannot be read, or holds no certificate.
    """
    context = ssl.create_default_context(cafile=ca_file if ca_file and alone else None)
    if ca_file and not alone:
        context.load_verify_locations(ca_file)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.sslsocket_class = _TlsSocket
    return context


class Reply(NamedTuple):
    """A complete answer.

    Attributes:
        body: the document.
        cache_control: the value of ``Cache-Control``; empty if absent.
        status: the HTTP status.
        retry_after_seconds: the value of ``Retry-After``; 0 if absent or malformed.
    """

    body: bytes
    cache_control: str
    status: int = _OK
    retry_after_seconds: float = 0.0

    def as_error(self) -> FetchError:
        """Return the error of an answer with a status that is not a success."""
        return FetchError(
            f"the answer has status {self.status}",
            is_response=True,
            retry_after_seconds=self.retry_after_seconds,
        )


def send_request(  # noqa: PLR0913, PLR0917 - the parts of a request, in order
    method: str,
    url: FetchUrl,
    addresses: Sequence[str],
    tls: ssl.SSLContext | None,
    limits: Limits,
    headers: Sequence[str],
    body: bytes = b"",
) -> Reply:
    """Return the answer to a request of any status.

    Args:
        method: GET or POST.
        url: its target.
        addresses: the checked addresses of the host.
        tls: the context for https.
        limits: the limits of the exchange, including the connection.
        headers: further header lines, with the type of a body.
        body: the body of a POST.

    Raises:
        FetchError: there is no answer within the limits.
    """
    lines = [f"{method} {url.target} HTTP/1.1", f"Host: {url.origin.partition('://')[2]}"]
    lines += ["Accept: application/json", "Accept-Encoding: identity", "Connection: close"]
    if method == "POST":
        lines.append(f"Content-Length: {len(body)}")
    request = "\r\n".join((*lines, *headers, "", "")).encode("ascii") + body
    try:
        connected = _connect(url, addresses, limits)
        with connected if tls is None else _secure(connected, url, tls, limits) as peer:
            peer.limits = limits
            peer.settimeout(limits.seconds_left())
            peer.sendall(request)
            with _Response(peer, method=method) as response:
                response.begin()
                return _read(response, limits.maximum_bytes)
    except ssl.SSLError as error:
        reason = getattr(error, "verify_message", "") or error.reason or "TLS failed"
        raise FetchError(f"TLS: {reason}") from error
    except TimeoutError as error:
        raise FetchError("the answer takes too long") from error
    except (OSError, HTTPException, ValueError) as error:
        raise FetchError(f"no answer: {type(error).__name__}") from error


def _connect(url: FetchUrl, addresses: Sequence[str], limits: Limits) -> _PlainSocket:
    problem: OSError = OSError("no address")
    for tried, address in enumerate(addresses):
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        made = _PlainSocket(family, socket.SOCK_STREAM)
        try:
            # An address that does not answer leaves a part of the time to the others.
            made.settimeout(limits.seconds_left() / (len(addresses) - tried))
            made.connect((address, url.port))
        except OSError as error:
            made.close()
            problem = error
        else:
            return made
    raise problem


def _secure(
    connected: _PlainSocket, url: FetchUrl, tls: ssl.SSLContext, limits: Limits
) -> _TlsSocket:
    try:
        connected.settimeout(limits.seconds_left())
        secured = tls.wrap_socket(connected, server_hostname=url.host)
    except BaseException:
        connected.close()
        raise
    assert isinstance(secured, _TlsSocket)  # noqa: S101 - the context's own class
    return secured


def _read(response: HTTPResponse, maximum_bytes: int) -> Reply:
    if response.getheader("Content-Encoding", "identity").lower() != "identity":
        raise FetchError("the answer is compressed")
    if response.length is not None and response.length > maximum_bytes:
        raise FetchError("the answer is too large")
    body = response.read(maximum_bytes)
    # A limited read of an incomplete answer shows only that something is left.
    if response.read(1):
        raise FetchError("the answer is too large")
    if response.length:
        raise FetchError("the answer was broken off")
    retry_after = read_retry_after(response.getheader("Retry-After", ""))
    return Reply(body, response.getheader("Cache-Control", ""), response.status, retry_after)


def read_retry_after(value: str) -> float:
    """Return the seconds of a ``Retry-After`` (RFC 9110, 10.2.3); 0 if it is malformed or past."""
    text = value.strip()
    if text.isascii() and text.isdigit():
        return float(text[:_MAXIMUM_DIGITS])
    try:
        at = parsedate_to_datetime(text)
    except (ValueError, OverflowError):
        return 0.0
    # A date without a zone is in UTC (RFC 9110, 5.6.7).
    return max(0.0, (at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp() - time())
