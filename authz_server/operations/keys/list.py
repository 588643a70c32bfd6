"""List the signing keys of rings, without private keys."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta

from authz_server.assembly import Services
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


def list_keys(services: Services) -> tuple[KeyView, ...]:
    """Return the keys of every ring, by ring and version.

    Raises:
        StoreUnavailable: the database cannot answer.
    """
    offset = timedelta(seconds=services.key_store.clock_offset_seconds())
    rings = services.key_store.load_rings(services.clock() + offset)
    return tuple(key for ring in rings for key in describe_keys(ring))


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
