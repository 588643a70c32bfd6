"""The envelope of a stored private key: AES-256-GCM with the key-encryption key.

Layout: one byte of format, 8 bytes that identify the key-encryption key, 12 bytes of nonce,
ciphertext and tag. Ring, version and kid are authenticated, so that an envelope copied to another
row cannot be opened.
"""

import hmac
import json
import secrets

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from keys.errors import BackendBroken, BackendDenied, KeysError

KEY_ENCRYPTION_KEY_BYTES = 32
_FORMAT = b"\x01"
_NAME_BYTES = 8
_NONCE_BYTES = 12
_HEAD_BYTES = len(_FORMAT) + _NAME_BYTES + _NONCE_BYTES


class Envelope:
    """Seals and opens private keys with one key-encryption key.

    Args:
        key_encryption_key: 32 random bytes; KeysError for another length.
    """

    def __init__(self, key_encryption_key: bytes) -> None:
        if len(key_encryption_key) != KEY_ENCRYPTION_KEY_BYTES:
            raise KeysError(
                f"a key-encryption key has {KEY_ENCRYPTION_KEY_BYTES} bytes, "
                f"not {len(key_encryption_key)}"
            )
        self._cipher = AESGCM(key_encryption_key)
        self._name = hmac.digest(key_encryption_key, b"name of this key", "sha256")[:_NAME_BYTES]

    def seal(self, private_key: bytes, *, ring: str, version: int, kid: str) -> bytes:
        """Return ``private_key`` encrypted for exactly this ring, version and kid."""
        nonce = secrets.token_bytes(_NONCE_BYTES)
        sealed = self._cipher.encrypt(nonce, private_key, _associated_data(ring, version, kid))
        return _FORMAT + self._name + nonce + sealed

    def open(self, envelope: bytes, *, ring: str, version: int, kid: str) -> bytes:
        """Return the private key in ``envelope``.

        Raises:
            BackendDenied: it was sealed with another key-encryption key.
            BackendBroken: it was changed, or belongs to another ring, version or kid.
        """
        head, sealed = envelope[:_HEAD_BYTES], envelope[_HEAD_BYTES:]
        if not head.startswith(_FORMAT) or len(head) < _HEAD_BYTES:
            raise BackendBroken(f"the private key of {kid} is not in a known envelope")
        if not hmac.compare_digest(head[1 : 1 + _NAME_BYTES], self._name):
            raise BackendDenied(
                f"the private key of {kid} is encrypted under another key-encryption key"
            )
        try:
            return self._cipher.decrypt(
                head[-_NONCE_BYTES:], sealed, _associated_data(ring, version, kid)
            )
        except InvalidTag:
            raise BackendBroken(
                f"the private key of {kid} was changed, or is not version {version} of {ring!r}"
            ) from None


def _associated_data(ring: str, version: int, kid: str) -> bytes:
    return json.dumps(["authz-server signing key", 1, ring, version, kid]).encode()
