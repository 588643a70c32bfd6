"""The first keys of a ring, made by an operator's command and by nothing else."""

from collections.abc import Callable
from datetime import datetime

from keys.backend import KeyBackend, Version
from keys.errors import KeysError
from keys.lifecycle.rules import plan_first_keys
from keys.lifecycle.timing import Timing
from keys.node_clock import NodeClock
from keys.observer import Observer
from keys.signing_key import RingDefinition, RingSnapshot
from keys.store import KeyStore

#: One that signs, one that is known to verifiers before it is needed.
FIRST_VERSIONS = 2
CLOCK_TOLERANCE_SECONDS = Timing().clock_tolerance_seconds


def create_first_key(  # noqa: PLR0913 - its parts, by name
    store: KeyStore,
    backend: KeyBackend,
    definition: RingDefinition,
    *,
    clock: Callable[[], datetime],
    actor: str,
    in_use: bool = False,
    may_create: bool = True,
    clock_tolerance_seconds: float = CLOCK_TOLERANCE_SECONDS,
    observer: Observer | None = None,
    require_steady: Callable[[], None] = lambda: None,
) -> bool:
    """Give a ring its first keys: one that signs, one published as standby.

    Args:
        store: Where the ring is kept.
        backend: Where its private keys are, or will be.
        definition: What the ring is to be.
        clock: Returns the present, timezone-aware.
        actor: Who is recorded.
        in_use: Other rings have keys that verifiers cache: the first key waits to be known.
        may_create: False where others make versions: what the backend holds is adopted.
        clock_tolerance_seconds: How far this machine's clock may be off the store's.
        observer: Receives the alarm ``clock.off``.
        require_steady: Raises ClockOffError where time cannot be believed for another reason.

    Safe to repeat and to run twice at the same time: what an earlier, broken-off run left in the
    backend is adopted.

    Returns:
        True if this call filled the ring; False if it had keys already, which are then left alone.

    Raises:
        ClockOffError: This machine's clock is off, and the ring has no keys.
        KeysError: The ring exists, empty, with another algorithm or backend; or there is no
            version and none may be made.
        BackendError: The backend could not make or show the keys.
        StoreUnavailable: The ring could not be read or written.
    """
    store.add_ring(definition)
    ring = _get_ring(store, definition, clock())
    if ring.keys:
        return False
    _require_same(ring, definition)
    node_clock = NodeClock(store, clock, clock_tolerance_seconds, observer)
    node_clock.require_now()
    require_steady()
    versions = _require_versions(backend, definition, may_create=may_create)
    now = node_clock.require_now()
    changes = plan_first_keys(definition, versions, now, actor, in_use=in_use)
    return store.change_ring(ring.name, ring.epoch, changes)


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


def _require_versions(
    backend: KeyBackend, definition: RingDefinition, *, may_create: bool
) -> tuple[Version, ...]:
    """Return the newest two versions that may sign, or the only one."""
    made = {version.ref: version for version in _usable(backend, definition.name)}
    for _ in range(len(made), FIRST_VERSIONS if may_create else 0):
        version = backend.create(definition.name, definition.alg)
        made[version.ref] = version
    # Read anew: others may have made some at the same moment. What was made here counts although
    # a node of the backend that lags behind does not show it.
    made |= {version.ref: version for version in _usable(backend, definition.name)}
    if not made:
        raise KeysError(f"{definition.backend_uri!r} holds no key yet, and none may be made here")
    return tuple(sorted(made.values(), key=lambda version: int(version.ref)))[-FIRST_VERSIONS:]


def _usable(backend: KeyBackend, ring: str) -> tuple[Version, ...]:
    view = backend.view(ring)
    floor = int(view.sign_floor or 0)
    return tuple(version for version in view.versions if int(version.ref) >= floor)
