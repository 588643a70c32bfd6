"""DPoP proofs at a resource server (RFC 9449, 4.3 and 7)."""

import hashlib
import threading
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote, unquote, urlsplit

from authz_verifier.algorithms import (
    PRIVATE_MEMBERS,
    algorithms_of,
    make_verifier,
    thumbprint,
)
from authz_verifier.compact import CompactToken, encode_segment, parse_compact
from authz_verifier.errors import invalid_proof, unavailable
from authz_verifier.requests import Request
from authz_verifier.strict_json import parse_object

#: A proof is accepted for this time after its `iat`, plus the tolerance of clocks on both sides.
PROOF_SECONDS = 60
SKEW_SECONDS = 10
#: Accepted in proofs, in the order of the challenge.
PROOF_ALGORITHMS = ("ES256", "ES384", "ES512", "PS256", "RS256", "EdDSA", "Ed25519")
MAXIMUM_JTI_CHARACTERS = 256
_HEADER_MEMBERS = frozenset({"alg", "typ", "jwk", "kid"})
_PORTS = {"http": 80, "https": 443}
_UNRESERVED = "-._~!$&'()*+,;=:@/"


class ReplayCache:
    """Remembers accepted proofs of this process until they would expire anyway.

    Args:
        capacity: the most proofs that it remembers. While it is full, proofs are refused with 503:
            an older one that it forgot could be replayed.
    """

    def __init__(self, capacity: int = 100_000) -> None:
        self._capacity = capacity
        self._expiry_of: OrderedDict[bytes, float] = OrderedDict()
        self._lock = threading.Lock()

    def use(self, key: bytes, now: float, expires_at: float) -> bool:
        """Note a proof; return whether it is its first use.

        Args:
            key: identifies the proof.
            now: seconds since 1970.
            expires_at: when the proof is refused for its age.

        Raises:
            Refusal: the cache is full.
        """
        with self._lock:
            while self._expiry_of:
                oldest = next(iter(self._expiry_of))
                if self._expiry_of[oldest] > now:
                    break
                del self._expiry_of[oldest]
            if key in self._expiry_of:
                return False
            if len(self._expiry_of) >= self._capacity:
                raise unavailable("the replay cache is full")
            self._expiry_of[key] = expires_at
            return True

    def forget_threads(self) -> None:
        """Replace the lock after a fork: a thread of the parent may have held it."""
        self._lock = threading.Lock()


def verify_proof(
    request: Request, token: str, confirmed: str, now: float, replays: ReplayCache
) -> None:
    """Verify the proof of a request with a DPoP-bound token.

    Args:
        request: with its proof.
        token: the access token.
        confirmed: `cnf.jkt` of the token.
        now: seconds since 1970.
        replays: the proofs that were used.

    Raises:
        Refusal: the proof is missing or wrong (401), or the replay cache is full (503).
    """
    if len(request.proofs) != 1:
        raise invalid_proof(f"{len(request.proofs)} DPoP headers")
    try:
        parsed = parse_compact(request.proofs[0])
        jwk = _verify_signature(parsed)
        claims = parse_object(parsed.payload)
        jkt = thumbprint(jwk)
    except ValueError as error:
        raise invalid_proof(str(error)) from None
    if jkt != confirmed:
        raise invalid_proof("another key than the token's")
    _check_claims(claims, request, token, now)
    used = hashlib.sha256(f"{jkt} {claims['jti']}".encode()).digest()
    if not replays.use(used, now, now + PROOF_SECONDS + 2 * SKEW_SECONDS):
        raise invalid_proof("replayed")


def normalize_url(url: str) -> str:
    """Return a URL without query and fragment, normalized (RFC 3986, 6.2.2 and 6.2.3).

    Raises:
        ValueError: it is not an HTTP URL.
    """
    parts = urlsplit(url)
    scheme, host = parts.scheme.lower(), (parts.hostname or "").lower()
    if scheme not in _PORTS or not host or not url.isascii():
        raise ValueError("not an HTTP URL")
    port = parts.port
    authority = f"[{host}]" if ":" in host else host
    if port is not None and port != _PORTS[scheme]:
        authority = f"{authority}:{port}"
    return f"{scheme}://{authority}{_normalize_path(parts.path)}"


def _normalize_path(path: str) -> str:
    # An encoded slash differs from a slash; it stays encoded.
    segments = [quote(unquote(each), safe=_UNRESERVED.replace("/", "")) for each in path.split("/")]
    return "/".join(segments) or "/"


def _verify_signature(parsed: CompactToken) -> Mapping[str, Any]:
    header = parsed.header
    jwk, algorithm = header.get("jwk"), header.get("alg")
    if not header.keys() <= _HEADER_MEMBERS:
        raise ValueError("header members")
    if header.get("typ") != "dpop+jwt":
        raise ValueError("typ")
    if not isinstance(jwk, dict) or not PRIVATE_MEMBERS.isdisjoint(jwk):
        raise ValueError("jwk")
    if not isinstance(algorithm, str) or algorithm not in algorithms_of(jwk):
        raise ValueError("algorithm")
    if not make_verifier(jwk, algorithm)(parsed.signature, parsed.signing_input):
        raise ValueError("signature")
    return jwk


def _check_claims(claims: Mapping[str, Any], request: Request, token: str, now: float) -> None:
    jti, iat, htu = claims.get("jti"), claims.get("iat"), claims.get("htu")
    if not isinstance(jti, str) or not 0 < len(jti) <= MAXIMUM_JTI_CHARACTERS:
        raise invalid_proof("jti")
    if claims.get("htm") != request.method:
        raise invalid_proof("htm")
    if not isinstance(htu, str) or not _is_same_url(htu, request.url):
        raise invalid_proof("htu")
    if iat.__class__ is not int and iat.__class__ is not float:
        raise invalid_proof("iat")
    if not now - PROOF_SECONDS - SKEW_SECONDS < float(str(iat)) <= now + SKEW_SECONDS:
        raise invalid_proof("iat")
    if claims.get("ath") != encode_segment(hashlib.sha256(token.encode()).digest()).decode():
        raise invalid_proof("ath")


def _is_same_url(first: str, second: str) -> bool:
    try:
        return normalize_url(first) == normalize_url(second)
    except ValueError:
        return False
