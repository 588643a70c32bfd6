"""What is to be done about a ring, as a pure function of what is known of it.

A rotation is a new version, whoever made it: the key published before it takes over. So one rule
serves the server's own rotation, a Vault that rotates by itself and people who rotate in Vault:
everything published above the active key, except the newest, is due to sign as soon as it has been
published long enough. The newest is the standby.
"""

from datetime import datetime, timedelta

from keys.lifecycle.following import (
    activate_now,
    adopt,
    follow_floors,
    report_absence,
    require_known_keys,
)
from keys.lifecycle.plan import Alarm, Draft, Drive, Plan, Situation, Wait
from keys.lifecycle.rules import LIVE_STATES
from keys.signing_key import KeyState, SigningKey

#: For this part of its interval a ring may be without a standby, where others make its versions:
#: the rotator comes by now and then.
STANDBY_PATIENCE_SHARE = 0.1
#: States of keys that signed, or might have, and must never sign again.
STOPPED_STATES = frozenset({KeyState.RETIRED, KeyState.TAINTED, KeyState.REVOKED})


def plan_tick(situation: Situation) -> Plan:
    """Return what the passing of time and the backend's present state ask for.

    Raises:
        BackendBroken: The backend shows another public key for a version that is published.
    """
    draft = Draft(situation)
    tick(draft)
    return draft.finish()


def plan_withdrawal(situation: Situation) -> Plan:
    """Return what the backend's floors withdraw, and nothing that time asks for.

    Raises:
        BackendBroken: The backend shows another public key for a version that is published.
    """
    draft = Draft(situation)
    view = situation.view
    if view is not None and situation.caps.can_fence:
        require_known_keys(draft, view.versions)
        follow_floors(draft, view)
    return draft.finish()


def tick(draft: Draft) -> None:
    """Put into ``draft`` what :func:`plan_tick` returns."""
    follow(draft)
    if not draft.situation.ring.frozen:
        schedule(draft)
        remove_expired(draft)
    _ask_for_fence(draft)


def follow(draft: Draft) -> None:
    """Take over what the settings, the backend and the clock say, without planning ahead."""
    view, ring = draft.situation.view, draft.situation.ring
    configure(draft)
    if view is not None:
        if not ring.is_succeeded(draft.situation.now):
            adopt(draft, view.versions)
        report_absence(draft, view)
        if draft.situation.caps.can_fence:
            follow_floors(draft, view)
    record_change_over(draft)
    _record_fences(draft)


def configure(draft: Draft) -> None:
    """Take over the durations that the settings name by now."""
    ring, wanted = draft.situation.ring, draft.situation.definition
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
    """Record who signs by now, and who therefore does not any more."""
    situation = draft.situation
    if situation.ring.is_succeeded(situation.now):
        for key in draft.in_states(LIVE_STATES):
            stopped_at = situation.ring.succeeded_at or situation.now
            _retire(draft, key, stopped_at, f"{situation.ring.successor} signs in its place")
        return
    active = draft.active()
    if active is None:
        return
    for key in draft.in_states(LIVE_STATES):
        if key.version < active.version:
            _retire(draft, key, active.activate_at or situation.now, f"{active.kid} signs now")
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
    """Return when the last token of a key that stopped then has surely expired."""
    situation = draft.situation
    return situation.timing.remove_after(
        situation.ring.maximum_lifetime_seconds, stopped_at, fenced_at
    )


def _record_fences(draft: Draft) -> None:
    view, now = draft.situation.view, draft.situation.now
    if view is None or not draft.situation.caps.can_fence:
        return
    floor = int(view.sign_floor or 0)
    for key in draft.in_states(STOPPED_STATES):
        if key.fenced_at is None and key.version < floor:
            later = {} if key.stopped_at is None else _removal(draft, key)
            draft.change(key, "key.fenced", "the backend confirms it", fenced_at=now, **later)


def _removal(draft: Draft, key: SigningKey) -> dict[str, object]:
    if key.remove_after is None:
        return {}
    now = draft.situation.now
    return {"remove_after": removal_time(draft, key.stopped_at or now, now)}


def schedule(draft: Draft) -> None:
    """Plan when the waiting keys sign, and ask for a standby where there is none."""
    situation = draft.situation
    if situation.ring.is_succeeded(situation.now) or not draft.keys:
        return
    pending = draft.pending()
    for key in pending[:-1]:
        plan_to_sign(draft, key, situation.now, "a newer version is the standby")
    if pending:
        before = draft.keys[pending[-2].version] if len(pending) > 1 else draft.active()
        _plan_standby(draft, pending[-1], before)
    elif situation.powers.create and situation.caps.can_create:
        _ask_for_version(draft)
    elif _has_lacked_standby(draft):
        draft.alarms.append(
            Alarm("ring.no_standby", situation.ring.name, "the next rotation would break verifiers")
        )
    if draft.active() is None and all(key.activate_at is None for key in draft.pending()):
        draft.alarms.append(Alarm("ring.no_active_key", situation.ring.name, "nothing can sign"))


def _has_lacked_standby(draft: Draft) -> bool:
    """Tell whether whoever makes versions elsewhere had time enough since the change-over."""
    situation, active = draft.situation, draft.active()
    if active is None or active.activate_at is None:
        return True
    patience = timedelta(seconds=situation.ring.rotation_interval_seconds * STANDBY_PATIENCE_SHARE)
    return situation.now >= active.activate_at + patience


def _plan_standby(draft: Draft, standby: SigningKey, before: SigningKey | None) -> None:
    """Plan when the standby takes over from ``before``, the last key that signs before it."""
    situation = draft.situation
    ring = situation.ring
    if not ring.prepublication_seconds:
        if standby.activate_at is None:
            activate_now(draft, standby, "the ring publishes nothing in advance")
    elif before is None and _has_signed(draft):
        # Its signer was withdrawn and nothing stood by: tokens that some verifiers do not know yet
        # are better than none.
        activate_now(draft, standby, "nothing else may sign")
        record_change_over(draft)
    elif before is None:
        plan_to_sign(draft, standby, situation.now, "nothing else may sign")
    elif situation.drive is not Drive.FOLLOW:
        due = (before.activate_at or situation.now) + timedelta(
            seconds=ring.rotation_interval_seconds
        )
        plan_to_sign(draft, standby, due, "the key before it has signed for its interval")
    else:
        draft.waits.append(Wait(f"{standby.kid} stands by", None, "until a newer version appears"))


def _has_signed(draft: Draft) -> bool:
    """Tell whether the ring has had a signer; one whose first key waits has not."""
    return any(key.stopped_at is not None for key in draft.keys.values())


def plan_to_sign(draft: Draft, key: SigningKey, due: datetime, why: str) -> None:
    """Set when ``key`` signs: when due, never before verifiers and nodes know it."""
    situation = draft.situation
    now, readiness = situation.now, situation.readiness
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
    draft.waits.append(
        Wait(f"{key.kid} begins to sign", activate_at, "invariant 1: verifiers know it first")
    )


def _is_too_early(draft: Draft, key: SigningKey) -> bool:
    # The ring's pre-publication was made longer after this was planned.
    return (
        key.activate_at is not None
        and key.reason is None
        and draft.situation.now < key.activate_at < draft.prepublished_at(key)
    )


def _hold_for_laggards(draft: Draft, key: SigningKey) -> None:
    situation = draft.situation
    timing = situation.timing
    notice = timedelta(seconds=timing.notice_seconds)
    laggards = situation.laggards()
    changed_at = situation.ring.changed_at
    if changed_at is not None and situation.now - changed_at < notice:
        return  # nobody has had the time to read the latest change
    if not laggards or key.activate_at is None:
        return
    if situation.now < key.activate_at <= situation.now + notice:
        later = situation.now + timedelta(seconds=timing.snapshot_lifetime_seconds)
        names = ", ".join(laggards)
        draft.change(key, "key.held", f"not seen by {names}", activate_at=later)
        draft.alarms.append(Alarm("node.behind", names, f"activation of {key.kid} is held back"))


def _ask_for_version(draft: Draft) -> None:
    ring, now = draft.situation.ring, draft.situation.now
    if ring.claimed_until is not None and ring.claimed_until > now:
        draft.waits.append(
            Wait("the next version is being made", ring.claimed_until, "one maker at a time")
        )
        return
    draft.create = True


def remove_expired(draft: Draft) -> None:
    """Take out of the JWKS what no token in force can need."""
    situation = draft.situation
    now = situation.now
    # One step at a time: what has only just stopped is looked at by the next tick.
    stopped = {key.kid for key in situation.ring.keys if key.state in STOPPED_STATES}
    for key in draft.in_states(frozenset({KeyState.RETIRED, KeyState.TAINTED})):
        if key.kid not in stopped or key.remove_after is None or key.remove_after > now:
            draft.waits.append(
                Wait(f"{key.kid} leaves the JWKS", key.remove_after, "invariant 2: its last token")
            )
        elif key.fenced_at is None and situation.fenceable and draft.active() is not None:
            draft.waits.append(Wait(f"{key.kid} leaves the JWKS", None, "not fenced yet"))
        elif key.state is KeyState.RETIRED:
            draft.change(key, "key.removed", "its last token expired", state=KeyState.REMOVED)
        else:
            draft.change(
                key, "key.revoked", "tainted, drained", state=KeyState.REVOKED, revoked_at=now
            )


def _ask_for_fence(draft: Draft) -> None:
    """Ask for the fence once no node can want the old key any more."""
    situation, active = draft.situation, draft.active()
    view, timing = situation.view, situation.timing
    if view is None or active is None or not situation.fenceable:
        return
    if int(view.sign_floor or 0) >= active.version:
        return
    known = next((key for key in situation.ring.keys if key.version == active.version), None)
    if known is None or known.activate_at != active.activate_at:
        return  # not written yet, so no node can know
    began_at = active.activate_at or situation.now
    # One node's clock may be behind, ours ahead: till then that node signs with the old key.
    settled_at = began_at + timedelta(seconds=2 * timing.clock_tolerance_seconds)
    ends_at = began_at + timedelta(seconds=timing.snapshot_lifetime_seconds)
    waiting = situation.now < settled_at or (situation.laggards() and situation.now < ends_at)
    if waiting and not _is_withdrawn_below(draft, active):
        draft.waits.append(Wait("the fence", ends_at, "a node may sign from an older reading"))
        return
    draft.fence = str(active.version)


def _is_withdrawn_below(draft: Draft, active: SigningKey) -> bool:
    """Tell whether a key that is not trusted any more may still sign at the backend."""
    withdrawn = draft.in_states(frozenset({KeyState.TAINTED, KeyState.REVOKED}))
    return any(key.version < active.version and key.fenced_at is None for key in withdrawn)
