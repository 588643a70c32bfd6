"""Interface of the storage of encrypted private keys."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol


@dataclass(frozen=True, slots=True, kw_only=True)
class EncryptedKey:
    """A stored private key.

    Attributes:
        ring: the name of its ring.
        version: its number in the ring, from 1.
        kid: the RFC 7638 thumbprint of its public half.
        alg: its algorithm.
        public_jwk: its public half.
        created_at: the time of creation.
        envelope: the encrypted private key, see ``keys.backends.local.envelope``.
    """

    ring: str
    version: int
    kid: str
    alg: str
    public_jwk: Mapping[str, str]
    created_at: datetime
    envelope: bytes = field(repr=False)


class EncryptedKeyStorage(Protocol):
    """Stores encrypted private keys; raises BackendUnavailable if it cannot be reached."""

    def load(self, ring: str) -> tuple[EncryptedKey, ...]:
        """Return every version of ``ring``, lowest first."""

    def find_newest(self) -> EncryptedKey | None:
        """Return the key that was created last, of any ring; None if there is none."""

    def add(self, key: EncryptedKey) -> bool:
        """Store ``key``; return False, with nothing stored, if its version or kid is taken."""

    def delete_below(self, ring: str, version: int) -> None:
        """Delete every version of ``ring`` below ``version``."""
