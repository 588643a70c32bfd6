"""List the signing keys of rings, without private keys."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta

from authz_server.assembly import Services
from authz_server.operations.key_names import find_kid, find_signing_key, find_standby_key
from keys.lifecycle.rules import find_active_key
from keys.signing_key import RingSnapshot


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyView:
    """A key as operators see it; ``signs`` is True for the active key."""

    ring: str
    algorithm: str
    version: int
    kid: str
    state: str
    signs: bool
    backend: str
    created_at: datetime
    published_at: datetime | None
    activate_at: datetime | None
    stopped_at: datetime | None
    fenced_at: datetime | None
    remove_after: datetime | None
    revoked_at: datetime | None
    reason: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class RingView:
    """A ring as operators see it.

    Attributes:
        epoch: counts its changes.
        frozen: True if it does not change by itself.
        signing_key: the id of the key that signs now; None: no key does.
        successor: the ring that replaces it at ``succeeded_at``.
        cautious_until: the time until which verifiers are asked to fetch the JWKS more often.
        changed_at: the time of its latest change.
    """

    name: str
    algorithm: str
    backend: str
    epoch: int
    frozen: bool
    signing_key: str | None
    successor: str | None
    succeeded_at: datetime | None
    cautious_until: datetime | None
    changed_at: datetime | None


def list_keys(services: Services) -> tuple[KeyView, ...]:
    """Return the keys of every ring, by ring and version.

    Raises:
        StoreUnavailable: the database cannot answer.
    """
    return tuple(key for ring in load_rings(services) for key in describe_keys(ring))


def find_key(services: Services, named: str, *, standby: bool = False) -> str:
    """Return the id of the key that a name identifies; see :func:`find_kid`.

    Args:
        services: the parts of the server.
        named: the id of the key, the beginning of it, ``RING:VERSION``, or its ring.
        standby: whether a ring stands for the key that signs next, and not for the one that signs.

    Raises:
        OrderRefusedError: there is none, or there are several.
    """
    choose = find_standby_key if standby else find_signing_key
    return find_kid(services.key_store.load_rings(services.clock()), named, choose)


def load_rings(services: Services) -> tuple[RingSnapshot, ...]:
    """Return every ring by name, dated by the database's clock.

    Raises:
        StoreUnavailable: the database cannot answer.
    """
    offset = timedelta(seconds=services.key_store.clock_offset_seconds())
    return services.key_store.load_rings(services.clock() + offset)


def describe_keys(ring: RingSnapshot) -> Iterator[KeyView]:
    """Yield each key of ``ring``, lowest version first."""
    active = find_active_key(ring.keys, ring.loaded_at)
    for key in ring.keys:
        yield KeyView(
            ring=key.ring,
            algorithm=key.alg,
            version=key.version,
            kid=key.kid,
            state=key.state.value,
            signs=active is not None and key.kid == active.kid,
            backend=ring.backend_uri,
            created_at=key.created_at,
            published_at=key.published_at,
            activate_at=key.activate_at,
            stopped_at=key.stopped_at,
            fenced_at=key.fenced_at,
            remove_after=key.remove_after,
            revoked_at=key.revoked_at,
            reason=key.reason,
        )


def describe_ring(ring: RingSnapshot) -> RingView:
    """Return the view of a ring."""
    active = find_active_key(ring.keys, ring.loaded_at)
    return RingView(
        name=ring.name,
        algorithm=ring.alg,
        backend=ring.backend_uri,
        epoch=ring.epoch,
        frozen=ring.frozen,
        signing_key=None if active is None else active.kid,
        successor=ring.successor,
        succeeded_at=ring.succeeded_at,
        cautious_until=ring.cautious_until,
        changed_at=ring.changed_at,
    )
