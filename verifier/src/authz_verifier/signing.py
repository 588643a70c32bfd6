"""Private keys that sign tokens and proofs, for tests and for the probe."""

import json
from collections.abc import Mapping
from typing import Any

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

from authz_verifier.algorithms import thumbprint
from authz_verifier.compact import encode_segment

_CURVES: dict[str, tuple[ec.EllipticCurve, hashes.HashAlgorithm, int]] = {
    "ES256": (ec.SECP256R1(), hashes.SHA256(), 32),
    "ES384": (ec.SECP384R1(), hashes.SHA384(), 48),
    "ES512": (ec.SECP521R1(), hashes.SHA512(), 66),
}
_PADDINGS: dict[str, padding.AsymmetricPadding] = {
    "RS256": padding.PKCS1v15(),
    "PS256": padding.PSS(padding.MGF1(hashes.SHA256()), padding.PSS.DIGEST_LENGTH),
}
PrivateKey = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey


class SigningKey:
    """A private key.

    Args:
        algorithm: ES256, ES384, ES512, PS256, RS256 or EdDSA.
        private: the key; None makes a new one.
        kid: its id; empty: its thumbprint.
    """

    def __init__(
        self, algorithm: str = "ES256", private: PrivateKey | None = None, kid: str = ""
    ) -> None:
        self.algorithm = algorithm
        self._private = private or _generate(algorithm)
        #: The public key without further members.
        self.bare_jwk = _public_jwk(self._private)
        self.thumbprint = thumbprint(self.bare_jwk)
        self.kid = kid or self.thumbprint

    @property
    def public_jwk(self) -> dict[str, Any]:
        """The public key as an issuer publishes it."""
        return self.bare_jwk | {"kid": self.kid, "alg": self.algorithm, "use": "sig"}

    def sign(self, claims: Mapping[str, Any], header: Mapping[str, Any] | None = None) -> str:
        """Return a signed token.

        Args:
            claims: its payload.
            header: members over the usual `alg` and `kid`; None takes one away.
        """
        usual = {"alg": self.algorithm, "kid": self.kid} | dict(header or {})
        members = {name: value for name, value in usual.items() if value is not None}
        return self.sign_segments(_json(members), _json(claims))

    def sign_segments(self, header: bytes, payload: bytes) -> str:
        """Return a token of any header and payload."""
        data = encode_segment(header) + b"." + encode_segment(payload)
        return f"{data.decode()}.{encode_segment(self.sign_bytes(data)).decode()}"

    def sign_bytes(self, data: bytes) -> bytes:
        """Return the signature over some bytes in JOSE's encoding."""
        if isinstance(self._private, ec.EllipticCurvePrivateKey):
            _, digest, half = _CURVES[self.algorithm]
            r, s = decode_dss_signature(self._private.sign(data, ec.ECDSA(digest)))
            return r.to_bytes(half) + s.to_bytes(half)
        if isinstance(self._private, rsa.RSAPrivateKey):
            return self._private.sign(data, _PADDINGS[self.algorithm], hashes.SHA256())
        return self._private.sign(data)


def _generate(algorithm: str) -> PrivateKey:
    if algorithm in _CURVES:
        return ec.generate_private_key(_CURVES[algorithm][0])
    if algorithm in _PADDINGS:
        return rsa.generate_private_key(65_537, 2_048)
    if algorithm in {"EdDSA", "Ed25519"}:
        return ed25519.Ed25519PrivateKey.generate()
    raise ValueError(f"{algorithm} is not supported")


def _public_jwk(private: PrivateKey) -> dict[str, Any]:
    if isinstance(private, ec.EllipticCurvePrivateKey):
        numbers = private.public_key().public_numbers()
        half = (private.key_size + 7) // 8
        crv = {256: "P-256", 384: "P-384", 521: "P-521"}[private.key_size]
        return {
            "kty": "EC",
            "crv": crv,
            "x": _octets(numbers.x, half),
            "y": _octets(numbers.y, half),
        }
    if isinstance(private, rsa.RSAPrivateKey):
        public = private.public_key().public_numbers()
        size = (private.key_size + 7) // 8
        return {"kty": "RSA", "n": _octets(public.n, size), "e": _octets(public.e, 3)}
    raw = private.public_key().public_bytes_raw()
    return {"kty": "OKP", "crv": "Ed25519", "x": encode_segment(raw).decode()}


def _octets(number: int, size: int) -> str:
    return encode_segment(number.to_bytes(size)).decode()


def _json(members: Mapping[str, Any]) -> bytes:
    return json.dumps(members, separators=(",", ":")).encode()
