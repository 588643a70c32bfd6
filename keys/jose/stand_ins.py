"""Verifications by keys that sign nothing, so that a refusal takes the time of a real one."""

from contextlib import suppress
from functools import lru_cache
from hashlib import shake_256

from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicNumbers

from keys.errors import TokenRefusedError
from keys.jose.algorithms import MINIMUM_RSA_EXPONENT
from keys.jose.foreign import FOREIGN_ALGORITHMS, make_bounded_verifier
from keys.jose.signatures import (
    PublicKey,
    Verifier,
    generate_private_key,
    meaningless_signature,
    signature_size,
)

#: The sizes in bytes of the RSA signatures with a key of their own.
_RSA_SIGNATURES = (256, 384, 512)


def stand_in_verifier(alg: str, signature_bytes: int) -> Verifier:
    """Return the verifier of a key that nothing is signed with, for equal timing.

    Args:
        alg: one of :data:`FOREIGN_ALGORITHMS`.
        signature_bytes: the size of the signature, which determines the size of an RSA key.
    """
    known = signature_bytes in _RSA_SIGNATURES
    return _stand_in(alg, signature_bytes if known else _RSA_SIGNATURES[0])[0]


def spend_one_verification(alg: str, signature: bytes, data: bytes) -> None:
    """Spend the time of verifying a signature of ``alg``, for equal timing.

    Args:
        alg: the ``alg`` of the token; an unknown one costs nothing.
        signature: its signature; the size determines the size of an RSA key.
        data: its signing input.
    """
    if alg in FOREIGN_ALGORITHMS:
        size = len(signature) if len(signature) in _RSA_SIGNATURES else _RSA_SIGNATURES[0]
        verify, meaningless = _stand_in(alg, size)
        with suppress(TokenRefusedError):
            verify(meaningless, data)


@lru_cache(maxsize=len(FOREIGN_ALGORITHMS) * len(_RSA_SIGNATURES))
def _stand_in(alg: str, rsa_bytes: int) -> tuple[Verifier, bytes]:
    algorithm = FOREIGN_ALGORITHMS[alg]
    key: PublicKey
    if algorithm.kty == "RSA":
        # No private key belongs to it: verification does not need one.
        digest = bytearray(shake_256(b"modulus").digest(rsa_bytes))
        digest[0] |= 0x80
        digest[-1] |= 1
        key = RSAPublicNumbers(MINIMUM_RSA_EXPONENT, int.from_bytes(digest)).public_key()
    else:
        key = generate_private_key(algorithm).public_key()
    size = signature_size(key, algorithm)
    return make_bounded_verifier(key, algorithm), meaningless_signature(size)
