"""Values of a signing key and its ring; none holds a private key."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum


class KeyState(StrEnum):
    """The recorded state of a key.

    The active key follows from times, not from states: see
    ``keys.lifecycle.rules.find_active_key``.
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
    """One version of a ring's key, as recorded in the store.

    Attributes:
        ring: the name of the ring.
        version: the position in the ring, from 1; also the backend's reference to the key.
        kid: the RFC 7638 thumbprint of the public key.
        alg: the algorithm of its signatures.
        public_jwk: the public key, with the members of its type only.
        state: the recorded state.
        created_at: the time of creation at the backend.
        published_at: the time at which it entered the JWKS.
        activate_at: the time from which it may sign; None if not planned.
        stopped_at: the time at which it stopped signing.
        fenced_at: the time at which the backend confirmed the fence.
        remove_after: the time after which it may leave the JWKS.
        revoked_at: the time of revocation.
        reason: the reason for its state, if one is needed.
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
    """The configuration of a ring: algorithm, backend and durations.

    Attributes:
        name: the unique name, for example ``default-es256``.
        alg: the ring's algorithm.
        backend_uri: the backend of its private keys, for example ``sql://``.
        maximum_lifetime_seconds: the longest life of a token that the ring signs.
        prepublication_seconds: how long a key is published before it becomes active.
        rotation_interval_seconds: how long a key is active.
    """

    name: str
    alg: str
    backend_uri: str
    maximum_lifetime_seconds: int = 3600
    prepublication_seconds: int = 86_400
    rotation_interval_seconds: int = 2_592_000


@dataclass(frozen=True, slots=True, kw_only=True)
class RingSnapshot(RingDefinition):
    """A ring at one moment.

    Attributes:
        epoch: counts the ring's changes, for compare-and-set.
        keys: all versions, lowest first.
        loaded_at: the time at which loading began; ignored by equality.
        frozen: an operator stopped all automatic changes; the active key keeps signing.
        successor: the ring that replaces it at ``succeeded_at``.
        succeeded_at: the time at which the successor takes over.
        cautious_until: the time until which verifiers are asked to fetch the JWKS more often.
        claimed_until: the time until which an actor has claimed to create the next version.
        changed_at: the time of the latest change; None before the first.
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

    def is_move_due(self, now: datetime) -> bool:
        """Return whether its successor is to sign by ``now``, which it may not do yet.

        See ``keys.lifecycle.rules.succeeded_since``.
        """
        return self.succeeded_at is not None and self.succeeded_at <= now
