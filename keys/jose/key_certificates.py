"""The X.509 certificate of a JWK (RFC 7517, 4.7 to 4.9)."""

from base64 import b64decode
from collections.abc import Mapping
from hashlib import sha1, sha256

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.x509 import InvalidVersion, load_der_x509_certificate

from keys.errors import KeysError
from keys.jose.compact import encode_segment
from keys.jose.signatures import PublicKey

_DIGESTS = (("x5t", sha1), ("x5t#S256", sha256))


def read_key_certificate(jwk: Mapping[str, object], key: PublicKey) -> bytes:
    """Return the first certificate of ``x5c``, in DER, which must be of the key.

    Its signature and its time are not checked.

    Args:
        jwk: a JWK with ``x5c``.
        key: the key that its other members represent.

    Raises:
        KeysError: it cannot be read, is of another key, or has another thumbprint than ``x5t`` or
            ``x5t#S256``.
    """
    chain = jwk["x5c"]
    first = chain[0] if isinstance(chain, list) and chain else None
    if not isinstance(first, str):
        raise KeysError("a key has an x5c that is not a list of certificates")
    try:
        # RFC 7517, 4.7: base64, not base64url.
        der = b64decode(first, validate=True)
        certified = load_der_x509_certificate(der).public_key()
    except (ValueError, TypeError, Warning, UnsupportedAlgorithm, InvalidVersion):
        raise KeysError("a key has an x5c whose first certificate cannot be read") from None
    if certified != key:
        raise KeysError("a key has an x5c whose first certificate belongs to another key")
    for name, digest in _DIGESTS:
        stated = jwk.get(name)
        if stated is not None and stated != encode_segment(digest(der).digest()).decode():
            raise KeysError(f"a key has an {name} that is not of its x5c")
    return der
