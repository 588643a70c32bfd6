"""Public keys from JWKs (RFC 7517), each as a function that verifies signatures."""

import hashlib
import json
from collections.abc import Callable, Mapping
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding
from cryptography.hazmat.primitives.asymmetric.ec import (
    ECDSA,
    SECP256R1,
    SECP384R1,
    SECP521R1,
    EllipticCurve,
    EllipticCurvePublicKey,
    EllipticCurvePublicNumbers,
)
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey, RSAPublicNumbers
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

from authz_verifier.compact import decode_segment, encode_segment

#: Returns whether a signature over the input is valid.
Verify = Callable[[bytes, bytes], bool]
PublicKey = EllipticCurvePublicKey | RSAPublicKey | Ed25519PublicKey

#: RFC 7518, 3.3
MINIMUM_RSA_BITS = 2048
MAXIMUM_RSA_BITS = 16_384
MINIMUM_RSA_EXPONENT = 65_537
MAXIMUM_RSA_EXPONENT = 2**32
PRIVATE_MEMBERS = frozenset({"d", "p", "q", "dp", "dq", "qi", "oth", "k"})

_CURVES: dict[str, tuple[str, EllipticCurve, hashes.HashAlgorithm, int]] = {
    "ES256": ("P-256", SECP256R1(), hashes.SHA256(), 32),
    "ES384": ("P-384", SECP384R1(), hashes.SHA384(), 48),
    "ES512": ("P-521", SECP521R1(), hashes.SHA512(), 66),
}
_RSA: dict[str, padding.PSS | padding.PKCS1v15] = {
    "RS256": padding.PKCS1v15(),
    "PS256": padding.PSS(padding.MGF1(hashes.SHA256()), padding.PSS.DIGEST_LENGTH),
}
#: RFC 9864 renames EdDSA to Ed25519.
_ED25519 = frozenset({"EdDSA", "Ed25519"})
ALGORITHMS = frozenset({*_CURVES, *_RSA, *_ED25519})
#: The members of a thumbprint (RFC 7638, 3.2; RFC 8037, 2), in order.
_THUMBPRINT_MEMBERS = {
    "EC": ("crv", "kty", "x", "y"),
    "RSA": ("e", "kty", "n"),
    "OKP": ("crv", "kty", "x"),
}


def algorithms_of(jwk: Mapping[str, Any]) -> frozenset[str]:
    """Return the supported algorithms that a JWK may be used with; empty if there are none."""
    fitting = _fitting(jwk)
    named = jwk.get("alg")
    if named is None:
        return fitting
    if not isinstance(named, str):
        return frozenset()
    return fitting & (_ED25519 if named in _ED25519 else {named})


def make_verifier(jwk: Mapping[str, Any], algorithm: str) -> Verify:
    """Return a function that verifies signatures of one public key with one algorithm.

    Args:
        jwk: a public key.
        algorithm: one of `algorithms_of(jwk)`.

    Raises:
        ValueError: the key is malformed, too weak or too large.
    """
    key = load_public_key(jwk)
    if isinstance(key, EllipticCurvePublicKey):
        return _ecdsa(key, algorithm)
    if isinstance(key, RSAPublicKey):
        return _rsa(key, algorithm)

    def verify(signature: bytes, data: bytes) -> bool:
        try:
            key.verify(signature, data)
        except InvalidSignature:
            return False
        return True

    return verify


def load_public_key(jwk: Mapping[str, Any]) -> PublicKey:
    """Return the public key of a JWK of a supported type.

    Raises:
        ValueError: the key is malformed, too weak or too large.
    """
    kty, crv = jwk.get("kty"), jwk.get("crv")
    if kty == "OKP" and crv == "Ed25519":
        return Ed25519PublicKey.from_public_bytes(_octets(jwk, "x"))
    if kty == "RSA":
        return _load_rsa(jwk)
    for name, curve, _, half in _CURVES.values():
        if kty == "EC" and crv == name:
            x, y = _octets(jwk, "x"), _octets(jwk, "y")
            if len(x) != half or len(y) != half:
                raise ValueError("a coordinate has the wrong size")
            numbers = EllipticCurvePublicNumbers(int.from_bytes(x), int.from_bytes(y), curve)
            return numbers.public_key()
    raise ValueError("not a key of a supported type")


def thumbprint(jwk: Mapping[str, Any]) -> str:
    """Return the SHA-256 thumbprint of a public key (RFC 7638).

    Raises:
        ValueError: the key has no known type or lacks a member.
    """
    try:
        members = {name: jwk[name] for name in _THUMBPRINT_MEMBERS[jwk["kty"]]}
    except (KeyError, TypeError):
        raise ValueError("not a public key") from None
    canonical = json.dumps(members, separators=(",", ":"), ensure_ascii=False).encode()
    return encode_segment(hashlib.sha256(canonical).digest()).decode()


def _fitting(jwk: Mapping[str, Any]) -> frozenset[str]:
    kty, crv = jwk.get("kty"), jwk.get("crv")
    if kty == "RSA":
        return frozenset(_RSA)
    if kty == "OKP":
        return _ED25519 if crv == "Ed25519" else frozenset()
    if kty == "EC":
        return frozenset(name for name, (curve, *_) in _CURVES.items() if curve == crv)
    return frozenset()


def _ecdsa(key: EllipticCurvePublicKey, algorithm: str) -> Verify:
    _, curve, digest, half = _CURVES[algorithm]
    scheme, order = ECDSA(digest), curve.group_order

    def verify(signature: bytes, data: bytes) -> bool:
        if len(signature) != 2 * half:
            return False
        r, s = int.from_bytes(signature[:half]), int.from_bytes(signature[half:])
        if not (0 < r < order and 0 < s < order):
            return False
        try:
            key.verify(encode_dss_signature(r, s), data, scheme)
        except InvalidSignature:
            return False
        return True

    return verify


def _load_rsa(jwk: Mapping[str, Any]) -> RSAPublicKey:
    modulus, exponent = int.from_bytes(_octets(jwk, "n")), int.from_bytes(_octets(jwk, "e"))
    if not MINIMUM_RSA_BITS <= modulus.bit_length() <= MAXIMUM_RSA_BITS:
        raise ValueError("an RSA key has the wrong size")
    if not MINIMUM_RSA_EXPONENT <= exponent <= MAXIMUM_RSA_EXPONENT or exponent % 2 == 0:
        raise ValueError("an RSA key has a wrong exponent")
    return RSAPublicNumbers(exponent, modulus).public_key()


def _rsa(key: RSAPublicKey, algorithm: str) -> Verify:
    scheme, digest = _RSA[algorithm], hashes.SHA256()

    def verify(signature: bytes, data: bytes) -> bool:
        try:
            key.verify(signature, data, scheme, digest)
        except (InvalidSignature, ValueError):
            return False
        return True

    return verify


def _octets(jwk: Mapping[str, Any], name: str) -> bytes:
    value = jwk.get(name)
    if not isinstance(value, str):
        raise ValueError(f"a key lacks {name}")  # noqa: TRY004 - one error for a malformed key
    return decode_segment(value.encode("ascii"))
