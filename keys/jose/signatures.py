"""Signatures in JOSE's encoding, made and verified with ``cryptography``."""

from collections.abc import Callable
from hashlib import shake_256

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding
from cryptography.hazmat.primitives.asymmetric.ec import (
    ECDSA,
    SECP256R1,
    SECP384R1,
    SECP521R1,
    EllipticCurve,
    EllipticCurvePrivateKey,
    EllipticCurvePublicKey,
)
from cryptography.hazmat.primitives.asymmetric.ec import generate_private_key as generate_ec_key
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.mldsa import (
    MLDSA44PrivateKey,
    MLDSA44PublicKey,
    MLDSA65PrivateKey,
    MLDSA65PublicKey,
    MLDSA87PrivateKey,
    MLDSA87PublicKey,
)
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, RSAPublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key as generate_rsa_key
from cryptography.hazmat.primitives.asymmetric.utils import (
    decode_dss_signature,
    encode_dss_signature,
)

from keys.errors import KeysError, TokenRefusedError
from keys.jose.algorithms import (
    DEFAULT_RSA_BITS,
    MINIMUM_RSA_BITS,
    MINIMUM_RSA_EXPONENT,
    Algorithm,
)

LatticePrivateKey = MLDSA44PrivateKey | MLDSA65PrivateKey | MLDSA87PrivateKey
LatticePublicKey = MLDSA44PublicKey | MLDSA65PublicKey | MLDSA87PublicKey
PrivateKey = EllipticCurvePrivateKey | RSAPrivateKey | Ed25519PrivateKey | LatticePrivateKey
PublicKey = EllipticCurvePublicKey | RSAPublicKey | Ed25519PublicKey | LatticePublicKey
Signer = Callable[[bytes], bytes]
Verifier = Callable[[bytes, bytes], None]

#: Up to this size of r and s, each length in their DER encoding takes one byte.
SHORT_DER_HALF_BYTES = 48

_CURVES: dict[str, EllipticCurve] = {
    "P-256": SECP256R1(),
    "P-384": SECP384R1(),
    "P-521": SECP521R1(),
}
_HASHES: dict[str, hashes.HashAlgorithm] = {
    "sha256": hashes.SHA256(),
    "sha384": hashes.SHA384(),
    "sha512": hashes.SHA512(),
}
_LATTICES: dict[str, tuple[type[LatticePrivateKey], type[LatticePublicKey]]] = {
    "ML-DSA-44": (MLDSA44PrivateKey, MLDSA44PublicKey),
    "ML-DSA-65": (MLDSA65PrivateKey, MLDSA65PublicKey),
    "ML-DSA-87": (MLDSA87PrivateKey, MLDSA87PublicKey),
}
#: FIPS 204, table 1 and algorithm 26: by the size of a signature, the bytes of its challenge, the
#: bytes of z, and the bits of a coefficient of z.
_LATTICE_PARTS = {2420: (32, 2304, 18), 3309: (48, 3200, 20), 4627: (64, 4480, 20)}


def generate_private_key(algorithm: Algorithm) -> PrivateKey:
    """Return a new private key for ``algorithm``; RSA takes tens of milliseconds."""
    if algorithm.kty == "EC":
        return generate_ec_key(_CURVES[algorithm.crv or ""])
    if algorithm.kty == "RSA":
        return generate_rsa_key(MINIMUM_RSA_EXPONENT, DEFAULT_RSA_BITS)
    if algorithm.kty == "AKP":
        return _LATTICES[algorithm.name][0].generate()
    return Ed25519PrivateKey.generate()


def require_fit(key: object, algorithm: Algorithm) -> None:
    """Raise KeysError unless the public ``key`` has the type and strength for ``algorithm``."""
    if isinstance(key, EllipticCurvePublicKey):
        fits = algorithm.kty == "EC" and key.curve.name == _CURVES[algorithm.crv or ""].name
    elif isinstance(key, RSAPublicKey):
        fits = algorithm.kty == "RSA"
        _require_strong_rsa(key)
    elif isinstance(key, LatticePublicKey):
        fits = algorithm.kty == "AKP" and isinstance(key, _LATTICES[algorithm.name][1])
    else:
        fits = algorithm.kty == "OKP" and isinstance(key, Ed25519PublicKey)
    if not fits:
        raise KeysError(f"the key does not fit {algorithm.name}")


def _require_strong_rsa(key: RSAPublicKey) -> None:
    exponent = key.public_numbers().e
    if key.key_size < MINIMUM_RSA_BITS:
        raise KeysError(
            f"an RSA key has {key.key_size} bits; at least {MINIMUM_RSA_BITS} are needed"
        )
    if exponent < MINIMUM_RSA_EXPONENT or exponent % 2 == 0:
        raise KeysError(f"an RSA key has the public exponent {exponent}")


def signature_size(key: PublicKey, algorithm: Algorithm) -> int:
    """Return the size in bytes of every signature of ``key``."""
    if isinstance(key, RSAPublicKey):
        return (key.key_size + 7) // 8
    return algorithm.signature_bytes or 0


def make_signer(key: PrivateKey, algorithm: Algorithm) -> Signer:
    """Return a function from input to signature, with all preparation done."""
    if isinstance(key, EllipticCurvePrivateKey):
        return _ecdsa_signer(key, algorithm)
    if isinstance(key, RSAPrivateKey):
        digest, scheme = _HASHES[algorithm.hash_name or ""], _rsa_padding(algorithm)
        return lambda data: key.sign(data, scheme, digest)
    return key.sign


def make_verifier(key: PublicKey, algorithm: Algorithm) -> Verifier:
    """Return a function of signature and input that raises TokenRefusedError on a mismatch."""
    if isinstance(key, EllipticCurvePublicKey):
        return _refusing(_ecdsa_verifier(key, algorithm))
    if isinstance(key, RSAPublicKey):
        digest, scheme = _HASHES[algorithm.hash_name or ""], _rsa_padding(algorithm)
        return _refusing(lambda signature, data: key.verify(signature, data, scheme, digest))
    return _refusing(key.verify)


def meaningless_signature(size: int) -> bytes:
    """Return an invalid signature that takes as long to verify as a valid one of that size.

    A zero at the start of either half keeps an RSA value below the modulus, and r and s below the
    order. The last byte keeps an Ed25519 scalar in range. An ML-DSA signature has a z of zeros and
    no hints. Without these properties the verifier would skip the expensive part.
    """
    if size in _LATTICE_PARTS:
        return _meaningless_lattice_signature(size)
    signature = bytearray(shake_256(b"meaningless signature").digest(size))
    signature[0] = signature[size // 2] = 0
    signature[-1] = 1
    return bytes(signature)


def _meaningless_lattice_signature(size: int) -> bytes:
    challenge_bytes, z_bytes, bits = _LATTICE_PARTS[size]
    challenge = shake_256(b"meaningless signature").digest(challenge_bytes)
    # A coefficient is stored as its distance from half the range, lowest bit first, in groups of
    # four.
    zero = sum(1 << (bits * place + bits - 1) for place in range(4)).to_bytes(bits // 2, "little")
    return challenge + zero * (z_bytes // len(zero)) + bytes(size - challenge_bytes - z_bytes)


def _refusing(verify: Verifier) -> Verifier:
    def refusing(signature: bytes, data: bytes) -> None:
        try:
            verify(signature, data)
        except (InvalidSignature, ValueError):
            raise TokenRefusedError("wrong signature", signature_checked=True) from None

    return refusing


def _rsa_padding(algorithm: Algorithm) -> padding.PKCS1v15 | padding.PSS:
    if algorithm.name.startswith("PS"):
        digest = _HASHES[algorithm.hash_name or ""]
        return padding.PSS(padding.MGF1(digest), padding.PSS.DIGEST_LENGTH)
    return padding.PKCS1v15()


def _ecdsa_signer(key: EllipticCurvePrivateKey, algorithm: Algorithm) -> Signer:
    scheme = ECDSA(_HASHES[algorithm.hash_name or ""])
    half = (algorithm.signature_bytes or 0) // 2
    sign = key.sign

    def signer(data: bytes) -> bytes:
        r, s = decode_dss_signature(sign(data, scheme))
        return r.to_bytes(half) + s.to_bytes(half)

    def short_signer(data: bytes) -> bytes:
        # Tag, length, tag, length, r, tag, length, s (X.690, 8.1): slice without parsing integers.
        der = sign(data, scheme)
        end = 4 + der[3]
        r, s = der[4:end], der[end + 2 :]
        return r.lstrip(b"\0").rjust(half, b"\0") + s.lstrip(b"\0").rjust(half, b"\0")

    return short_signer if half <= SHORT_DER_HALF_BYTES else signer


def _ecdsa_verifier(key: EllipticCurvePublicKey, algorithm: Algorithm) -> Verifier:
    scheme = ECDSA(_HASHES[algorithm.hash_name or ""])
    half = (algorithm.signature_bytes or 0) // 2
    order = key.curve.group_order

    def verifier(signature: bytes, data: bytes) -> None:
        r, s = int.from_bytes(signature[:half]), int.from_bytes(signature[half:])
        if not (0 < r < order and 0 < s < order):
            raise TokenRefusedError("signature out of range")
        key.verify(encode_dss_signature(r, s), data, scheme)

    return verifier
