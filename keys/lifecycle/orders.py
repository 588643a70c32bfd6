"""Orders of operators: values that plan themselves on an observed state, or are refused.

``plan`` is a pure function: it reads and writes nothing. ``Rotator.apply`` carries out the plan.
"""

from dataclasses import KW_ONLY, dataclass
from datetime import datetime, timedelta
from typing import ClassVar

from keys.errors import OrderRefusedError
from keys.lifecycle.adoption import activate_now, adopt
from keys.lifecycle.plan import Draft, Plan, Wait
from keys.lifecycle.rules import PUBLIC_STATES, destroyable_keys, find_active_key, require_near
from keys.lifecycle.state import ObservedState
from keys.lifecycle.succession import earliest_succession, freeze_ring
from keys.lifecycle.tick import (
    follow,
    plan_to_sign,
    record_change_over,
    removal_time,
    remove_expired,
    schedule,
)
from keys.signing_key import KeyState, RingSnapshot, SigningKey


@dataclass(frozen=True, slots=True)
class RingOrder:
    """An order for a ring.

    Attributes:
        needs_clock: whether it is refused if this machine's clock is off.
    """

    needs_clock: ClassVar[bool] = True
    ring: str


@dataclass(frozen=True, slots=True)
class KeyOrder:
    """An order for a key by its id; ``reason`` is recorded. ``needs_clock``: as of RingOrder."""

    needs_clock: ClassVar[bool] = True
    kid: str
    reason: str


@dataclass(frozen=True, slots=True)
class Rotate(RingOrder):
    """Create a version at the backend; the present standby takes over as soon as it may."""

    reason: str

    def plan(self, state: ObservedState) -> Plan:
        """Return the plan.

        Raises:
            OrderRefusedError: the ring is frozen or succeeded, a rotation is in progress, or this
                process may not create versions.
        """
        ring, now = state.ring, state.now
        _require_movable(state)
        if not state.can_create:
            raise OrderRefusedError(f"{ring.name}: rotate it at its backend, which it follows")
        if state.is_claimed:
            raise OrderRefusedError(f"{ring.name}: another process is making its next version")
        draft = Draft(state)
        follow(draft)
        waiting = draft.pending()
        if len(waiting) > 1:
            at = waiting[0].activate_at
            then = f"begins to sign at {at:%Y-%m-%dT%H:%M:%SZ}" if at else "is held back"
            raise OrderRefusedError(
                f"{ring.name}: a rotation is under way: {waiting[0].kid} {then}"
            )
        draft.create = True
        for key in waiting:
            plan_to_sign(draft, key, now, "the new version is the standby")
        why = "for the rotation after this one"
        draft.waits.append(Wait("the new version stands by", now, why))
        return draft.finish()


@dataclass(frozen=True, slots=True)
class Activate(KeyOrder):
    """Activate a published key.

    Attributes:
        at: the time of activation; None: now.
        emergency: whether to activate it before verifiers certainly know it.
    """

    _: KW_ONLY
    at: datetime | None = None
    emergency: bool = False

    def plan(self, state: ObservedState) -> Plan:
        """Return the plan.

        Raises:
            OrderRefusedError: it is not a standby, not surely known to verifiers, or years away.
        """
        _require_movable(state)
        kid, reason, draft = self.kid, self.reason, Draft(state)
        key = _get_key(state.ring, kid)
        if key.state is not KeyState.PUBLISHED:
            raise OrderRefusedError(f"{kid} is {key.state}; only a published key can be activated")
        active = draft.active()
        if active is not None and active.version >= key.version:
            raise OrderRefusedError(f"{kid} is older than {active.kid}, which signs now")
        begins_at = max(self.at or state.now, state.now)
        require_near(begins_at, state.now, f"{kid} cannot be activated")
        earliest = draft.prepublished_at(key)
        if begins_at < earliest and not self.emergency:
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


@dataclass(frozen=True, slots=True)
class Taint(KeyOrder):
    """Stop a key from signing; its tokens are accepted until they expire."""

    needs_clock: ClassVar[bool] = False

    def plan(self, state: ObservedState) -> Plan:
        """Return the plan.

        Raises:
            OrderRefusedError: the key is not in the JWKS, or no other key could sign.
        """
        draft = Draft(state)
        key = _get_public_key(state.ring, self.kid)
        if key.state is KeyState.TAINTED:
            raise OrderRefusedError(f"{self.kid} is tainted already")
        stopped_at = key.stopped_at or state.now
        draft.change(
            key,
            "key.tainted",
            self.reason,
            state=KeyState.TAINTED,
            reason=self.reason,
            stopped_at=stopped_at,
            remove_after=removal_time(draft, stopped_at, key.fenced_at),
        )
        _replace_signer(draft, self.reason, required=True)
        _fence_now(draft)
        return draft.finish()


@dataclass(frozen=True, slots=True)
class Revoke(KeyOrder):
    """Remove a key from the JWKS and refuse its tokens.

    The standby becomes active at once. With ``all_versions``, or without a standby, a new version
    must be in ``state.view``; otherwise the ring cannot sign until there is one, and
    ``Plan.create`` is set.

    Attributes:
        all_versions: whether to revoke every key of the ring.
    """

    needs_clock: ClassVar[bool] = False
    _: KW_ONLY
    all_versions: bool = False

    def plan(self, state: ObservedState) -> Plan:
        """Return the plan; OrderRefusedError if the key is not in the JWKS."""
        draft, now = Draft(state), state.now
        _get_public_key(state.ring, self.kid)
        for key in draft.in_states(PUBLIC_STATES):
            if self.all_versions or key.kid == self.kid:
                draft.change(
                    key,
                    "key.revoked",
                    self.reason,
                    state=KeyState.REVOKED,
                    reason=self.reason,
                    revoked_at=now,
                    stopped_at=key.stopped_at or now,
                )
        if self.all_versions or (_has_lost_its_signer(draft) and not draft.pending()):
            # All known versions are revoked or too old: only one made for this order is adopted.
            adopt(draft, state.view.versions if state.view else ())
            draft.create = not draft.pending()
        _replace_signer(draft, self.reason, required=False)
        draft.change_ring(
            "ring.cautious",
            "verifiers are to fetch the JWKS more often",
            cautious_until=now + timedelta(seconds=state.timing.cautious_period_seconds),
            claimed_until=None,
        )
        _fence_now(draft)
        return draft.finish()


@dataclass(frozen=True, slots=True)
class Freeze(RingOrder):
    """Stop all automatic changes of a ring; its active key keeps signing.

    A planned move to another ring is cancelled.
    """

    reason: str
    needs_clock: ClassVar[bool] = False

    def plan(self, state: ObservedState) -> Plan:
        """Return the plan; OrderRefusedError if the ring is frozen already."""
        if state.ring.frozen:
            raise OrderRefusedError(f"{state.ring.name} is frozen already")
        draft = Draft(state)
        # A node may already act on it: the active key must not change back and forth.
        imminent = state.now + timedelta(seconds=state.timing.notice_seconds)
        freeze_ring(draft, self.reason, imminent)
        for key in draft.pending():
            if key.activate_at is not None and key.activate_at > imminent:
                draft.change(key, "key.held", self.reason, activate_at=None)
            elif key.activate_at is not None:
                why = "too near for every node to learn otherwise"
                draft.waits.append(Wait(f"{key.kid} begins to sign", key.activate_at, why))
        return draft.finish()


@dataclass(frozen=True, slots=True)
class Unfreeze(RingOrder):
    """Let a frozen ring change again."""

    reason: str

    def plan(self, state: ObservedState) -> Plan:
        """Return the plan; OrderRefusedError if the ring is not frozen."""
        if not state.ring.frozen:
            raise OrderRefusedError(f"{state.ring.name} is not frozen")
        draft = Draft(state)
        draft.change_ring("ring.unfrozen", self.reason, frozen=False)
        schedule(draft)
        return draft.finish()


@dataclass(frozen=True, slots=True)
class Prune(RingOrder):
    """Remove from the JWKS the keys whose last token has expired, even in a frozen ring."""

    def plan(self, state: ObservedState) -> Plan:
        """Return the plan."""
        draft = Draft(state)
        record_change_over(draft)
        remove_expired(draft)
        return draft.finish()


@dataclass(frozen=True, slots=True)
class Destroy(RingOrder):
    """Delete the private keys of all versions below the oldest one in use at the backend."""

    reason: str

    def plan(self, state: ObservedState) -> Plan:
        """Return the plan.

        Raises:
            OrderRefusedError: there is nothing to delete, or the backend cannot delete.
        """
        ring = state.ring
        if not state.destroys:
            raise OrderRefusedError(f"the backend of {ring.name} cannot destroy keys")
        draft = Draft(state)
        in_use = draft.in_states(PUBLIC_STATES)
        if not in_use:
            raise OrderRefusedError(
                f"{ring.name} has no key in use; destroy its key at the backend"
            )
        below = destroyable_keys(ring.keys)
        if not below:
            raise OrderRefusedError(f"{ring.name} has no removed key below those in use")
        draft.destroy = str(in_use[0].version)
        for key in below:
            gone = {"state": KeyState.DESTROYED} if key.state is KeyState.REMOVED else {}
            draft.change(key, "key.destroyed", self.reason, **gone)
        return draft.finish()


@dataclass(frozen=True, slots=True)
class Move(RingOrder):
    """Let another ring succeed a ring, once verifiers know its key.

    Attributes:
        successor: the name of the other ring.
        at: when it takes over; None: as soon as verifiers certainly know its key.
    """

    successor: str
    reason: str
    _: KW_ONLY
    at: datetime | None = None

    def plan(self, state: ObservedState) -> Plan:
        """Return the plan.

        Raises:
            OrderRefusedError: the ring is frozen, or the successor has no planned key, signs
                shorter-lived tokens, is succeeded itself, or takes over years away.
        """
        ring, successor = state.ring, state.get_ring(self.successor)
        if ring.successor is not None:
            raise OrderRefusedError(f"{ring.name} is succeeded by {ring.successor} already")
        if ring.frozen:
            raise OrderRefusedError(f"{ring.name} is frozen")
        if successor.name == ring.name or successor.successor is not None:
            raise OrderRefusedError(f"{successor.name} cannot succeed {ring.name}")
        if successor.maximum_lifetime_seconds < ring.maximum_lifetime_seconds:
            raise OrderRefusedError(f"{successor.name} signs shorter-lived tokens than {ring.name}")
        earliest = earliest_succession(state, successor)
        if self.at is not None and self.at < earliest:
            raise OrderRefusedError(
                f"invariant 1: {successor.name} cannot take over before"
                f" {earliest:%Y-%m-%dT%H:%M:%SZ}"
            )
        require_near(self.at or state.now, state.now, f"{successor.name} cannot take over")
        draft, begins_at = Draft(state), self.at or earliest
        draft.change_ring(
            "ring.succeeded", self.reason, successor=successor.name, succeeded_at=begins_at
        )
        why = "invariant 1: verifiers know it first"
        draft.waits.append(Wait(f"{successor.name} signs instead", begins_at, why))
        return draft.finish()


Order = Rotate | Activate | Taint | Revoke | Freeze | Unfreeze | Prune | Destroy | Move


def _require_movable(state: ObservedState) -> None:
    ring = state.ring
    if ring.frozen:
        raise OrderRefusedError(f"{ring.name} is frozen")
    if state.succession() is not None:
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
    state = draft.state
    return draft.active() is None and find_active_key(state.ring.keys, state.now) is not None


def _replace_signer(draft: Draft, reason: str, *, required: bool) -> None:
    """Activate the oldest waiting key now, unless a key is active."""
    if _has_lost_its_signer(draft):
        waiting = draft.pending()
        if not waiting and required:
            raise OrderRefusedError(f"{draft.state.ring.name} has no other key that could sign")
        if waiting:
            activate_now(draft, waiting[0], reason)
        else:
            draft.waits.append(Wait("nothing can sign", None, "the ring has no other key"))
    record_change_over(draft)


def _fence_now(draft: Draft) -> None:
    """Fence at once, so that no node can sign with the stopped key from an outdated snapshot."""
    active, stopped = draft.active(), frozenset({KeyState.TAINTED, KeyState.REVOKED})
    if active is None or not draft.state.can_fence:
        return
    if any(key.version < active.version for key in draft.in_states(stopped)):
        draft.fence = str(active.version)
