"""IP addresses and networks: the ones that a client may send its requests from."""

import ipaddress
from collections.abc import Iterable
from functools import lru_cache

from authz_server.errors import InvalidChangeError

IPAddress = ipaddress.IPv4Address | ipaddress.IPv6Address
IPNetwork = ipaddress.IPv4Network | ipaddress.IPv6Network

MAXIMUM_NETWORKS = 100
_CACHED_ADDRESSES = 1_024
_LONGEST_ADDRESS = 64
_PREFIX_OF_MAPPED = 96


def parse_network(text: str) -> IPNetwork:
    """Return the network; an IPv4 network for one of IPv4-mapped addresses.

    Raises:
        ValueError: it is neither an IP address nor a network (CIDR), or has bits of a host.
    """
    network = ipaddress.ip_network(text)
    mapped = getattr(network.network_address, "ipv4_mapped", None)
    if mapped is None or network.prefixlen < _PREFIX_OF_MAPPED:
        return network
    return ipaddress.IPv4Network((mapped, network.prefixlen - _PREFIX_OF_MAPPED))


class AllowedNetworks:
    """The networks of a client.

    Args:
        networks: IP addresses and networks, as :func:`check_networks` returns them.
    """

    __slots__ = ("_networks",)

    def __init__(self, networks: Iterable[str]) -> None:
        self._networks = tuple(parse_network(network) for network in networks)

    def contains(self, address: str) -> bool:
        """Return whether the address is in one of the networks; False for any other text."""
        parsed = _parse(address) if len(address) <= _LONGEST_ADDRESS else None
        return parsed is not None and any(parsed in network for network in self._networks)


def check_networks(value: object) -> list[str]:
    """Return the networks in canonical form, each once.

    Raises:
        InvalidChangeError: the value is not a list of 1 to 100 IP addresses and networks.
    """
    field = "allowed_networks"
    listed = [value] if isinstance(value, str) else value
    if not isinstance(listed, list | tuple) or not 1 <= len(listed) <= MAXIMUM_NETWORKS:
        raise InvalidChangeError(f"{field}: use a list of 1 to {MAXIMUM_NETWORKS} networks")
    found: dict[str, None] = {}
    for network in listed:
        if not isinstance(network, str):
            # The library reads a number as an address.
            raise InvalidChangeError(f"{field}: {network!r} is not a string")
        try:
            found[str(parse_network(network))] = None
        except ValueError as error:
            raise InvalidChangeError(f"{field}: {error}") from None
    return list(found)


@lru_cache(_CACHED_ADDRESSES)
def _parse(address: str) -> IPAddress | None:
    """Return the address, IPv4 for an IPv4-mapped one; None if the text is not an address."""
    try:
        parsed = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return None
    return getattr(parsed, "ipv4_mapped", None) or parsed
