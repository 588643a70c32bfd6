"""What the local backend needs to keep its encrypted private keys."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol


@dataclass(frozen=True, slots=True, kw_only=True)
class EncryptedKey:
    """A private key at rest.

    Attributes:
        ring: Name of its ring.
        version: Its number in the ring, from 1.
        kid: RFC 7638 thumbprint of its public half.
        alg: Its algorithm.
        public_jwk: Its public half.
        created_at: When it was made.
        envelope: The encrypted private key, see ``keys.backends.local.envelope``.
    """

    ring: str
    version: int
    kid: str
    alg: str
    public_jwk: Mapping[str, str]
    created_at: datetime
    envelope: bytes = field(repr=False)


class EncryptedKeyStorage(Protocol):
    """Keeps encrypted private keys; raises BackendUnavailable when it cannot be reached."""

    def load(self, ring: str) -> tuple[EncryptedKey, ...]:
        """Return every version of ``ring``, lowest first."""

    def find_any(self) -> EncryptedKey | None:
        """Return some key, or None if there is none."""

    def add(self, key: EncryptedKey) -> bool:
        """Keep ``key``; return False, with nothing kept, if its version or kid is taken."""

    def delete_below(self, ring: str, version: int) -> None:
        """Delete every version of ``ring`` below ``version``."""
