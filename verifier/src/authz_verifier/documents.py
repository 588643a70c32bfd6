"""Documents of an authorization server: metadata (RFC 8414) and keys (RFC 7517, 5)."""

from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Any
from urllib.parse import urlsplit

from authz_verifier.algorithms import (
    ALGORITHMS,
    PRIVATE_MEMBERS,
    Verify,
    algorithms_of,
    make_verifier,
)
from authz_verifier.strict_json import parse_object

MAXIMUM_KID_CHARACTERS = 256
MAXIMUM_KEYS = 200
OAUTH_WELL_KNOWN = "/.well-known/oauth-authorization-server"
OPENID_WELL_KNOWN = "/.well-known/openid-configuration"


@dataclass(frozen=True, slots=True)
class Metadata:
    """The members of an authorization server's metadata that a resource server needs.

    Attributes:
        issuer: its identifier.
        jwks_uri: the address of its keys.
        introspection_endpoint: empty if it has none.
        algorithms: the algorithms of its tokens; all supported ones if it names none.
        security_event_endpoint: where events are polled; empty if it has none.
    """

    issuer: str
    jwks_uri: str
    introspection_endpoint: str
    algorithms: frozenset[str]
    security_event_endpoint: str = ""


class KeySet:
    """The usable public keys of an issuer.

    Args:
        keys: for each `kid` and `alg`, the function that verifies.
    """

    __slots__ = ("_keys",)

    def __init__(self, keys: Mapping[tuple[str, str], Verify]) -> None:
        self._keys = dict(keys)

    def __len__(self) -> int:
        return len({kid for kid, _ in self._keys})

    def find(self, kid: str, algorithm: str) -> Verify | None:
        """Return the function that verifies signatures of a key, or None."""
        return self._keys.get((kid, algorithm))

    @property
    def kids(self) -> frozenset[str]:
        """The ids of the keys."""
        return frozenset(kid for kid, _ in self._keys)


def metadata_urls(issuer: str) -> tuple[str, str]:
    """Return the addresses of an issuer's metadata, in the order to try (RFC 8414, 3.1 and 5)."""
    parts = urlsplit(issuer)
    path = parts.path.rstrip("/")
    origin = f"{parts.scheme}://{parts.netloc}"
    return f"{origin}{OAUTH_WELL_KNOWN}{path}", f"{origin}{path}{OPENID_WELL_KNOWN}"


def require_secure(url: object, name: str) -> str:
    """Return a URL with https, or with http on a loopback address.

    Raises:
        ValueError: it is anything else; the message begins with `name`.
    """
    if not isinstance(url, str) or not url.isascii() or not url.isprintable():
        raise ValueError(f"{name} is not a URL")
    parts = urlsplit(url)
    host = parts.hostname or ""
    if parts.scheme == "https" and host and not parts.username:
        return url
    if parts.scheme == "http" and _is_loopback(host):
        return url
    raise ValueError(f"{name} must use https (http only on a loopback address)")


def parse_metadata(data: bytes, issuer: str) -> Metadata:
    """Read the metadata of an issuer.

    Args:
        data: the JSON document.
        issuer: the identifier that it must state (RFC 8414, 3.3).

    Raises:
        ValueError: it is malformed, belongs to another issuer, or names an insecure address.
    """
    members = parse_object(data)
    if members.get("issuer") != issuer:
        raise ValueError("the metadata belongs to another issuer")
    endpoint = members.get("introspection_endpoint", "")
    events = members.get("security_event_endpoint", "")
    return Metadata(
        issuer=issuer,
        jwks_uri=require_secure(members.get("jwks_uri"), "jwks_uri"),
        introspection_endpoint=endpoint and require_secure(endpoint, "introspection_endpoint"),
        algorithms=_token_algorithms(members),
        security_event_endpoint=events and require_secure(events, "security_event_endpoint"),
    )


def parse_key_set(data: bytes) -> KeySet:
    """Read a JWK set.

    Keys of another use or type, malformed and weak keys are left out, as RFC 7517, 5 requires. A
    `kid` that occurs twice is left out too, because it does not identify a key.

    Raises:
        ValueError: the document is malformed, or no usable key is left.
    """
    listed = parse_object(data).get("keys")
    if not isinstance(listed, list) or len(listed) > MAXIMUM_KEYS:
        raise ValueError("not a JWK set")
    kids = [jwk["kid"] for jwk in listed if isinstance(jwk, dict) and _is_usable(jwk)]
    keys: dict[tuple[str, str], Verify] = {}
    for jwk in listed:
        if isinstance(jwk, dict) and _is_usable(jwk) and kids.count(jwk["kid"]) == 1:
            keys |= _verifiers(jwk)
    if not keys:
        raise ValueError("the JWK set has no usable key")
    return KeySet(keys)


def _token_algorithms(members: Mapping[str, Any]) -> frozenset[str]:
    named = members.get("id_token_signing_alg_values_supported")
    if not isinstance(named, list):
        return ALGORITHMS
    supported = ALGORITHMS.intersection(name for name in named if isinstance(name, str))
    return supported or ALGORITHMS


def _is_usable(jwk: Mapping[str, Any]) -> bool:
    kid, operations = jwk.get("kid"), jwk.get("key_ops", ["verify"])
    return (
        isinstance(kid, str)
        and 0 < len(kid) <= MAXIMUM_KID_CHARACTERS
        and jwk.get("use", "sig") == "sig"
        and isinstance(operations, list)
        and "verify" in operations
        and PRIVATE_MEMBERS.isdisjoint(jwk)
    )


def _verifiers(jwk: Mapping[str, Any]) -> dict[tuple[str, str], Verify]:
    try:
        return {(jwk["kid"], name): make_verifier(jwk, name) for name in algorithms_of(jwk)}
    except ValueError:
        return {}


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False
