"""Rings in memory over the local backend, with a clock that stands still."""

from dataclasses import dataclass, replace
from datetime import datetime

import pytest
from cryptography.hazmat.primitives.serialization import load_der_private_key

from keys.backends.local.envelope import Envelope
from keys.backends.local.sql import LocalBackend
from keys.jose.signatures import PrivateKey
from keys.lifecycle.first_key import create_first_key
from keys.memory import MemoryEncryptedKeyStorage, MemoryKeyStore
from keys.ring import KeyRings
from keys.signing_key import KeyState, RingDefinition, SigningKey
from keys.store import KeyChange
from support.clock import FakeClock

KEY_ENCRYPTION_KEY = bytes(range(32))


@dataclass
class RingSet:
    """Rings named after their algorithm and everything that they are made of."""

    clock: FakeClock
    store: MemoryKeyStore
    storage: MemoryEncryptedKeyStorage
    backend: LocalBackend
    rings: KeyRings

    def add(self, alg: str, **definition: int) -> None:
        """Add a ring with its first keys and read it."""
        ring = RingDefinition(name=alg, alg=alg, backend_uri="sql://", **definition)
        assert create_first_key(self.store, self.backend, ring, clock=self.clock, actor="test")
        self.rings.refresh()

    def key(self, ring: str, version: int) -> SigningKey:
        """Return one version as the store has it."""
        return next(key for key in self.store.rings[ring].keys if key.version == version)

    def change(self, ring: str, version: int, state: KeyState, **members: datetime) -> None:
        """Bring a key into another state, without reading it."""
        key = replace(self.key(ring, version), state=state, **members)
        change = KeyChange(key=key, event="test", actor="test", reason="test", at=self.clock())
        assert self.store.change_ring(ring, self.store.rings[ring].epoch, [change])

    def private_key(self, ring: str, version: int) -> PrivateKey:
        """Open the envelope of one version."""
        key = self.storage.load(ring)[version - 1]
        plain = Envelope(KEY_ENCRYPTION_KEY).open(
            key.envelope, ring=ring, version=version, kid=key.kid
        )
        return load_der_private_key(plain, password=None)

    def open_rings(self) -> KeyRings:
        """Return the rings as another process would open them."""
        backend = LocalBackend(self.storage, KEY_ENCRYPTION_KEY, self.clock)
        return KeyRings(self.store, {"sql://": backend}, self.clock, "ES256")


def _make_ring_set() -> RingSet:
    clock, store, storage = FakeClock(), MemoryKeyStore(), MemoryEncryptedKeyStorage()
    backend = LocalBackend(storage, KEY_ENCRYPTION_KEY, clock)
    rings = KeyRings(store, {"sql://": backend}, clock, "ES256")
    return RingSet(clock, store, storage, backend, rings)


@pytest.fixture
def empty_ring_set() -> RingSet:
    """No ring at all."""
    return _make_ring_set()


@pytest.fixture(scope="module")
def shared_ring_set() -> RingSet:
    """As `empty_ring_set`, for the tests of a file that change nothing but add rings."""
    return _make_ring_set()


@pytest.fixture
def ring_set(empty_ring_set: RingSet) -> RingSet:
    """The ring ES256 with an active key and a standby."""
    empty_ring_set.add("ES256")
    return empty_ring_set
