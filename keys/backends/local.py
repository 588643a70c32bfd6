"""Backends that sign in this process: private keys loaded once from where they rest, and kept.

Keys in memory cannot be fenced, so a node that missed a change signs until its snapshot is too old.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Protocol

from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_der_private_key,
)

from keys.algorithms import Algorithm, allowed_algorithms, get_algorithm
from keys.backend import BackendView, Caps, Health, Version
from keys.backends.envelope import Envelope
from keys.backends.storage import EncryptedKey, EncryptedKeyStorage
from keys.errors import (
    BackendBroken,
    BackendDenied,
    BackendError,
    BackendUnavailable,
    VersionUnusable,
)
from keys.jose import public_jwk, thumbprint
from keys.signatures import PrivateKey, Signer, generate_private_key, make_signer

#: Each lost race means that another process added a version in between.
CREATE_ATTEMPTS = 20


@dataclass(frozen=True, slots=True)
class _LoadedKey:
    alg: str
    sign: Signer


class Sealing(Protocol):
    """Turns a private key into what is stored and back: see ``keys.backends.envelope``."""

    def seal(self, private_key: bytes, *, ring: str, version: int, kid: str) -> bytes:
        """Return what is stored for ``private_key`` (PKCS #8, DER)."""

    def open(self, envelope: bytes, *, ring: str, version: int, kid: str) -> bytes:
        """Return the private key, or raise BackendDenied or BackendBroken."""


class InProcessBackend:
    """Keeps private keys in a storage and signs in this process.

    Args:
        storage: Where the sealed private keys are.
        sealing: How they are sealed there.
        clock: Returns the present, timezone-aware.
        experimental: Whether experimental algorithms are switched on.
    """

    scheme = "local"
    caps = Caps(
        algs=allowed_algorithms(experimental=False),
        in_process=True,
        prehash=False,
        batch=False,
        can_create=True,
        can_fence=False,
        can_destroy=True,
    )

    def __init__(
        self,
        storage: EncryptedKeyStorage,
        sealing: Sealing,
        clock: Callable[[], datetime],
        *,
        experimental: bool = False,
    ) -> None:
        if experimental:
            self.caps = replace(self.caps, algs=allowed_algorithms(experimental=True))
        self._storage = storage
        self._sealing = sealing
        self._clock = clock
        self._loaded: dict[tuple[str, str], _LoadedKey] = {}

    def view(self, ring: str) -> BackendView:
        """Return what is kept of ``ring``, without decrypting anything."""
        versions = tuple(_public_version(key) for key in self._storage.load(ring))
        floor = versions[0].ref if versions else None
        return BackendView(versions, sign_floor=floor, verify_floor=floor, disabled=False)

    def sign(self, ring: str, ref: str, alg: str, inputs: Sequence[bytes]) -> list[bytes]:
        """Sign in this process; the first signature of a version loads its private key."""
        loaded = self._loaded.get((ring, ref)) or self._load(ring, ref)
        if loaded.alg != alg:
            raise VersionUnusable(f"version {ref} of {ring!r} is for {loaded.alg}, not for {alg}")
        return [loaded.sign(data) for data in inputs]

    def create(self, ring: str, alg: str) -> Version:
        """Make a key, seal it and keep it as the next version."""
        private_key = generate_private_key(self._require_allowed(alg))
        for _ in range(CREATE_ATTEMPTS):
            held = self._storage.load(ring)
            key = self._seal(private_key, ring, held[-1].version + 1 if held else 1, alg)
            if self._storage.add(key):
                return _public_version(key)
        raise BackendUnavailable(f"others keep adding versions to {ring!r}", retry_after=1)

    def fence(self, ring: str, sign_floor: str) -> None:
        """Refuse: other processes hold the key in memory and ask nobody before they sign."""
        raise BackendDenied(f"{ring!r} cannot be fenced at {sign_floor}: its keys are in memory")

    def destroy(self, ring: str, verify_floor: str) -> None:
        """Delete the envelopes below the floor and forget the keys that were in them."""
        held = {str(key.version) for key in self._storage.load(ring)}
        if verify_floor not in held:
            raise VersionUnusable(f"version {verify_floor} of {ring!r} is not held")
        self._storage.delete_below(ring, int(verify_floor))
        for name, ref in list(self._loaded):
            if name == ring and int(ref) < int(verify_floor):
                del self._loaded[name, ref]

    def health(self) -> Health:
        """Open one envelope, if there is any."""
        try:
            key = self._storage.find_any()
            if key is not None:
                self._open(key)
        except BackendError as error:
            return Health(usable=False, detail=str(error))
        return Health(usable=True, detail="keys can be opened" if key else "no keys yet")

    def _load(self, ring: str, ref: str) -> _LoadedKey:
        for key in self._storage.load(ring):
            if str(key.version) == ref:
                signer = make_signer(self._open(key), self._require_allowed(key.alg))
                self._loaded[ring, ref] = loaded = _LoadedKey(key.alg, signer)
                return loaded
        raise VersionUnusable(f"version {ref} of {ring!r} is not held")

    def _require_allowed(self, alg: str) -> Algorithm:
        algorithm = get_algorithm(alg)
        if alg not in self.caps.algs:
            raise BackendDenied(f"{alg} is experimental, and that is not switched on")
        return algorithm

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
            envelope=self._sealing.seal(plain, ring=ring, version=version, kid=kid),
        )

    def _open(self, key: EncryptedKey) -> PrivateKey:
        plain = self._sealing.open(key.envelope, ring=key.ring, version=key.version, kid=key.kid)
        private_key = load_der_private_key(plain, password=None)
        if not isinstance(private_key, PrivateKey):
            raise BackendBroken(f"the private key of {key.kid} is of an unexpected type")
        if thumbprint(public_jwk(private_key)) != key.kid:
            raise BackendBroken(f"the private key of {key.kid} belongs to another public key")
        return private_key


class LocalBackend(InProcessBackend):
    """Keeps private keys encrypted under this server's key-encryption key.

    Args:
        storage: Where the envelopes are.
        key_encryption_key: 32 bytes.
        clock: Returns the present, timezone-aware.
        experimental: Whether experimental algorithms are switched on.
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
        sealing = Envelope(key_encryption_key)
        super().__init__(storage, sealing, clock, experimental=experimental)


def _public_version(key: EncryptedKey) -> Version:
    if thumbprint(key.public_jwk) != key.kid:
        raise BackendBroken(f"the public key kept as {key.kid} is another one")
    return Version(str(key.version), key.public_jwk, key.created_at)
