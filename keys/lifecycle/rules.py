"""Rules on a ring's keys: the public keys, the active key and the next one."""

from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta

from keys.errors import OrderRefusedError
from keys.signing_key import KeyState, RingSnapshot, SigningKey

#: A key in one of these states is in the JWKS, and its tokens are accepted.
PUBLIC_STATES = frozenset({KeyState.PUBLISHED, KeyState.ACTIVE, KeyState.RETIRED, KeyState.TAINTED})
#: A key in one of these states is active from its activation until a higher version takes over.
LIVE_STATES = frozenset({KeyState.PUBLISHED, KeyState.ACTIVE})
#: No key waits longer for its activation: later changes are planned from that time.
LONGEST_DELAY = timedelta(days=3_650)
#: The longest chain of succeeding rings.
MAXIMUM_SUCCESSIONS = 8


def require_near(at: datetime, now: datetime, refused: str) -> None:
    """Require that a planned time is not years away.

    Args:
        at: the planned time.
        now: the present time.
        refused: the beginning of the refusal: the object, and what it cannot do.

    Raises:
        OrderRefusedError: it is more than :data:`LONGEST_DELAY` from now.
    """
    if at - now > LONGEST_DELAY:
        raise OrderRefusedError(f"{refused} more than {LONGEST_DELAY.days} days from now")


def public_keys(keys: Iterable[SigningKey]) -> tuple[SigningKey, ...]:
    """Return the keys that belong in the JWKS, lowest version first."""
    return tuple(
        sorted((key for key in keys if key.state in PUBLIC_STATES), key=lambda key: key.version)
    )


def destroyable_keys(keys: Iterable[SigningKey]) -> tuple[SigningKey, ...]:
    """Return the removed and revoked keys below every key in use; none without a key in use."""
    known = tuple(keys)
    oldest = next((key.version for key in public_keys(known)), 0)
    left = frozenset({KeyState.REMOVED, KeyState.REVOKED})
    return tuple(key for key in known if key.state in left and key.version < oldest)


def signing_candidates(keys: Iterable[SigningKey]) -> tuple[SigningKey, ...]:
    """Return the live keys whose activation is planned, highest version first."""
    candidates = (key for key in keys if key.state in LIVE_STATES and key.activate_at is not None)
    return tuple(sorted(candidates, key=lambda key: key.version, reverse=True))


def find_active_key(keys: Iterable[SigningKey], now: datetime) -> SigningKey | None:
    """Return the active key: the highest live version with ``activate_at`` ≤ ``now``.

    Every node computes it from its own snapshot, so that an activation needs no process to carry it
    out.
    """
    for key in signing_candidates(keys):
        if key.activate_at is not None and key.activate_at <= now:
            return key
    return None


def find_beginning(keys: Iterable[SigningKey]) -> datetime | None:
    """Return when the first key of a ring began, or will begin, to sign; None: none is planned."""
    times = (
        key.activate_at
        for key in keys
        if key.activate_at is not None
        and (
            key.state in LIVE_STATES
            # Not one that was withdrawn before it signed.
            or (key.stopped_at is not None and key.activate_at <= key.stopped_at)
        )
    )
    return min(times, default=None)


def has_signed(keys: Iterable[SigningKey], now: datetime) -> bool:
    """Return whether a key of a ring signs, or has signed."""
    began_at = find_beginning(keys)
    return began_at is not None and began_at <= now


def succeeded_since(
    ring: RingSnapshot, rings: Iterable[RingSnapshot], by: datetime | None
) -> datetime | None:
    """Return when another ring takes over from ``ring``; None: not by ``by``.

    A successor takes over once it signs, or a ring does that takes over from it in turn: its first
    key may be held back or frozen.

    Args:
        ring: the ring.
        rings: the others.
        by: the latest time; None: ever, by the present plans.
    """
    if ring.succeeded_at is None:
        return None
    known = {each.name: each for each in rings}
    since = _find_succession(ring, known, MAXIMUM_SUCCESSIONS)
    return None if since is None or (by is not None and since > by) else since


def _find_succession(
    ring: RingSnapshot, known: Mapping[str, RingSnapshot], hops: int
) -> datetime | None:
    if ring.succeeded_at is None or not hops:
        return None
    successor = known.get(ring.successor or "")
    if successor is None:
        return ring.succeeded_at
    times = (find_beginning(successor.keys), _find_succession(successor, known, hops - 1))
    began_at = min((each for each in times if each is not None), default=None)
    return None if began_at is None else max(ring.succeeded_at, began_at)


def find_next_key(keys: Iterable[SigningKey], now: datetime) -> SigningKey | None:
    """Return the published key that signs next: the lowest version above the active one."""
    held = tuple(keys)
    active = find_active_key(held, now)
    lowest = active.version if active else 0
    waiting = (key for key in held if key.state is KeyState.PUBLISHED and key.version > lowest)
    return min(waiting, key=lambda key: key.version, default=None)
