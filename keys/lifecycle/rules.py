"""What follows from a ring's keys and the time, as pure functions."""

from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta

from keys.backend import Version
from keys.jose.jwk import thumbprint
from keys.signing_key import KeyState, RingDefinition, SigningKey
from keys.store import KeyChange

#: A key in one of these states is in the JWKS, and what it signed is accepted.
PUBLIC_STATES = frozenset({KeyState.PUBLISHED, KeyState.ACTIVE, KeyState.RETIRED, KeyState.TAINTED})
#: A key in one of these states signs once its time has come, until a higher version takes over.
LIVE_STATES = frozenset({KeyState.PUBLISHED, KeyState.ACTIVE})


def public_keys(keys: Iterable[SigningKey]) -> tuple[SigningKey, ...]:
    """Return the keys that belong in the JWKS, lowest version first."""
    return tuple(
        sorted((key for key in keys if key.state in PUBLIC_STATES), key=lambda key: key.version)
    )


def signing_candidates(keys: Iterable[SigningKey]) -> tuple[SigningKey, ...]:
    """Return the live keys whose activation is planned, highest version first."""
    candidates = (key for key in keys if key.state in LIVE_STATES and key.activate_at is not None)
    return tuple(sorted(candidates, key=lambda key: key.version, reverse=True))


def find_active_key(keys: Iterable[SigningKey], now: datetime) -> SigningKey | None:
    """Return the highest live version with ``activate_at`` ≤ ``now``: the key that signs.

    Every node computes this from its own snapshot, so a change-over needs nobody alive.
    """
    for key in signing_candidates(keys):
        if key.activate_at is not None and key.activate_at <= now:
            return key
    return None


def find_next_key(keys: Iterable[SigningKey], now: datetime) -> SigningKey | None:
    """Return the published key that signs next: the lowest above the one that signs now."""
    held = tuple(keys)
    active = find_active_key(held, now)
    lowest = active.version if active else 0
    waiting = (key for key in held if key.state is KeyState.PUBLISHED and key.version > lowest)
    return min(waiting, key=lambda key: key.version, default=None)


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
    are in use already, it signs once it was published for as long as the ring asks for. The other
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
