"""Makes the first keys of a ring; only a command of an operator does."""

from collections.abc import Callable, Sequence
from datetime import datetime, timedelta

from keys.backend import Creates, KeyBackend, Version
from keys.errors import KeysError
from keys.jose.jwk import thumbprint
from keys.lifecycle.state import get_ring
from keys.lifecycle.timing import Timing
from keys.node_clock import NodeClock
from keys.observer import Observer
from keys.signing_key import KeyState, RingDefinition, RingSnapshot, SigningKey
from keys.store import KeyChange, KeyStore

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
        definition: The ring as it is to be.
        clock: Returns the present, timezone-aware.
        actor: Who is recorded.
        in_use: Other rings have keys that verifiers cache: the first key waits to be known.
        may_create: False where others make versions: those that the backend holds are adopted.
        clock_tolerance_seconds: How far this machine's clock may be off the store's.
        observer: Receives the alarm ``clock.off``.
        require_steady: Raises ClockOffError where time cannot be believed for another reason.

    Safe to repeat and to run twice at the same time: versions that an interrupted run left in the
    backend are adopted.

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
    ring = get_ring(store.load_rings(clock()), definition.name)
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
    if may_create and isinstance(backend, Creates):
        for _ in range(len(made), FIRST_VERSIONS):
            version = backend.create(definition.name, definition.alg)
            made[version.ref] = version
    # Read again: others may have made some at the same moment. Versions made here count although a
    # node of the backend that lags does not show them.
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
    """Return the changes that fill an empty ring from the one or two versions given.

    The first signs at once where no verifier can have cached a JWKS without it; where other rings
    are in use already, it signs once it was published for the ring's pre-publication. The other
    one waits, without a time of activation, until a rotation gives it one.
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
