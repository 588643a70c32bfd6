"""Supported signature algorithms and their key requirements."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from keys.errors import KeysError

#: RFC 7518, 3.3; NIST SP 800-131A. A signature with 3072 bits takes 2.5 times as long.
MINIMUM_RSA_BITS = 2048
DEFAULT_RSA_BITS = 2048
MINIMUM_RSA_EXPONENT = 65537
KEY_USE = "sig"


@dataclass(frozen=True, slots=True)
class Algorithm:
    """One JWS algorithm (RFC 7518, 3.1; RFC 8037, 3.1; RFC 9964).

    Attributes:
        name: the ``alg`` value.
        kty: the required key type.
        crv: the required curve, or None if the type has none.
        hash_name: the digest, or None if the algorithm includes its own.
        signature_bytes: the exact size of a signature; None: the size of the key's modulus.
        experimental: few verifiers support it yet, so that it must be enabled.
    """

    name: str
    kty: str
    crv: str | None
    hash_name: str | None
    signature_bytes: int | None
    experimental: bool = False


ALGORITHMS: Mapping[str, Algorithm] = MappingProxyType(
    {
        algorithm.name: algorithm
        for algorithm in (
            Algorithm("ES256", "EC", "P-256", "sha256", 64),
            Algorithm("ES384", "EC", "P-384", "sha384", 96),
            Algorithm("ES512", "EC", "P-521", "sha512", 132),
            Algorithm("RS256", "RSA", None, "sha256", None),
            Algorithm("PS256", "RSA", None, "sha256", None),
            # Common verifiers refuse RFC 9864's "Ed25519", so that the older name is used.
            Algorithm("EdDSA", "OKP", "Ed25519", None, 64),
            # FIPS 204. All three share a key type; the "alg" in the JWK distinguishes them.
            Algorithm("ML-DSA-44", "AKP", None, None, 2420, experimental=True),
            Algorithm("ML-DSA-65", "AKP", None, None, 3309, experimental=True),
            Algorithm("ML-DSA-87", "AKP", None, None, 4627, experimental=True),
        )
    }
)


def get_algorithm(name: str) -> Algorithm:
    """Return the algorithm called ``name``.

    Raises:
        KeysError: there is no such algorithm; names the supported ones.
    """
    try:
        return ALGORITHMS[name]
    except KeyError:
        raise KeysError(
            f"{name!r} is not a supported signature algorithm: {', '.join(ALGORITHMS)}"
        ) from None


def allowed_algorithms(*, experimental: bool) -> frozenset[str]:
    """Return the names of the algorithms that keys may be created for.

    Args:
        experimental: whether experimental algorithms are enabled.
    """
    return frozenset(
        name for name, algorithm in ALGORITHMS.items() if experimental or not algorithm.experimental
    )
