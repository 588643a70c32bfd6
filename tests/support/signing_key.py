"""The private signing key of a server of the tests."""

from pathlib import Path

from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_der_private_key,
)

from authz_server.assembly.operator import operator_services
from authz_server.key_rings.private_keys import SqlEncryptedKeyStorage
from authz_server.settings import load_settings
from keys.backends.local.envelope import Envelope


def write_signing_key(settings_path: Path, kid: str, path: Path) -> None:
    """Write the private key with an id, of the ring `es256`, in PEM."""
    settings = load_settings(settings_path)
    sealed = settings.keys.key_encryption_key
    assert sealed is not None
    with operator_services(settings) as services:
        stored = SqlEncryptedKeyStorage(services.database.transaction).load("es256")
    (key,) = (each for each in stored if each.kid == kid)
    plain = Envelope(sealed.reveal()).open(
        key.envelope, ring=key.ring, version=key.version, kid=key.kid
    )
    private = load_der_private_key(plain, None)
    path.write_bytes(private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
