"""The entry of a token in a status list, as the token's ``jti`` encodes it."""

from base64 import urlsafe_b64decode, urlsafe_b64encode
from typing import NamedTuple

from authz_server.tokens.claims import JTI_CHARACTERS

#: Bits of a status (draft-ietf-oauth-status-list, 4.1): valid, invalid and suspended.
STATUS_BITS = 2
VALID = 0
INVALID = 1
SUSPENDED = 2
#: The statuses of a list: 256 KiB before compression. A full list is followed by another.
LIST_SIZE = 1 << 20

_LIST_BYTES = 6
_INDEX_BYTES = 3
_LISTED_CHARACTERS = JTI_CHARACTERS + (_LIST_BYTES + _INDEX_BYTES) * 4 // 3


class Entry(NamedTuple):
    """A place in a status list.

    Attributes:
        list_id: the list.
        position: the place, from 0.
    """

    list_id: int
    position: int


def add_entry(jti: str, entry: Entry) -> str:
    """Return the ``jti`` with the entry at its end.

    A revocation needs only the ``jti`` to find the entry.
    """
    encoded = entry.list_id.to_bytes(_LIST_BYTES, "big") + entry.position.to_bytes(
        _INDEX_BYTES, "big"
    )
    return jti + urlsafe_b64encode(encoded).decode()


def find_entry(jti: str) -> Entry | None:
    """Return the entry of a token with this ``jti``; None if it is in no list."""
    if len(jti) != _LISTED_CHARACTERS:
        return None
    try:
        encoded = urlsafe_b64decode(jti[JTI_CHARACTERS:])
    except ValueError:
        return None
    if len(encoded) != _LIST_BYTES + _INDEX_BYTES:
        return None
    position = int.from_bytes(encoded[_LIST_BYTES:], "big")
    if position >= LIST_SIZE:
        return None
    return Entry(int.from_bytes(encoded[:_LIST_BYTES], "big"), position)
