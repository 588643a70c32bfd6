"""What operators may order: each a pure function from the situation to a plan, or a refusal."""

from datetime import datetime, timedelta

from keys.errors import OrderRefusedError
from keys.lifecycle.following import activate_now, adopt
from keys.lifecycle.plan import Draft, Plan, Situation, Wait
from keys.lifecycle.planner import (
    follow,
    plan_to_sign,
    record_change_over,
    removal_time,
    remove_expired,
    schedule,
)
from keys.lifecycle.rules import PUBLIC_STATES, find_active_key
from keys.signing_key import KeyState, RingSnapshot, SigningKey


def plan_rotation(situation: Situation) -> Plan:
    """Have the backend make a version: the present standby takes over once it may.

    Raises:
        OrderRefusedError: The ring is frozen or succeeded, a rotation is under way, or whoever
            asks may not make a version.
    """
    ring, now = situation.ring, situation.now
    _require_movable(situation)
    if not (situation.powers.create and situation.caps.can_create):
        raise OrderRefusedError(f"{ring.name}: rotate at its backend; it is followed here")
    if ring.claimed_until is not None and ring.claimed_until > now:
        raise OrderRefusedError(f"{ring.name}: somebody else is making its next version")
    draft = Draft(situation)
    follow(draft)
    waiting = draft.pending()
    if len(waiting) > 1:
        raise OrderRefusedError(
            f"{ring.name}: a rotation is under way: {waiting[0].kid} begins to sign at "
            f"{waiting[0].activate_at:%Y-%m-%dT%H:%M:%SZ}"
            if waiting[0].activate_at
            else f"{ring.name}: a rotation is under way: {waiting[0].kid} is held back"
        )
    draft.create = True
    for key in waiting:
        plan_to_sign(draft, key, now, "the new version is the standby")
    draft.waits.append(Wait("the new version stands by", now, "for the rotation after this one"))
    return draft.finish()


def plan_activation(
    situation: Situation, kid: str, reason: str, *, at: datetime | None = None, emergency: bool
) -> Plan:
    """Let a published key sign from ``at`` on, or from now.

    Args:
        situation: What is known.
        kid: The key.
        reason: Recorded.
        at: When; None: now.
        emergency: Even before verifiers surely know it.

    Raises:
        OrderRefusedError: It is not waiting to sign, or it is too early for verifiers.
    """
    _require_movable(situation)
    draft = Draft(situation)
    key = _get_key(situation.ring, kid)
    if key.state is not KeyState.PUBLISHED:
        raise OrderRefusedError(f"{kid} is {key.state}; only a published key can be activated")
    active = draft.active()
    if active is not None and active.version >= key.version:
        raise OrderRefusedError(f"{kid} is older than {active.kid}, which signs now")
    begins_at = max(at or situation.now, situation.now)
    earliest = draft.prepublished_at(key)
    if begins_at < earliest and not emergency:
        raise OrderRefusedError(
            f"invariant 1: verifiers surely know {kid} only from "
            f"{earliest:%Y-%m-%dT%H:%M:%SZ} on; an emergency may override this"
        )
    if begins_at < earliest:
        draft.change(key, "emergency.exception", reason, activate_at=begins_at, reason=reason)
    else:
        draft.change(key, "key.scheduled", reason, activate_at=begins_at)
    record_change_over(draft)
    schedule(draft)
    return draft.finish()


def plan_taint(situation: Situation, kid: str, reason: str) -> Plan:
    """Stop a key from signing, while what it signed goes on until it expires.

    Raises:
        OrderRefusedError: It is not in the JWKS, or nothing could sign in its place.
    """
    draft = Draft(situation)
    key = _get_public_key(situation.ring, kid)
    if key.state is KeyState.TAINTED:
        raise OrderRefusedError(f"{kid} is tainted already")
    now = situation.now
    stopped_at = key.stopped_at or now
    draft.change(
        key,
        "key.tainted",
        reason,
        state=KeyState.TAINTED,
        reason=reason,
        stopped_at=stopped_at,
        remove_after=removal_time(draft, stopped_at, key.fenced_at),
    )
    _replace_signer(draft, reason, required=True)
    _ask_for_fence_now(draft)
    return draft.finish()


def plan_revocation(
    situation: Situation, kid: str, reason: str, *, all_versions: bool = False
) -> Plan:
    """Take a key, or every key of its ring, out of the JWKS; whatever it signed is refused.

    The standby signs at once. With ``all_versions``, or without a standby, a new version has to
    be in ``situation.view``, or the ring cannot sign until there is one: ``Plan.create`` says so.

    Raises:
        OrderRefusedError: The key is not in the JWKS.
    """
    draft = Draft(situation)
    now = situation.now
    _get_public_key(situation.ring, kid)
    for key in draft.in_states(PUBLIC_STATES):
        if all_versions or key.kid == kid:
            draft.change(
                key,
                "key.revoked",
                reason,
                state=KeyState.REVOKED,
                reason=reason,
                revoked_at=now,
                stopped_at=key.stopped_at or now,
            )
    if all_versions or (_has_lost_its_signer(draft) and not draft.pending()):
        # What was made for this, if it was; revoked or too old for it are all others.
        adopt(draft, situation.view.versions if situation.view else ())
        draft.create = not draft.pending()
    _replace_signer(draft, reason, required=False)
    draft.change_ring(
        "ring.cautious",
        "verifiers are told to ask for the JWKS more often",
        cautious_until=now + timedelta(seconds=situation.timing.cautious_period_seconds),
        claimed_until=None,
    )
    _ask_for_fence_now(draft)
    return draft.finish()


def plan_freeze(situation: Situation, reason: str, *, frozen: bool) -> Plan:
    """Hold the ring as it is, or let it move again; its active key signs on either way.

    Raises:
        OrderRefusedError: It is so already.
    """
    ring, now = situation.ring, situation.now
    if ring.frozen == frozen:
        raise OrderRefusedError(f"{ring.name} is {'frozen' if frozen else 'not frozen'} already")
    draft = Draft(situation)
    draft.change_ring("ring.frozen" if frozen else "ring.unfrozen", reason, frozen=frozen)
    # A node may be acting on it already: who signs must not go back and forth.
    imminent = now + timedelta(seconds=situation.timing.notice_seconds)
    for key in draft.pending() if frozen else ():
        if key.activate_at is None:
            continue
        if key.activate_at > imminent:
            draft.change(key, "key.held", reason, activate_at=None)
        else:
            why = "too near for every node to learn otherwise"
            draft.waits.append(Wait(f"{key.kid} begins to sign", key.activate_at, why))
    if not frozen:
        schedule(draft)
    return draft.finish()


def plan_pruning(situation: Situation) -> Plan:
    """Take out of the JWKS what no token in force can need, even from a frozen ring."""
    draft = Draft(situation)
    record_change_over(draft)
    remove_expired(draft)
    return draft.finish()


def plan_destruction(situation: Situation, reason: str) -> Plan:
    """Have the backend delete the private keys of all versions below the oldest one in use.

    Raises:
        OrderRefusedError: There is nothing to delete, or the backend cannot.
    """
    ring = situation.ring
    if not situation.caps.can_destroy:
        raise OrderRefusedError(f"the backend of {ring.name} cannot destroy keys")
    draft = Draft(situation)
    in_use = draft.in_states(PUBLIC_STATES)
    if not in_use:
        raise OrderRefusedError(f"{ring.name} has no key in use; destroy its key at the backend")
    below = [
        key
        for key in draft.in_states(frozenset({KeyState.REMOVED, KeyState.REVOKED}))
        if key.version < in_use[0].version
    ]
    if not below:
        raise OrderRefusedError(f"{ring.name} has no removed key below those in use")
    draft.destroy = str(in_use[0].version)
    for key in below:
        gone = {"state": KeyState.DESTROYED} if key.state is KeyState.REMOVED else {}
        draft.change(key, "key.destroyed", reason, **gone)
    return draft.finish()


def plan_succession(
    situation: Situation, successor: RingSnapshot, reason: str, *, at: datetime | None = None
) -> Plan:
    """Let another ring sign in the place of this one, from when verifiers know its key.

    Raises:
        OrderRefusedError: The successor cannot: it has no planned key, signs shorter-lived tokens,
            or is succeeded itself.
    """
    ring, now = situation.ring, situation.now
    if ring.successor is not None:
        raise OrderRefusedError(f"{ring.name} is succeeded by {ring.successor} already")
    if successor.name == ring.name or successor.successor is not None:
        raise OrderRefusedError(f"{successor.name} cannot succeed {ring.name}")
    if successor.maximum_lifetime_seconds < ring.maximum_lifetime_seconds:
        raise OrderRefusedError(f"{successor.name} signs shorter-lived tokens than {ring.name}")
    first = find_active_key(successor.keys, now) or next(
        (key for key in successor.keys if key.activate_at is not None and key.activate_at > now),
        None,
    )
    if first is None or first.published_at is None or first.activate_at is None:
        raise OrderRefusedError(f"{successor.name} has no key that is planned to sign")
    published = timedelta(
        seconds=max(ring.prepublication_seconds, _minimum_prepublication(situation))
    )
    earliest = max(now, first.activate_at, first.published_at + published)
    if at is not None and at < earliest:
        raise OrderRefusedError(
            f"invariant 1: {successor.name} can take over from {earliest:%Y-%m-%dT%H:%M:%SZ} on"
        )
    draft = Draft(situation)
    begins_at = at or earliest
    draft.change_ring("ring.succeeded", reason, successor=successor.name, succeeded_at=begins_at)
    draft.waits.append(
        Wait(f"{successor.name} signs instead", begins_at, "invariant 1: verifiers know it first")
    )
    return draft.finish()


def _minimum_prepublication(situation: Situation) -> int:
    """Return the shortest pre-publication, in seconds; none where the ring has switched it off."""
    if not situation.ring.prepublication_seconds:
        return 0
    return situation.timing.minimum_prepublication_seconds


def _require_movable(situation: Situation) -> None:
    ring = situation.ring
    if ring.frozen:
        raise OrderRefusedError(f"{ring.name} is frozen")
    if ring.is_succeeded(situation.now):
        raise OrderRefusedError(f"{ring.name} is succeeded by {ring.successor}")


def _get_key(ring: RingSnapshot, kid: str) -> SigningKey:
    for key in ring.keys:
        if key.kid == kid:
            return key
    raise OrderRefusedError(f"{ring.name} has no key {kid}")


def _get_public_key(ring: RingSnapshot, kid: str) -> SigningKey:
    key = _get_key(ring, kid)
    if key.state not in PUBLIC_STATES:
        raise OrderRefusedError(f"{kid} is {key.state}: it is not in the JWKS")
    return key


def _has_lost_its_signer(draft: Draft) -> bool:
    situation = draft.situation
    return (
        draft.active() is None and find_active_key(situation.ring.keys, situation.now) is not None
    )


def _replace_signer(draft: Draft, reason: str, *, required: bool) -> None:
    """Let the oldest waiting key sign now, unless some key signs."""
    situation = draft.situation
    if _has_lost_its_signer(draft):
        waiting = draft.pending()
        if not waiting and required:
            raise OrderRefusedError(f"{situation.ring.name} has no other key that could sign")
        if waiting:
            activate_now(draft, waiting[0], reason)
        else:
            draft.waits.append(Wait("nothing can sign", None, "the ring has no other key"))
    record_change_over(draft)


def _ask_for_fence_now(draft: Draft) -> None:
    """Fence at once: no node may sign with the stopped key, not even from an old reading."""
    active = draft.active()
    situation = draft.situation
    if active is not None and situation.fenceable and _has_stopped_below(draft, active):
        draft.fence = str(active.version)


def _has_stopped_below(draft: Draft, active: SigningKey) -> bool:
    stopped = frozenset({KeyState.TAINTED, KeyState.REVOKED})
    return any(key.version < active.version for key in draft.in_states(stopped))
