"""The values that describe a signing key and its ring; none of them holds a private key."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum


class KeyState(StrEnum):
    """Where a key stands in its life.

    What signs is decided by time, not by state: see ``keys.lifecycle.rules.find_active_key``.
    """

    PUBLISHED = "published"
    ACTIVE = "active"
    RETIRED = "retired"
    REMOVED = "removed"
    DESTROYED = "destroyed"
    TAINTED = "tainted"
    REVOKED = "revoked"


@dataclass(frozen=True, slots=True, kw_only=True)
class SigningKey:
    """One version of a ring's key, as the ring's tables record it.

    Attributes:
        ring: Name of the ring.
        version: Position in the ring, from 1; also the backend's reference to the key.
        kid: RFC 7638 thumbprint of the public key.
        alg: The one algorithm that it signs with.
        public_jwk: The public key, members of its type only.
        state: As last recorded.
        created_at: When the backend made it.
        published_at: When it entered the JWKS.
        activate_at: When it may begin to sign; None while nobody has planned that.
        stopped_at: When it stopped signing.
        fenced_at: When the backend confirmed that it cannot sign any more.
        remove_after: When it may leave the JWKS.
        revoked_at: When it was revoked.
        reason: Why it came into its state, where that needs a reason.
    """

    ring: str
    version: int
    kid: str
    alg: str
    public_jwk: Mapping[str, str]
    state: KeyState
    created_at: datetime
    published_at: datetime | None = None
    activate_at: datetime | None = None
    stopped_at: datetime | None = None
    fenced_at: datetime | None = None
    remove_after: datetime | None = None
    revoked_at: datetime | None = None
    reason: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RingDefinition:
    """What an operator decides about a ring: one algorithm, one backend key, its times.

    Attributes:
        name: Unique name, for example ``default-es256``.
        alg: The ring's algorithm.
        backend_uri: Where its private keys live, for example ``sql://``.
        maximum_lifetime_seconds: Longest life of a token that the ring signs.
        prepublication_seconds: How long a key is published before it signs.
        rotation_interval_seconds: How long a key signs.
    """

    name: str
    alg: str
    backend_uri: str
    maximum_lifetime_seconds: int = 3600
    prepublication_seconds: int = 86_400
    rotation_interval_seconds: int = 2_592_000


@dataclass(frozen=True, slots=True, kw_only=True)
class RingSnapshot(RingDefinition):
    """A ring as it stood at one moment.

    Attributes:
        epoch: Counts the ring's changes; a change is made against the epoch that its maker saw.
        keys: All versions, lowest first.
        loaded_at: When the reading began; equality disregards it.
        frozen: An operator holds the ring: nothing moves by itself, and its active key signs on.
        successor: The ring that signs in its place from ``succeeded_at`` on.
        succeeded_at: When the successor takes over.
        cautious_until: Until when verifiers are told to ask for the JWKS more often.
        claimed_until: Until when somebody who said so is making the ring's next version.
        changed_at: When its latest change was made; None before the first.
    """

    epoch: int
    keys: tuple[SigningKey, ...]
    loaded_at: datetime = field(compare=False)
    frozen: bool = False
    successor: str | None = None
    succeeded_at: datetime | None = None
    cautious_until: datetime | None = None
    claimed_until: datetime | None = None
    changed_at: datetime | None = None

    def is_succeeded(self, now: datetime) -> bool:
        """Tell whether another ring signs in the place of this one."""
        return self.succeeded_at is not None and self.succeeded_at <= now
