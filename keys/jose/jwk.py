"""Adapter to the JOSE library: public keys as JWK, thumbprints, the JWKS."""

import json
from collections.abc import Iterable, Mapping
from hashlib import sha256
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from jwcrypto.common import JWException
from jwcrypto.jwk import JWK

from keys.errors import KeysError
from keys.jose.algorithms import KEY_USE, get_algorithm
from keys.jose.compact import encode_segment
from keys.jose.signatures import PrivateKey, PublicKey, require_fit
from keys.signing_key import SigningKey

#: The public members of each key type (RFC 7518, 6; RFC 8037, 2; RFC 9964). No other member is ever
#: published. "alg" is part of keys without a curve to identify their algorithm.
PUBLIC_MEMBERS: Mapping[str, tuple[str, ...]] = {
    "EC": ("kty", "crv", "x", "y"),
    "RSA": ("kty", "n", "e"),
    "OKP": ("kty", "crv", "x"),
    "AKP": ("kty", "alg", "pub"),
}


def public_jwk(key: PrivateKey | PublicKey) -> dict[str, str]:
    """Return the public half of ``key`` as a JWK, with the members of its type only.

    Raises:
        KeysError: its curve has no name in JWKs.
    """
    public = key if isinstance(key, PublicKey) else key.public_key()
    try:
        members: dict[str, str] = JWK.from_pyca(public).export_public(as_dict=True)
    except (JWException, KeyError, ValueError) as error:
        # The library looks the curve up.
        raise KeysError("a key has an unsupported curve") from error
    return {name: members[name] for name in PUBLIC_MEMBERS[members["kty"]]}


def thumbprint(jwk: Mapping[str, str]) -> str:
    """Return the RFC 7638 thumbprint (SHA-256, base64url) of a public key.

    Raises:
        KeysError: it is not a public key.
    """
    _parse(jwk)
    return compute_thumbprint(jwk)


def compute_thumbprint(members: Mapping[str, str]) -> str:
    """Return the RFC 7638 thumbprint of a public key that has been read.

    Args:
        members: :data:`PUBLIC_MEMBERS` of its type, each in its only encoding.
    """
    text = json.dumps(members, sort_keys=True, separators=(",", ":"))
    return encode_segment(sha256(text.encode()).digest()).decode()


def load_public_key(jwk: Mapping[str, str], alg: str) -> PublicKey:
    """Return the public key in ``jwk``.

    Raises:
        KeysError: it is not a public JWK with exactly the members of its type, or does not fit
            ``alg``: type, curve, point, size or exponent (RFC 8725, 3.1 and 3.4).
    """
    algorithm = get_algorithm(alg)
    if jwk.get("kty") != algorithm.kty:
        raise KeysError(f"a key of type {jwk.get('kty')!r} does not fit {alg}")
    try:
        key: PublicKey = _parse(jwk).get_op_key("verify")
    except (JWException, ValueError) as error:
        raise KeysError("a public key cannot be read") from error
    require_fit(key, algorithm)
    return key


def require_canonical_point(key: EllipticCurvePublicKey, jwk: Mapping[str, str]) -> None:
    """Refuse coordinates of another length (RFC 7518, 6.2.1.2), or beyond the field.

    They would be another thumbprint of the same key.

    Raises:
        KeysError: a coordinate of ``jwk`` is not encoded as that of ``key``.
    """
    point = key.public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)[1:]
    half = len(point) // 2
    coordinates = encode_segment(point[:half]), encode_segment(point[half:])
    if coordinates != (jwk["x"].encode(), jwk["y"].encode()):
        raise KeysError("a key has a coordinate of the wrong length")


def jwks_document(keys: Iterable[SigningKey]) -> bytes:
    """Return the JWKS (RFC 7517, 5) of ``keys`` in their order, identical on every node."""
    members = [
        {
            **{name: key.public_jwk[name] for name in PUBLIC_MEMBERS[key.public_jwk["kty"]]},
            "use": KEY_USE,
            "alg": key.alg,
            "kid": key.kid,
        }
        for key in keys
    ]
    return json.dumps({"keys": members}, sort_keys=True, separators=(",", ":")).encode()


def _parse(jwk: Mapping[str, str]) -> Any:  # noqa: ANN401 - the library has no types
    expected = PUBLIC_MEMBERS.get(jwk.get("kty", "")) if _all_text(jwk) else None
    if expected is None or set(jwk) != set(expected):
        raise KeysError("not a public JWK with exactly the members of its type")
    try:
        return JWK(**jwk)
    except (JWException, ValueError) as error:
        raise KeysError("a public key cannot be read") from error


def _all_text(jwk: Mapping[str, object]) -> bool:
    # A JWK may come from a row with arbitrary JSON.
    return all(isinstance(value, str) for value in jwk.values())
