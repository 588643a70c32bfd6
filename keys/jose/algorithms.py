"""The signature algorithms spoken here and what a key must be to fit each."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from keys.errors import KeysError

#: RFC 7518, 3.3; NIST SP 800-131A. 3072 bits cost 2.5 times as much per signature.
MINIMUM_RSA_BITS = 2048
DEFAULT_RSA_BITS = 2048
MINIMUM_RSA_EXPONENT = 65537
KEY_USE = "sig"


@dataclass(frozen=True, slots=True)
class Algorithm:
    """One JWS algorithm (RFC 7518, 3.1; RFC 8037, 3.1; RFC 9964).

    Attributes:
        name: The ``alg`` value.
        kty: The key type that it needs.
        crv: The curve that it needs, or None where the type has none.
        hash_name: The digest, or None where the algorithm hashes by itself.
        signature_bytes: The exact size of a signature, or None: as large as the key's modulus.
        experimental: Few verifiers know it yet, so keys for it are made and used only where that
            is switched on.
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
            # Verifiers in use refuse RFC 9864's "Ed25519", so the older name is the one emitted.
            Algorithm("EdDSA", "OKP", "Ed25519", None, 64),
            # FIPS 204. All three have one key type; the "alg" in the JWK tells them apart.
            Algorithm("ML-DSA-44", "AKP", None, None, 2420, experimental=True),
            Algorithm("ML-DSA-65", "AKP", None, None, 3309, experimental=True),
            Algorithm("ML-DSA-87", "AKP", None, None, 4627, experimental=True),
        )
    }
)


def get_algorithm(name: str) -> Algorithm:
    """Return the algorithm called ``name``; KeysError names the known ones if there is none."""
    try:
        return ALGORITHMS[name]
    except KeyError:
        raise KeysError(
            f"{name!r} is not a signature algorithm known here: {', '.join(ALGORITHMS)}"
        ) from None


def allowed_algorithms(*, experimental: bool) -> frozenset[str]:
    """Return the names of the algorithms that keys may be made for.

    Args:
        experimental: Whether the experimental ones are switched on.
    """
    return frozenset(
        name for name, algorithm in ALGORITHMS.items() if experimental or not algorithm.experimental
    )
