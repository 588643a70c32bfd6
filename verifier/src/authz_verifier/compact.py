"""The compact serialization of signed tokens (RFC 7515, 3.1), with strict parsing."""

from binascii import Error as Base64Error
from binascii import a2b_base64, b2a_base64
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, NamedTuple

from authz_verifier.strict_json import parse_object

MAXIMUM_TOKEN_CHARACTERS = 16_384
SEGMENTS = 3
_URL_SAFE = bytes.maketrans(b"+/", b"-_")
_STANDARD = bytes.maketrans(b"-_", b"+/")


class CompactToken(NamedTuple):
    """A parsed token; nothing in it is trusted before its signature is verified.

    Attributes:
        header: the members of the header.
        payload: the signed bytes, decoded.
        signature: the signature, decoded.
        signing_input: header and payload as presented.
    """

    header: Mapping[str, Any]
    payload: bytes
    signature: bytes
    signing_input: bytes


def parse_compact(token: str, maximum_characters: int = MAXIMUM_TOKEN_CHARACTERS) -> CompactToken:
    """Parse a signed token.

    Args:
        token: as presented.
        maximum_characters: its largest size.

    Raises:
        ValueError: it is too large, not three non-empty segments of canonical base64url, or its
            header is not a JSON object.
    """
    if len(token) > maximum_characters:
        raise ValueError("too large")
    if token.count(".") != SEGMENTS - 1:
        raise ValueError("not three segments")
    header, payload, signature = token.encode("ascii").split(b".")
    return CompactToken(
        header=_read_header(header),
        payload=decode_segment(payload),
        signature=decode_segment(signature),
        signing_input=header + b"." + payload,
    )


def encode_segment(data: bytes) -> bytes:
    """Return base64url without padding (RFC 7515, 2)."""
    return b2a_base64(data, newline=False).translate(_URL_SAFE, b"=")


def decode_segment(segment: bytes) -> bytes:
    """Return the bytes of a non-empty segment in canonical base64url without padding.

    Raises:
        ValueError: it is anything else.
    """
    # The library skips unknown characters; encoding again reveals a segment that is not canonical.
    try:
        data = a2b_base64(segment.translate(_STANDARD) + b"==")
    except Base64Error:
        raise ValueError("not base64url") from None
    if not data or encode_segment(data) != segment:
        raise ValueError("not base64url")
    return data


@lru_cache(maxsize=64)
def _read_header(segment: bytes) -> Mapping[str, Any]:
    # Cached: all tokens of a key have the same header. Refused headers are not cached.
    return parse_object(decode_segment(segment))
