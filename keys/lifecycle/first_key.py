"""Create the first keys of a ring; only commands of operators do this."""

from collections.abc import Callable, Sequence
from datetime import datetime, timedelta

from keys.backend import Creates, KeyBackend, Version
from keys.errors import KeysError
from keys.events import Notify, ignore
from keys.jose.jwk import thumbprint
from keys.lifecycle.adoption import find_obstacle, name_version
from keys.lifecycle.state import get_ring
from keys.lifecycle.timing import Timing
from keys.node_clock import NodeClock
from keys.signing_key import KeyState, RingDefinition, RingSnapshot, SigningKey
from keys.store import KeyChange, KeyStore

#: The active key, and the standby that verifiers know in advance.
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
    notify: Notify = ignore,
    require_steady: Callable[[], None] = lambda: None,
) -> bool:
    """Create the first keys of a ring: the active key and the standby.

    Safe to repeat and to run concurrently: versions that an interrupted run left at the backend are
    adopted.

    Args:
        store: stores the ring.
        backend: the backend of its private keys.
        definition: the definition of the ring.
        clock: returns the present time, timezone-aware.
        actor: the recorded actor.
        in_use: verifiers cache the JWKS, so that the first key is published before it signs.
        may_create: False if versions are made elsewhere: those at the backend are adopted.
        clock_tolerance_seconds: the largest offset of this machine's clock.
        notify: receives the alarm ``clock.off``.
        require_steady: raises ClockOffError if the time is unreliable for another reason.

    Returns:
        True if this call created the keys; False if the ring already had keys.

    Raises:
        ClockOffError: this machine's clock is off, and the ring has no keys.
        KeysError: the empty ring exists with another algorithm or backend, there is no version and
            none may be made, or a version is another ring's key or not for the algorithm.
        BackendError: the backend could not make or list the keys.
        StoreUnavailable: the ring could not be read or written.
    """
    store.add_ring(definition)
    rings = store.load_rings(clock())
    ring = get_ring(rings, definition.name)
    if ring.keys:
        return False
    _require_same(ring, definition)
    node_clock = NodeClock(store, clock, clock_tolerance_seconds, notify)
    node_clock.require_now()
    require_steady()
    versions = _require_versions(backend, definition, may_create=may_create)
    _require_adoptable(versions, definition, rings)
    now = node_clock.require_now()
    changes = plan_first_keys(definition, versions, now, actor, in_use=in_use)
    return store.change_ring(ring.name, ring.epoch, changes)


def _require_same(ring: RingSnapshot, definition: RingDefinition) -> None:
    if (ring.alg, ring.backend_uri) != (definition.alg, definition.backend_uri):
        raise KeysError(
            f"the ring {ring.name!r} exists for {ring.alg} at {ring.backend_uri!r}, "
            f"not for {definition.alg} at {definition.backend_uri!r}"
        )


def _require_adoptable(
    versions: Sequence[Version], definition: RingDefinition, rings: Sequence[RingSnapshot]
) -> None:
    places = {key.kid: name_version(key) for ring in rings for key in ring.keys}
    for version in versions:
        problem = find_obstacle(version, definition.alg, places)
        if problem:
            raise KeysError(f"{definition.name}: {problem}")
        places[thumbprint(version.jwk)] = f"version {version.ref} of {definition.name!r}"


def _require_versions(
    backend: KeyBackend, definition: RingDefinition, *, may_create: bool
) -> tuple[Version, ...]:
    """Return the newest two versions that may sign, or the only one."""
    made = {version.ref: version for version in _usable(backend, definition.name)}
    if may_create and isinstance(backend, Creates):
        for _ in range(len(made), FIRST_VERSIONS):
            version = backend.create(definition.name, definition.alg)
            made[version.ref] = version
    # Read again: others may have made versions at the same time. Versions made here count even if a
    # lagging node of the backend does not list them.
    made |= {version.ref: version for version in _usable(backend, definition.name)}
    if not made:
        raise KeysError(f"{definition.backend_uri!r} holds no key yet, and none may be made here")
    return tuple(sorted(made.values(), key=lambda version: int(version.ref)))[-FIRST_VERSIONS:]


def _usable(backend: KeyBackend, ring: str) -> tuple[Version, ...]:
    view = backend.describe_versions(ring)
    floor = int(view.sign_floor or 0)
    return tuple(version for version in view.versions if int(version.ref) >= floor)


def plan_first_keys(
    definition: RingDefinition,
    versions: Sequence[Version],
    now: datetime,
    actor: str,
    *,
    in_use: bool = False,
) -> tuple[KeyChange, ...]:
    """Return the changes that fill an empty ring with one or two versions.

    The first key is active at once if no verifier can have cached a JWKS without it. If other rings
    are in use, it becomes active after the ring's pre-publication. The other key is the standby,
    without a time of activation until a rotation sets one.
    """
    first, *others = versions
    if in_use:
        signs_at = now + timedelta(seconds=definition.prepublication_seconds)
        key = _new_key(definition, first, now, KeyState.PUBLISHED, activate_at=signs_at)
        event, why = "key.published", "first key of a further ring: verifiers know it first"
    else:
        why = "first key of the ring: it signs without pre-publication"
        key = _new_key(definition, first, now, KeyState.ACTIVE, activate_at=now, reason=why)
        event = "key.activated"
    waiting = [_new_key(definition, version, now, KeyState.PUBLISHED) for version in others]
    return (
        KeyChange(key=key, event=event, actor=actor, reason=why, at=now),
        *(
            KeyChange(key=key, event="key.published", actor=actor, reason="standby", at=now)
            for key in waiting
        ),
    )


def _new_key(  # noqa: PLR0913 - the parts of one value
    definition: RingDefinition,
    version: Version,
    now: datetime,
    state: KeyState,
    *,
    activate_at: datetime | None = None,
    reason: str | None = None,
) -> SigningKey:
    return SigningKey(
        ring=definition.name,
        version=int(version.ref),
        kid=thumbprint(version.jwk),
        alg=definition.alg,
        public_jwk=version.jwk,
        state=state,
        created_at=version.created_at,
        published_at=now,
        activate_at=activate_at,
        reason=reason,
    )
