"""Plan what is due by time and the backend's state, as pure functions of the observed state.

A rotation is a new version, made by this server or elsewhere: the key published before it takes
over. One rule serves the server's own rotation, a Vault that rotates automatically and operators
who rotate in the Vault: every key published above the active one, except the newest, is due once it
has been published long enough. The newest is the standby.
"""

from dataclasses import replace
from datetime import datetime, timedelta

from keys.backend import Version
from keys.events import Alarm
from keys.lifecycle.adoption import (
    activate_now,
    adopt,
    follow_floors,
    report_absence,
    require_known_keys,
    withdraw_unusable,
)
from keys.lifecycle.plan import Draft, Plan, Wait
from keys.lifecycle.rules import LIVE_STATES, has_signed, succeeded_since
from keys.lifecycle.state import UNUSABLE_PAUSE, ObservedState, RotationMode
from keys.signing_key import KeyState, SigningKey

#: A ring whose versions are made elsewhere may lack a standby for this part of its interval.
STANDBY_PATIENCE_SHARE = 0.1
#: States of keys that may have signed and must never sign again.
STOPPED_STATES = frozenset({KeyState.RETIRED, KeyState.TAINTED, KeyState.REVOKED})


def plan_tick(state: ObservedState) -> Plan:
    """Return what is due by time and the backend's present state.

    Raises:
        BackendBroken: a published version is another key at the backend.
    """
    draft = Draft(state)
    follow(draft)
    if not state.ring.frozen:
        schedule(draft)
        remove_expired(draft)
    elif draft.active() is None and has_signed(draft.keys.values(), state.now):
        # An emergency withdrew the active key without another one: the ring is to sign again.
        schedule(draft)
    _ask_for_fence(draft)
    return draft.finish()


def plan_publication(state: ObservedState, version: Version) -> Plan:
    """Return the tick's plan, which also ends the claim on the new version.

    After one that is not adopted, the clock pauses: the next one would be no better.

    Args:
        state: the observed state.
        version: the new version.

    Raises:
        BackendBroken: a published version is another key at the backend.
    """
    plan = plan_tick(replace(state, ring=replace(state.ring, claimed_until=None)))
    draft = Draft(state)
    draft.ring_change = plan.ring_change
    if plan.has_version(version):
        event, why, until = "ring.version_made", "the version is published", None
    else:
        event, why = "ring.version_failed", f"version {version.ref} cannot be used"
        until = state.now + UNUSABLE_PAUSE
    draft.change_ring(event, why, claimed_until=until)
    return replace(plan, ring_change=draft.ring_change, create=False)


def plan_withdrawal(state: ObservedState) -> Plan:
    """Return only what the backend's floors withdraw.

    Raises:
        BackendBroken: a published version is another key at the backend.
    """
    draft = Draft(state)
    view = state.view
    if view is not None and state.fences:
        require_known_keys(draft, view.versions)
        follow_floors(draft, view)
    return draft.finish()


def follow(draft: Draft) -> None:
    """Apply the settings, the backend's state and the clock, without planning ahead."""
    view = draft.state.view
    configure(draft)
    withdraw_unusable(draft)
    if view is not None:
        if draft.state.succession() is None:
            adopt(draft, view.versions)
        report_absence(draft, view)
        if draft.state.fences:
            follow_floors(draft, view)
    record_change_over(draft)
    _record_fences(draft)


def configure(draft: Draft) -> None:
    """Apply the durations of the settings."""
    ring, wanted = draft.state.ring, draft.state.definition
    durations = ("prepublication_seconds", "rotation_interval_seconds")
    if wanted is None or all(getattr(ring, name) == getattr(wanted, name) for name in durations):
        return
    draft.change_ring(
        "ring.configured",
        f"published {wanted.prepublication_seconds} s in advance, "
        f"rotated every {wanted.rotation_interval_seconds} s",
        **{name: getattr(wanted, name) for name in durations},
    )


def record_change_over(draft: Draft) -> None:
    """Record the active key, and retire the keys that it replaces."""
    state = draft.state
    stopped_at = state.succession()
    if stopped_at is not None:
        for key in draft.in_states(LIVE_STATES):
            _retire(draft, key, stopped_at, f"{state.ring.successor} signs in its place")
        return
    active = draft.active()
    if active is None:
        return
    for key in draft.in_states(LIVE_STATES):
        if key.version < active.version:
            _retire(draft, key, active.activate_at or state.now, f"{active.kid} signs now")
    if active.state is KeyState.PUBLISHED:
        draft.change(active, "key.activated", "its time has come", state=KeyState.ACTIVE)


def _retire(draft: Draft, key: SigningKey, stopped_at: datetime, why: str) -> None:
    draft.change(
        key,
        "key.retired",
        why,
        state=KeyState.RETIRED,
        stopped_at=stopped_at,
        remove_after=removal_time(draft, stopped_at, None),
    )


def removal_time(draft: Draft, stopped_at: datetime, fenced_at: datetime | None) -> datetime:
    """Return when the last token of a key that stopped then has certainly expired."""
    state = draft.state
    return state.timing.remove_after(state.ring.maximum_lifetime_seconds, stopped_at, fenced_at)


def _record_fences(draft: Draft) -> None:
    view, now = draft.state.view, draft.state.now
    if view is None or not draft.state.fences:
        return
    floor = int(view.sign_floor or 0)
    for key in draft.in_states(STOPPED_STATES):
        if key.fenced_at is None and key.version < floor:
            later = {} if key.stopped_at is None else _removal(draft, key)
            draft.change(key, "key.fenced", "the backend confirms it", fenced_at=now, **later)


def _removal(draft: Draft, key: SigningKey) -> dict[str, object]:
    if key.remove_after is None:
        return {}
    now = draft.state.now
    return {"remove_after": removal_time(draft, key.stopped_at or now, now)}


def schedule(draft: Draft) -> None:
    """Plan the activation of waiting keys, and request a standby if there is none."""
    state = draft.state
    if not draft.keys or state.succession() is not None:
        return
    if state.ring.is_move_due(state.now):
        begins_at = succeeded_since(state.ring, state.others, None)
        why = f"{state.ring.successor} has no key that may sign yet"
        draft.waits.append(Wait(f"{state.ring.successor} signs instead", begins_at, why))
    pending = draft.pending()
    for key in pending[:-1]:
        plan_to_sign(draft, key, state.now, "a newer version is the standby")
    if pending:
        before = draft.keys[pending[-2].version] if len(pending) > 1 else draft.active()
        _plan_standby(draft, pending[-1], before)
    elif state.can_create:
        _ask_for_version(draft)
    elif _has_lacked_standby(draft):
        draft.alarms.append(
            Alarm("ring.no_standby", state.ring.name, "the next rotation would break verifiers")
        )
    if draft.active() is None and all(key.activate_at is None for key in draft.pending()):
        draft.alarms.append(Alarm("ring.no_active_key", state.ring.name, "nothing can sign"))


def _has_lacked_standby(draft: Draft) -> bool:
    """Return whether there was time to make a version elsewhere since the last activation."""
    state, active = draft.state, draft.active()
    if active is None or active.activate_at is None:
        return True
    patience = timedelta(seconds=state.ring.rotation_interval_seconds * STANDBY_PATIENCE_SHARE)
    return state.now >= active.activate_at + patience


def _plan_standby(draft: Draft, standby: SigningKey, before: SigningKey | None) -> None:
    """Plan when the standby takes over from ``before``, the last key that signs before it."""
    state = draft.state
    ring = state.ring
    if not ring.prepublication_seconds:
        if standby.activate_at is None:
            activate_now(draft, standby, "the ring publishes nothing in advance")
    elif before is None and has_signed(draft.keys.values(), state.now):
        # The active key was withdrawn without a standby: tokens that some verifiers cannot check
        # yet are better than none.
        activate_now(draft, standby, "nothing else may sign")
        record_change_over(draft)
    elif before is None:
        plan_to_sign(draft, standby, state.now, "nothing else may sign")
    elif state.mode is not RotationMode.EXTERNAL:
        due = (before.activate_at or state.now) + timedelta(seconds=ring.rotation_interval_seconds)
        plan_to_sign(draft, standby, due, "the key before it has signed for its interval")
    else:
        draft.waits.append(Wait(f"{standby.kid} stands by", None, "until a newer version appears"))


def plan_to_sign(draft: Draft, key: SigningKey, due: datetime, why: str) -> None:
    """Set when ``key`` becomes active: when due, but not before verifiers and nodes know it."""
    state = draft.state
    now, readiness = state.now, state.readiness
    earliest = max(due, now, draft.prepublished_at(key))
    if readiness.binding and readiness.missing:
        if key.activate_at is not None:
            draft.change(key, "key.held", "verifiers have not fetched it", activate_at=None)
        missing = ", ".join(readiness.missing[:5])
        draft.waits.append(Wait(f"{key.kid} is held", None, f"not fetched by {missing}"))
        return
    if key.activate_at is None or key.activate_at > earliest or _is_too_early(draft, key):
        key = draft.change(key, "key.scheduled", why, activate_at=earliest)
    _hold_for_laggards(draft, key)
    activate_at = draft.keys[key.version].activate_at
    if succeeded_since(state.ring, state.others, activate_at) is None:
        draft.waits.append(
            Wait(f"{key.kid} begins to sign", activate_at, "invariant 1: verifiers know it first")
        )


def _is_too_early(draft: Draft, key: SigningKey) -> bool:
    # The ring's pre-publication was extended after this was planned.
    return (
        key.activate_at is not None
        and key.reason is None
        and draft.state.now < key.activate_at < draft.prepublished_at(key)
    )


def _hold_for_laggards(draft: Draft, key: SigningKey) -> None:
    state = draft.state
    timing = state.timing
    notice = timedelta(seconds=timing.notice_seconds)
    laggards = state.laggards()
    changed_at = state.ring.changed_at
    if changed_at is not None and state.now - changed_at < notice:
        return  # nodes have not had time to read the latest change
    if not laggards or key.activate_at is None:
        return
    if state.now < key.activate_at <= state.now + notice:
        later = state.now + timedelta(seconds=timing.snapshot_lifetime_seconds)
        names = ", ".join(laggards)
        draft.change(key, "key.held", f"not seen by {names}", activate_at=later)
        draft.alarms.append(Alarm("node.behind", names, f"activation of {key.kid} is held back"))


def _ask_for_version(draft: Draft) -> None:
    ring, now = draft.state.ring, draft.state.now
    if ring.claimed_until is not None and ring.claimed_until > now:
        made = "is being made", "one maker at a time"
        paused = "is not made yet", "the latest one cannot be used"
        what, why = made if draft.state.is_claimed else paused
        draft.waits.append(Wait(f"the next version {what}", ring.claimed_until, why))
        return
    draft.create = True


def remove_expired(draft: Draft) -> None:
    """Remove from the JWKS the keys that no valid token needs."""
    state = draft.state
    now = state.now
    # One step at a time: the next tick handles keys that have just stopped.
    stopped = {key.kid for key in state.ring.keys if key.state in STOPPED_STATES}
    for key in draft.in_states(frozenset({KeyState.RETIRED, KeyState.TAINTED})):
        if key.kid not in stopped or key.remove_after is None or key.remove_after > now:
            draft.waits.append(
                Wait(f"{key.kid} leaves the JWKS", key.remove_after, "invariant 2: its last token")
            )
        elif key.fenced_at is None and state.can_fence and draft.active() is not None:
            draft.waits.append(Wait(f"{key.kid} leaves the JWKS", None, "not fenced yet"))
        elif key.state is KeyState.RETIRED:
            draft.change(key, "key.removed", "its last token expired", state=KeyState.REMOVED)
        else:
            draft.change(
                key, "key.revoked", "tainted, drained", state=KeyState.REVOKED, revoked_at=now
            )


def _ask_for_fence(draft: Draft) -> None:
    """Request the fence once no node can use the old key."""
    state, active = draft.state, draft.active()
    view, timing = state.view, state.timing
    if view is None or active is None or not state.can_fence:
        return
    if int(view.sign_floor or 0) >= active.version:
        return
    known = next((key for key in state.ring.keys if key.version == active.version), None)
    if known is None or known.activate_at != active.activate_at:
        return  # not written yet, so no node can know
    began_at = active.activate_at or state.now
    # A node's clock may be behind and this one ahead; until then that node signs with the old key.
    settled_at = began_at + timedelta(seconds=2 * timing.clock_tolerance_seconds)
    ends_at = began_at + timedelta(seconds=timing.snapshot_lifetime_seconds)
    waiting = state.now < settled_at or (state.laggards() and state.now < ends_at)
    if waiting and not _is_withdrawn_below(draft, active):
        draft.waits.append(Wait("the fence", ends_at, "a node may sign from an older reading"))
        return
    draft.fence = str(active.version)


def _is_withdrawn_below(draft: Draft, active: SigningKey) -> bool:
    """Return whether a withdrawn key may still sign at the backend."""
    withdrawn = draft.in_states(frozenset({KeyState.TAINTED, KeyState.REVOKED}))
    return any(key.version < active.version and key.fenced_at is None for key in withdrawn)
