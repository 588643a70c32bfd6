"""From where a request comes: forwarded addresses are believed from trusted proxies alone."""

import ipaddress
from collections.abc import Iterable
from functools import lru_cache
from typing import Any

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


class SourceReader:
    """Finds the sender's address.

    Args:
        trusted_proxies: networks whose ``X-Forwarded-For`` is believed.
    """

    def __init__(self, trusted_proxies: Iterable[str]) -> None:
        self._networks: tuple[Network, ...] = tuple(
            ipaddress.ip_network(network) for network in trusted_proxies
        )
        self._is_trusted = lru_cache(maxsize=256)(self._check)

    def read(self, environ: dict[str, Any]) -> str:
        """Return the sender's IP address as text; empty where it is not known.

        The nearest address that no trusted proxy has is the sender's: what stands further to the
        left of the header anyone could have written.
        """
        peer = str(environ.get("REMOTE_ADDR", ""))
        if not self._networks or not self._is_trusted(peer):
            return peer
        forwarded = str(environ.get("HTTP_X_FORWARDED_FOR", ""))
        for hop in reversed(forwarded[-1_000:].split(",")):
            address = hop.strip()
            if not _is_address(address):
                break
            peer = address
            if not self._is_trusted(address):
                break
        return peer

    def _check(self, address: str) -> bool:
        try:
            parsed = ipaddress.ip_address(address)
        except ValueError:
            return False
        # A listener for both families shows IPv4 peers as mapped addresses.
        parsed = getattr(parsed, "ipv4_mapped", None) or parsed
        return any(parsed in network for network in self._networks)


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True
