"""The first keys of a ring, made by an operator's command and by nothing else."""

from collections.abc import Callable
from datetime import datetime

from keys.backend import KeyBackend, Version
from keys.errors import KeysError
from keys.rotation import plan_first_keys
from keys.signing_key import RingDefinition, RingSnapshot
from keys.store import KeyStore

#: One that signs, one that is known to verifiers before it is needed.
FIRST_VERSIONS = 2


def create_first_key(
    store: KeyStore,
    backend: KeyBackend,
    definition: RingDefinition,
    *,
    clock: Callable[[], datetime],
    actor: str,
) -> bool:
    """Give a ring its first keys: one active at once, one published as standby.

    Safe to repeat and to run twice at the same time: what an earlier, broken-off run left in the
    backend is adopted.

    Returns:
        True if this call filled the ring; False if it had keys already, which are then left alone.

    Raises:
        KeysError: The ring exists, empty, with another algorithm or backend.
        BackendError: The backend could not make or show the keys.
        StoreUnavailable: The ring could not be read or written.
    """
    store.add_ring(definition)
    ring = _get_ring(store, definition, clock())
    if ring.keys:
        return False
    _require_same(ring, definition)
    versions = _require_versions(backend, definition)
    return store.change_ring(
        ring.name, ring.epoch, plan_first_keys(definition, versions, clock(), actor)
    )


def _get_ring(store: KeyStore, definition: RingDefinition, now: datetime) -> RingSnapshot:
    for ring in store.load_rings(now):
        if ring.name == definition.name:
            return ring
    raise KeysError(f"the store lost the ring {definition.name!r} that was just added")


def _require_same(ring: RingSnapshot, definition: RingDefinition) -> None:
    if (ring.alg, ring.backend_uri) != (definition.alg, definition.backend_uri):
        raise KeysError(
            f"the ring {ring.name!r} exists for {ring.alg} at {ring.backend_uri!r}, "
            f"not for {definition.alg} at {definition.backend_uri!r}"
        )


def _require_versions(backend: KeyBackend, definition: RingDefinition) -> tuple[Version, ...]:
    held = backend.view(definition.name).versions
    for _ in range(len(held), FIRST_VERSIONS):
        backend.create(definition.name, definition.alg)
    return backend.view(definition.name).versions
