"""The compact serialization of a signed token (RFC 7515, 3.1), with strict parsing."""

import json
from binascii import Error as Base64Error
from binascii import a2b_base64, b2a_base64
from collections.abc import Mapping
from functools import lru_cache
from math import isfinite
from types import MappingProxyType
from typing import Any, NamedTuple, NoReturn

from keys.errors import TokenRefusedError

MAXIMUM_TOKEN_CHARACTERS = 16_384
MAXIMUM_KID_CHARACTERS = 128
#: Enough for a time in nanoseconds.
MAXIMUM_NUMBER_CHARACTERS = 20
#: How deep objects and lists are nested at most. The limit of the library is another one in each
#: release of Python.
MAXIMUM_DEPTH = 100
#: The header members of this server's tokens. Any other (crit, b64, jwk, jku, x5u, x5c, zip, enc)
#: is refused before it is interpreted.
HEADER_MEMBERS = frozenset({"alg", "kid", "typ"})
SEGMENTS = 3
_URL_SAFE = bytes.maketrans(b"+/", b"-_")
_STANDARD = bytes.maketrans(b"-_", b"+/")


class CompactToken(NamedTuple):
    """A parsed token; nothing in it is trusted before its signature is verified.

    Attributes:
        header: ``alg``, ``kid`` and ``typ``, each a string.
        payload: the signed bytes, decoded.
        signature: the signature, decoded.
        signing_input: header and payload as presented.
    """

    header: Mapping[str, str]
    payload: bytes
    signature: bytes
    signing_input: bytes


def encode_segment(data: bytes) -> bytes:
    """Return base64url without padding (RFC 7515, 2)."""
    return b2a_base64(data, newline=False).translate(_URL_SAFE, b"=")


def encode_header(alg: str, kid: str, typ: str) -> bytes:
    """Return the first segment of a token, with its dot."""
    header = json.dumps({"alg": alg, "typ": typ, "kid": kid}, separators=(",", ":"))
    return encode_segment(header.encode()) + b"."


def parse_compact(token: str) -> CompactToken:
    """Parse ``token``.

    Raises:
        TokenRefusedError: it is too large, not three non-empty segments, not canonical base64url,
            or its header is not exactly as this server writes it. Nothing else is raised for any
            text.
    """
    header, payload, signature = split_segments(token, MAXIMUM_TOKEN_CHARACTERS)
    return CompactToken(
        header=_read_header(header),
        payload=decode_segment(payload),
        signature=decode_segment(signature),
        signing_input=header + b"." + payload,
    )


def split_segments(token: str, maximum_characters: int) -> list[bytes]:
    """Return the three encoded segments of ``token``.

    Raises:
        TokenRefusedError: it is too large, not ASCII, or not three segments.
    """
    if len(token) > maximum_characters:
        raise TokenRefusedError("too large")
    if token.count(".") != SEGMENTS - 1:
        raise TokenRefusedError("not three segments")
    try:
        return token.encode("ascii").split(b".")
    except UnicodeEncodeError:
        raise TokenRefusedError("not ASCII") from None


def parse_json_object(data: bytes) -> dict[str, Any]:
    """Return the JSON object in ``data``, which must be UTF-8 without repeated members.

    Raises:
        TokenRefusedError: it is anything else, nested too deeply, or holds NaN, an oversized
            number or a lone surrogate.
    """
    try:
        value = _DECODER.decode(data.decode())
        if b"\\u" in data:
            json.dumps(value, ensure_ascii=False).encode()  # fails for a lone surrogate
    except (ValueError, RecursionError):
        raise TokenRefusedError("not a JSON object") from None
    if not isinstance(value, dict):
        raise TokenRefusedError("not a JSON object")
    if data.count(b"[") + data.count(b"{") > MAXIMUM_DEPTH:
        _require_shallow(value)
    return value


def _require_shallow(value: Any) -> None:  # noqa: ANN401 - of any type
    level = [value]
    for _ in range(MAXIMUM_DEPTH):
        parts = [each for each in level if isinstance(each, dict | list)]
        if not parts:
            return
        level = [one for each in parts for one in (each.values() if type(each) is dict else each)]
    raise TokenRefusedError("not a JSON object")


def decode_segment(segment: bytes) -> bytes:
    """Return the bytes of a non-empty segment in canonical base64url without padding.

    Raises:
        TokenRefusedError: it is anything else.
    """
    # The library skips unknown characters; encoding again reveals whether the segment was
    # canonical.
    try:
        data = a2b_base64(segment.translate(_STANDARD) + b"==")
    except Base64Error:
        raise TokenRefusedError("not base64url") from None
    if not data or encode_segment(data) != segment:
        raise TokenRefusedError("not base64url")
    return data


@lru_cache(maxsize=64)
def _read_header(segment: bytes) -> Mapping[str, str]:
    # Cached: all tokens of a key have the same header. Refused headers are not cached.
    header = parse_json_object(decode_segment(segment))
    if header.keys() != HEADER_MEMBERS:
        raise TokenRefusedError("header members")
    if not all(isinstance(value, str) for value in header.values()):
        raise TokenRefusedError("header values")
    if len(header["kid"]) > MAXIMUM_KID_CHARACTERS:
        raise TokenRefusedError("unknown key")
    return MappingProxyType(header)


def _unique_members(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise TokenRefusedError("repeated member")
    return members


def _refuse_constant(name: str) -> NoReturn:
    raise TokenRefusedError(f"{name} is not a number")


def _bounded_integer(digits: str) -> int:
    if len(digits) > MAXIMUM_NUMBER_CHARACTERS:
        raise TokenRefusedError("oversized number")
    return int(digits)


def _finite_float(digits: str) -> float:
    value = float(digits)
    if not isfinite(value):
        raise TokenRefusedError("oversized number")
    return value


_DECODER = json.JSONDecoder(
    object_pairs_hook=_unique_members,
    parse_constant=_refuse_constant,
    parse_int=_bounded_integer,
    parse_float=_finite_float,
)
