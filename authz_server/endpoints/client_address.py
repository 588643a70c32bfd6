"""Find the client's address behind trusted proxies.

Only a trusted proxy's forwarding header is used; the header of any other peer is ignored. Each
proxy appends to the list in the header: ``X-Forwarded-For``, ``Forwarded`` (RFC 7239) or
``X-Real-IP``. The list is read from the end, because a client can write everything before the
element of the nearest trusted proxy.
"""

import ipaddress
import re
from collections.abc import Iterable, Iterator
from functools import lru_cache

from authz_server.clients.networks import IPAddress, parse_network
from authz_server.endpoints.request import Request
from authz_server.errors import OAuthError

_CACHED_ADDRESSES = 1_024
_CACHED_HEADERS = 1_024
#: Longer values are read each time: a cache of them would cost megabytes.
_LONGEST_CACHED_HEADER = 256
_LONGEST_ELEMENT_IN_DETAIL = 80

# RFC 7239, 6: an address, "unknown" or an obfuscated identifier; each may have a port. Gateways
# leave out the brackets of an IPv6 address or add a zone (RFC 6874), which means nothing here.
_NODE = re.compile(
    r"""
    (?: (?P<ipv4> [0-9.]{7,15} )
      | \[ (?P<ipv6> [0-9A-Fa-f:.]{2,45} ) (?: % [A-Za-z0-9._~-]{1,32} )? \]
      | (?P<hidden> [Uu][Nn][Kk][Nn][Oo][Ww][Nn] | _[A-Za-z0-9._-]+ )
    ) (?: : (?: [0-9]{1,5} | _[A-Za-z0-9._-]+ ) )?
    | (?P<bare> [0-9A-Fa-f:.]{2,45} ) (?: % [A-Za-z0-9._~-]{1,32} )?
    """,
    re.VERBOSE,
)
# RFC 7239, 4: name=value pairs with semicolons between them. A value without quotes may hold
# colons and brackets besides the characters of a token: gateways forget the quotes.
_PAIR = re.compile(
    r"[ \t]*+(?:(?P<name>[!#$%&'*+.^_`|~0-9A-Za-z-]+)="
    r"""(?P<value>[!#$%&'*+.^_`|~0-9A-Za-z:\[\]-]+|"(?:[^"\\]|\\.)*"))?[ \t]*+(?:;|\Z)"""
)
_QUOTED_PAIR = re.compile(r"\\(.)")
_BLANKS = " \t"


class ClientAddressReader:
    """Finds the address of the client that sent a request.

    Args:
        trusted_proxies: IP addresses and networks of the proxies in front; with none, the header
            is ignored.
        header: the header that the proxies write, in lower case; ``forwarded`` is parsed by
            RFC 7239, any other as a list of addresses.
    """

    def __init__(self, trusted_proxies: Iterable[str], header: str = "x-forwarded-for") -> None:
        self._networks = tuple(parse_network(network) for network in trusted_proxies)
        self._header = header
        self._elements = _forwarded_elements if header == "forwarded" else _listed_elements
        self._look_up = lru_cache(_CACHED_ADDRESSES)(self._parse_and_test)
        self._find_short = lru_cache(_CACHED_HEADERS)(self._find)

    def read(self, request: Request) -> str:
        """Return the client's IP address; empty if the peer of the connection has none.

        The header counts only if ``request.peer`` is a trusted proxy. The client's address is the
        nearest one that is not a trusted proxy's, else the farthest one. For an ``unknown`` or
        obfuscated identifier, the address of the proxy that wrote it is returned. Without the
        header the client is the proxy itself, as in its health checks.

        Returns:
            canonical text (RFC 5952): an IPv4-mapped IPv6 address as IPv4, without zone and port.

        Raises:
            OAuthError: ``forwarded_address_malformed``; the element to use cannot be parsed.
        """
        peer, is_trusted = self._look_up(request.peer)
        value = request.headers.get(self._header) if is_trusted else None
        if not value:
            return peer
        found = self._find_short if len(value) <= _LONGEST_CACHED_HEADER else self._find
        return found(value) or peer

    def is_trusted_proxy(self, address: str) -> bool:
        """Return whether ``address`` belongs to a trusted proxy; False for other text."""
        return self._look_up(address)[1]

    def _find(self, value: str) -> str:
        """Return the client's address named by the header value; empty if it names none."""
        nearest = ""
        for element, node in self._elements(value):
            address = _read_node(node)
            if address is None:
                detail = element[:_LONGEST_ELEMENT_IN_DETAIL]
                raise OAuthError("forwarded_address_malformed", f"{self._header}: {detail!r}")
            if not address:
                break
            nearest = address
            if not self._look_up(address)[1]:
                break
        return nearest

    def _parse_and_test(self, text: str) -> tuple[str, bool]:
        """Return the canonical text of an address and whether it is a trusted proxy's."""
        address = _parse(text.partition("%")[0])
        if address is None:
            return "", False
        return str(address), any(address in network for network in self._networks)


def _parse(text: str) -> IPAddress | None:
    """Return the address, IPv4 for an IPv4-mapped one; None if the text is not an address."""
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return None
    # A listener for both families reports IPv4 peers as mapped addresses.
    return getattr(address, "ipv4_mapped", None) or address


def _read_node(node: str | None) -> str | None:
    """Return the canonical address of an element; empty if obfuscated, None if malformed."""
    found = _NODE.fullmatch(node) if node is not None else None
    if found is None:
        return None
    if found["hidden"]:
        return ""
    text = found["ipv4"] or found["ipv6"] or found["bare"]
    if not found["ipv4"] and ":" not in text:
        return None
    address = _parse(text)
    return None if address is None else str(address)


def _listed_elements(value: str) -> Iterator[tuple[str, str | None]]:
    """Yield each element of a list of addresses with its node, last element first."""
    for member in reversed(value.split(",")):
        if element := member.strip(_BLANKS):
            yield element, _unquoted(element)


def _forwarded_elements(value: str) -> Iterator[tuple[str, str | None]]:
    """Yield each element of a ``Forwarded`` list with its node, last element first."""
    end = len(value)
    while end >= 0:
        comma = _last_comma(value, end)
        if comma is None:
            yield value[:end], None
            return
        if element := value[comma + 1 : end].strip(_BLANKS):
            yield element, _forwarded_for(element)
        end = comma


def _last_comma(value: str, end: int) -> int | None:
    """Return the position of the last comma outside quotes before ``end``.

    Returns -1 if there is none, and None if a quotation mark is left open. Only the text behind
    that comma matters, so that a quotation mark sent by a client cannot swallow a proxy's element.
    """
    comma, closing = value.rfind(",", 0, end), value.rfind('"', 0, end)
    while closing > comma:
        opening = value.rfind('"', 0, closing)
        while opening > 0 and _is_escaped(value, opening):
            opening = value.rfind('"', 0, opening)
        if opening < 0:
            return None
        if comma > opening:
            comma = value.rfind(",", 0, opening)
        closing = value.rfind('"', 0, opening)
    return comma


def _is_escaped(value: str, position: int) -> bool:
    """Return whether an odd number of backslashes stands before the position."""
    start = position
    while start > 0 and value[start - 1] == "\\":
        start -= 1
    return (position - start) % 2 == 1


def _forwarded_for(element: str) -> str | None:
    """Return the ``for`` value of an element; ``unknown`` without one, None if malformed."""
    node: str | None = None
    position = 0
    while position < len(element):
        found = _PAIR.match(element, position)
        if found is None:
            return None
        if found["name"] and found["name"].lower() == "for":
            if node is not None:
                return None
            node = _unquoted(found["value"])
        position = found.end()
    return "unknown" if node is None else node


def _unquoted(text: str) -> str:
    """Return the content of a quoted string (RFC 9110, 5.6.4), and other text unchanged."""
    if len(text) > 1 and text[0] == text[-1] == '"':
        return _QUOTED_PAIR.sub(r"\1", text[1:-1])
    return text
