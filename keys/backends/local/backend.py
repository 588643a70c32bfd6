"""Local backend: private keys encrypted with the server's key, and signatures in this process."""

from collections.abc import Callable
from contextlib import suppress
from datetime import datetime

from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_der_private_key,
)

from keys.backend import BackendView, Health, Version
from keys.backends.in_process import InProcessBackend
from keys.backends.local.envelope import Envelope
from keys.backends.local.storage import EncryptedKey, EncryptedKeyStorage
from keys.errors import (
    BackendBroken,
    BackendDenied,
    BackendError,
    BackendUnavailable,
    VersionUnusable,
)
from keys.jose.jwk import public_jwk, thumbprint
from keys.jose.signatures import PrivateKey, generate_private_key

#: Each failed attempt means that another process added a version in between.
CREATE_ATTEMPTS = 20


class LocalBackend(InProcessBackend):
    """Stores private keys encrypted with this server's key-encryption key.

    Args:
        storage: stores the envelopes.
        key_encryption_key: 32 bytes.
        clock: returns the present time, timezone-aware.
        experimental: whether experimental algorithms are enabled.
    """

    scheme = "sql"

    def __init__(
        self,
        storage: EncryptedKeyStorage,
        key_encryption_key: bytes,
        clock: Callable[[], datetime],
        *,
        experimental: bool = False,
    ) -> None:
        super().__init__(experimental=experimental)
        self._storage = storage
        self._envelope = Envelope(key_encryption_key)
        self._clock = clock
        self._abandoned: set[str] = set()

    def describe_versions(self, ring: str) -> BackendView:
        """Return the stored versions of ``ring``, without decrypting anything."""
        versions = tuple(_public_version(key) for key in self._storage.load(ring))
        return BackendView(versions, sign_floor=None, verify_floor=None, disabled=False)

    def create(self, ring: str, alg: str) -> Version:
        """Generate a key, encrypt it and store it as the next version."""
        private_key = generate_private_key(self._require_allowed(alg))
        for _ in range(CREATE_ATTEMPTS):
            held = self._storage.load(ring)
            if ring not in self._abandoned:
                self._require_same_key(held[-1] if held else self._storage.find_newest())
            key = self._seal(private_key, ring, held[-1].version + 1 if held else 1, alg)
            if self._storage.add(key):
                return _public_version(key)
        raise BackendUnavailable(f"others keep adding versions to {ring!r}", retry_after=1)

    def abandon(self, ring: str) -> None:
        """Permit the next version of ``ring`` although this key opens no older one."""
        self._abandoned.add(ring)

    def destroy(self, ring: str, verify_floor: str) -> None:
        """Delete the envelopes below the floor, and drop their keys from memory."""
        held = {str(key.version) for key in self._storage.load(ring)}
        if verify_floor not in held:
            raise VersionUnusable(f"version {verify_floor} of {ring!r} is not held")
        self._storage.delete_below(ring, int(verify_floor))
        self._forget_below(ring, int(verify_floor))

    def health(self) -> Health:
        """Decrypt the newest envelope."""
        try:
            key = self._storage.find_newest()
            if key is not None:
                self._open_any(key)
        except BackendError as error:
            return Health(usable=False, detail=str(error))
        return Health(usable=True, detail="keys can be opened" if key else "no keys yet")

    def _require_same_key(self, key: EncryptedKey | None) -> None:
        """Raise BackendDenied if a stored key is encrypted under another key-encryption key.

        A version under this one would be published, and no server could sign with it.
        """
        if key is not None:
            with suppress(BackendBroken):  # that key alone cannot be used
                self._open_any(key)

    def _open_any(self, key: EncryptedKey) -> None:
        try:
            self._open(key)
        except BackendDenied:
            # Without the key's id, which may belong to another ring.
            raise BackendDenied(
                "the keys here are encrypted under another key-encryption key"
            ) from None

    def _load(self, ring: str, ref: str) -> tuple[PrivateKey, str]:
        for key in self._storage.load(ring):
            if str(key.version) == ref:
                return self._open(key), key.alg
        raise VersionUnusable(f"version {ref} of {ring!r} is not held")

    def _seal(self, private_key: PrivateKey, ring: str, version: int, alg: str) -> EncryptedKey:
        jwk = public_jwk(private_key)
        kid = thumbprint(jwk)
        plain = private_key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
        return EncryptedKey(
            ring=ring,
            version=version,
            kid=kid,
            alg=alg,
            public_jwk=jwk,
            created_at=self._clock(),
            envelope=self._envelope.seal(plain, ring=ring, version=version, kid=kid),
        )

    def _open(self, key: EncryptedKey) -> PrivateKey:
        plain = self._envelope.open(key.envelope, ring=key.ring, version=key.version, kid=key.kid)
        private_key = load_der_private_key(plain, password=None)
        if not isinstance(private_key, PrivateKey):
            raise BackendBroken(f"the private key of {key.kid} is of an unexpected type")
        if thumbprint(public_jwk(private_key)) != key.kid:
            raise BackendBroken(f"the private key of {key.kid} belongs to another public key")
        return private_key


def _public_version(key: EncryptedKey) -> Version:
    if thumbprint(key.public_jwk) != key.kid:
        raise BackendBroken(f"the public key stored as {key.kid} has another thumbprint")
    return Version(str(key.version), key.public_jwk, key.created_at)
