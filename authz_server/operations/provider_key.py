"""The private key by which this server authenticates to the provider of ``[admin.openid]``."""

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from authz_server.settings import SettingsError

_KEY = "admin.openid.private_key"
_CURVES = {"secp256r1": "ES256", "secp384r1": "ES384", "secp521r1": "ES512"}


def load_provider_key(
    pem: bytes,
) -> tuple[RSAPrivateKey | EllipticCurvePrivateKey | Ed25519PrivateKey, str]:
    """Return the private key in PEM, and the algorithm that it signs with.

    Raises:
        SettingsError: it cannot be used.
    """
    try:
        key = load_pem_private_key(pem, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise SettingsError("the key is not an unencrypted PEM file", key=_KEY) from error
    if isinstance(key, RSAPrivateKey):
        return key, "RS256"
    if isinstance(key, Ed25519PrivateKey):
        return key, "EdDSA"
    if isinstance(key, EllipticCurvePrivateKey) and key.curve.name in _CURVES:
        return key, _CURVES[key.curve.name]
    raise SettingsError("the key is neither RSA, nor of a NIST curve, nor Ed25519", key=_KEY)
