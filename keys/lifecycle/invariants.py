"""The invariants of the key lifecycle, checked before each change is written.

Their numbers are those in docs/key-management.md. Invariants of a single signature (3, 5, 6) are
checked in ``keys.ring``, those of private keys (8, 9, 12) in the backends.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta

from keys.errors import InvariantError
from keys.lifecycle.timing import Timing
from keys.signing_key import KeyState, RingSnapshot, SigningKey

#: The permitted next states of each state; a withdrawn key never returns.
TRANSITIONS: Mapping[KeyState, frozenset[KeyState]] = {
    KeyState.PUBLISHED: frozenset(
        {KeyState.ACTIVE, KeyState.RETIRED, KeyState.TAINTED, KeyState.REVOKED}
    ),
    KeyState.ACTIVE: frozenset({KeyState.RETIRED, KeyState.TAINTED, KeyState.REVOKED}),
    KeyState.RETIRED: frozenset({KeyState.REMOVED, KeyState.TAINTED, KeyState.REVOKED}),
    KeyState.TAINTED: frozenset({KeyState.REVOKED}),
    KeyState.REMOVED: frozenset({KeyState.DESTROYED}),
    KeyState.REVOKED: frozenset(),
    KeyState.DESTROYED: frozenset(),
}
_NEVER_CHANGES = ("ring", "version", "kid", "alg", "public_jwk", "created_at", "published_at")


def require_invariants(
    before: RingSnapshot, after: Iterable[SigningKey], timing: Timing, now: datetime
) -> None:
    """Raise InvariantError if the change from ``before`` to ``after`` breaks an invariant.

    Args:
        before: the ring as loaded.
        after: all of its keys after the change.
        timing: the installation's durations.
        now: the present time.
    """
    keys = tuple(after)
    _require_one_active(keys)
    held = {key.version: key for key in before.keys}
    for version in held.keys() - {key.version for key in keys}:
        raise InvariantError(7, f"version {version} of {before.name!r} would be forgotten")
    for key in keys:
        old = held.get(key.version)
        if old is not None:
            _require_transition(old, key)
        _require_published_before_signing(before, old, key)
        _require_kept_long_enough(before, old, key, timing, now)


def _require_one_active(keys: tuple[SigningKey, ...]) -> None:
    if sum(key.state is KeyState.ACTIVE for key in keys) > 1:
        raise InvariantError(4, "two keys of a ring would be recorded as active")
    for what, counts in (
        ("version", Counter(str(key.version) for key in keys)),
        ("kid", Counter(key.kid for key in keys)),
    ):
        for value, count in counts.items():
            if count > 1:
                raise InvariantError(4, f"the {what} {value} would be used twice")


def _require_transition(old: SigningKey, new: SigningKey) -> None:
    for name in _NEVER_CHANGES:
        if getattr(old, name) != getattr(new, name):
            raise InvariantError(7, f"the {name} of {old.kid} would change")
    if new.state is not old.state and new.state not in TRANSITIONS[old.state]:
        raise InvariantError(7, f"{old.kid} would go from {old.state} to {new.state}")


def _require_published_before_signing(
    ring: RingSnapshot, old: SigningKey | None, key: SigningKey
) -> None:
    unchanged = old is not None and old.activate_at == key.activate_at
    if key.activate_at is None or unchanged or key.reason:
        return  # a recorded reason is the exception: the first key, or an emergency
    if key.published_at is None:
        raise InvariantError(1, f"{key.kid} would sign without being published")
    earliest = key.published_at + timedelta(seconds=ring.prepublication_seconds)
    if key.activate_at < earliest:
        raise InvariantError(
            1,
            f"{key.kid} would sign from {key.activate_at:%Y-%m-%dT%H:%M:%SZ}, "
            f"before verifiers surely know it ({earliest:%Y-%m-%dT%H:%M:%SZ})",
        )


def _require_kept_long_enough(
    ring: RingSnapshot, old: SigningKey | None, key: SigningKey, timing: Timing, now: datetime
) -> None:
    removed = key.state is KeyState.REMOVED and (old is None or old.state is not KeyState.REMOVED)
    if removed and (key.remove_after is None or key.remove_after > now):
        raise InvariantError(2, f"{key.kid} would leave the JWKS while its tokens are in force")
    if key.remove_after is None or key.stopped_at is None:
        return
    if old is not None and old.remove_after == key.remove_after:
        return
    needed = timing.remove_after(ring.maximum_lifetime_seconds, key.stopped_at, key.fenced_at)
    if key.remove_after < needed:
        raise InvariantError(2, f"{key.kid} would leave the JWKS before its last token expires")
