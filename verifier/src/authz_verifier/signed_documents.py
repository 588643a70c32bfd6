"""Signed documents of an issuer other than access tokens: status lists and security events."""

from typing import Any

from authz_verifier.compact import parse_compact
from authz_verifier.documents import KeySet
from authz_verifier.strict_json import parse_object
from authz_verifier.tokens import HEADER_MEMBERS, UnknownKeyError


def open_signed(
    token: str, typ: str, keys: KeySet, algorithms: frozenset[str], maximum_characters: int
) -> dict[str, Any]:
    """Return the claims of a signed document; the caller checks them.

    Args:
        token: the document.
        typ: the only accepted `typ`.
        keys: the issuer's keys.
        algorithms: the accepted algorithms.
        maximum_characters: the largest document.

    Raises:
        ValueError: it is malformed, or not signed by one of the keys.
        UnknownKeyError: its `kid` is not in the key set.
    """
    parsed = parse_compact(token, maximum_characters)
    header = parsed.header
    kid, algorithm, found = header.get("kid"), header.get("alg"), header.get("typ")
    if not header.keys() <= HEADER_MEMBERS:
        raise ValueError("header members")
    if not (isinstance(kid, str) and isinstance(algorithm, str) and isinstance(found, str)):
        raise ValueError("header values")  # noqa: TRY004 - one error for a malformed document
    if found.lower().removeprefix("application/") != typ:
        raise ValueError("typ")
    if algorithm not in algorithms:
        raise ValueError("algorithm")
    verify = keys.find(kid, algorithm)
    if verify is None:
        if kid in keys.kids:
            raise ValueError("the key has another algorithm")
        raise UnknownKeyError
    if not verify(parsed.signature, parsed.signing_input):
        raise ValueError("signature")
    return parse_object(parsed.payload)
