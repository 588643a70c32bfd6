"""Security event tokens (RFC 8417)."""

from collections.abc import Callable

import msgspec

from authz_server.clients.cache import ClientCache
from authz_server.tokens.event_streams.contents import EventContents
from authz_server.tokens.event_streams.reading import PendingEvent
from keys.ring import KeyRings

EVENT_TOKEN_TYPE = "secevent+jwt"  # noqa: S105 - a media type, not a secret
_encode = msgspec.json.Encoder().encode


class EventSigner:
    """Signs events for resource servers by the ring of their tokens.

    Args:
        contents: gives the claims.
        key_rings: sign.
        find_ring: returns the key ring of a resource server.
    """

    def __init__(
        self, contents: EventContents, key_rings: KeyRings, find_ring: Callable[[str], str]
    ) -> None:
        self._contents = contents
        self._key_rings = key_rings
        self._find_ring = find_ring

    def can_sign(self) -> bool:
        """Return whether the clock of this machine permits a signature."""
        return not self._key_rings.is_clock_off

    def sign(self, pending: PendingEvent, server_id: str) -> str:
        """Return the token of an event.

        Raises:
            KeysError: no key can sign.
        """
        claims = self._contents.claims(pending.record, pending.event, server_id)
        # An event has no end; the ring counts a lifetime of one second for it.
        signed = self._key_rings.sign(
            self._find_ring(server_id), _encode(claims), typ=EVENT_TOKEN_TYPE, lifetime_seconds=1
        )
        return signed.token


def make_ring_finder(directory: ClientCache, default_ring: str) -> Callable[[str], str]:
    """Return a function of a resource server's id that returns its key ring."""

    def find_ring(server_id: str) -> str:
        found = directory.find(server_id)
        own = found.resource_server if found is not None else None
        return (own.signing_ring if own is not None else None) or default_ring

    return find_ring
