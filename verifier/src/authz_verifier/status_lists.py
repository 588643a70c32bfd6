"""Status lists (draft-ietf-oauth-status-list): the reference in a token, and the list itself."""

import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from authz_verifier.compact import decode_segment
from authz_verifier.documents import KeySet, require_secure
from authz_verifier.errors import invalid_token
from authz_verifier.signed_documents import open_signed
from authz_verifier.tokens import SKEW_SECONDS

STATUS_LIST_TYPE = "statuslist+jwt"
VALID = 0
#: What the statuses are called in the log; any other value is refused too.
STATUS_NAMES = {1: "revoked", 2: "suspended"}
#: Bounds of a list, before and after decompression.
MAXIMUM_LIST_CHARACTERS = 1_000_000
MAXIMUM_LIST_BYTES = 2 * 1_048_576
#: For a list without `ttl`, and at most.
DEFAULT_TTL_SECONDS = 300.0
MAXIMUM_TTL_SECONDS = 3_600.0
_BITS = frozenset({1, 2, 4, 8})


class StatusReference(NamedTuple):
    """The entry of a token (`status.status_list`, 6.1).

    Attributes:
        uri: the address of the list.
        position: the place in the list.
    """

    uri: str
    position: int


@dataclass(frozen=True, slots=True)
class StatusList:
    """A verified list.

    Attributes:
        bits: the bits of each status.
        statuses: the statuses, packed.
        ttl_seconds: how long it may be used.
        expires_at: its `exp`, in seconds since 1970; infinite without one.
    """

    bits: int
    statuses: bytes = field(repr=False)
    ttl_seconds: float
    expires_at: float

    def find(self, index: int) -> int:
        """Return a status.

        Raises:
            IndexError: the list has no such place.
        """
        in_byte = 8 // self.bits
        return self.statuses[index // in_byte] >> index % in_byte * self.bits & (1 << self.bits) - 1


def read_reference(claims: Mapping[str, Any]) -> StatusReference:
    """Return the entry of a token.

    Raises:
        Refusal: it has none, or a malformed one.
    """
    status = claims.get("status")
    found = status.get("status_list") if isinstance(status, dict) else None
    if not isinstance(found, dict):
        raise invalid_token("no status list")
    index = found.get("idx")
    if not isinstance(index, int) or isinstance(index, bool) or index < 0:
        raise invalid_token("status index")
    try:
        return StatusReference(require_secure(found.get("uri"), "uri"), index)
    except ValueError:
        raise invalid_token("status uri") from None


def parse_status_list(  # noqa: PLR0913, PLR0917 - what a list is checked against
    data: bytes, uri: str, issuer: str, keys: KeySet, algorithms: frozenset[str], now: float
) -> StatusList:
    """Read a status list token (5.1, 8.3).

    Args:
        data: the JWT.
        uri: its address, which `sub` must repeat.
        issuer: the only accepted `iss`.
        keys: the issuer's keys.
        algorithms: the accepted algorithms.
        now: seconds since 1970.

    Raises:
        ValueError: it is malformed, forged, of another address, expired or too large.
        UnknownKeyError: its `kid` is not in the key set.
    """
    token = data.decode("ascii").strip()
    claims = open_signed(token, STATUS_LIST_TYPE, keys, algorithms, MAXIMUM_LIST_CHARACTERS)
    if claims.get("sub") != uri:
        raise ValueError("sub")
    if claims.get("iss", issuer) != issuer:
        raise ValueError("iss")
    if _number(claims, "iat") > now + SKEW_SECONDS:
        raise ValueError("not valid yet")
    expires_at = _number(claims, "exp") if "exp" in claims else float("inf")
    if now >= expires_at:
        raise ValueError("expired")
    ttl = _number(claims, "ttl") if "ttl" in claims else DEFAULT_TTL_SECONDS
    if ttl <= 0:
        raise ValueError("ttl")
    found = claims.get("status_list")
    bits = found.get("bits") if isinstance(found, dict) else None
    # A boolean and a float can equal an integer.
    if not isinstance(found, dict) or type(bits) is not int or bits not in _BITS:
        raise ValueError("status_list")
    statuses = _decompress(found.get("lst"))
    return StatusList(bits, statuses, min(ttl, MAXIMUM_TTL_SECONDS), expires_at)


def _number(claims: Mapping[str, Any], name: str) -> float:
    value = claims.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(name)  # noqa: TRY004 - one error for a malformed list
    return value


def _decompress(encoded: object) -> bytes:
    """Return the statuses; the memory that this takes is bounded."""
    if not isinstance(encoded, str):
        raise ValueError("lst")  # noqa: TRY004 - one error for a malformed list
    decompressor = zlib.decompressobj()
    try:
        statuses = decompressor.decompress(decode_segment(encoded.encode()), MAXIMUM_LIST_BYTES + 1)
    except zlib.error:
        raise ValueError("lst is not compressed by zlib") from None
    if len(statuses) > MAXIMUM_LIST_BYTES:
        raise ValueError("the list is too large")
    if not decompressor.eof or decompressor.unused_data:
        raise ValueError("the list is truncated")
    return statuses
