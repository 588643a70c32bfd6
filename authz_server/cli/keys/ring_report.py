"""What ``keys status`` knows of a ring: recorded, at its backend, of its nodes and readers."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from authz_server.cli.keys.composition import KeyOperations
from authz_server.cli.keys.history import load_history
from authz_server.cli.keys.listing import describe_keys
from authz_server.cli.keys.readers import describe_readers
from authz_server.cli.output import timestamp
from authz_server.key_rings.event_log import load_events, verify_event_chain
from authz_server.key_rings.standby import find_next_key
from keys.backend import BackendView
from keys.errors import BackendError, ClockOffError, KeysError
from keys.lifecycle.calendar import Calendar, draw_calendar
from keys.lifecycle.judgement import Standing, judge_ring
from keys.lifecycle.plan import Plan
from keys.lifecycle.rules import PUBLIC_STATES, find_active_key
from keys.node_clock import CLOCK_ALARM
from keys.signing_key import KeyState, RingSnapshot
from keys.store import NodeReport

#: Past its time by more than this, a thing is overdue: whoever ticks does so every few minutes.
GRACE = timedelta(minutes=10)
#: A key may sign so much longer than its interval before anybody is told.
AGE_GRACE = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class RingReport:
    """One ring: ``fields`` for programs, ``calendar`` for pictures."""

    fields: dict[str, Any]
    calendar: Calendar


def report_ring(operations: KeyOperations, ring: RingSnapshot) -> RingReport:
    """Return everything that is known of ``ring``; its members as JSON are documented and stay."""
    services = operations.services
    now, timing = operations.now(), services.settings.keys.timing()
    calendar = draw_calendar(ring, timing, now)
    next_key = find_next_key(ring, now)
    settings = services.settings.keys.rings.get(ring.name)
    backend = _describe_backend(operations, ring)
    due, alarms, waits = _plan(operations, ring)
    nodes = [node for node in services.key_store.load_nodes() if node.ring == ring.name]
    with services.database.reading() as session:
        history = load_history(session, ring)
    return RingReport(
        {
            "ring": ring.name,
            "algorithm": ring.alg,
            "backend": ring.backend_uri,
            "drive": settings.drive if settings else None,
            "epoch": ring.epoch,
            "frozen": ring.frozen,
            "successor": ring.successor,
            "succeeded_at": timestamp(ring.succeeded_at),
            "cautious_until": timestamp(ring.cautious_until),
            "claimed_until": timestamp(ring.claimed_until),
            "prepublication_seconds": ring.prepublication_seconds,
            "rotation_interval_seconds": ring.rotation_interval_seconds,
            "maximum_lifetime_seconds": ring.maximum_lifetime_seconds,
            "active": _describe_active(ring, now),
            "next": next_key
            and {
                "kid": next_key.kid,
                "version": next_key.version,
                "activate_at": timestamp(next_key.activate_at),
            },
            "at_backend": backend,
            "keys": [*describe_keys(ring)],
            "planned": [
                {"at": timestamp(each.at), "what": each.what} for each in calendar.milestones
            ],
            "nodes": [_describe_node(operations, ring, node, now) for node in nodes],
            "readers": describe_readers(services, next_key),
            "due": due,
            "waits": waits,
            "overdue": [*_overdue(ring, now)],
            "alarms": alarms,
            "events": _describe_events(operations, ring),
            "history": [change.describe() for change in history.changes],
            "history_older": history.older,
        },
        calendar,
    )


def _describe_active(ring: RingSnapshot, now: datetime) -> dict[str, Any] | None:
    key = find_active_key(ring.keys, now)
    if key is None or key.activate_at is None:
        return None
    return {
        "kid": key.kid,
        "version": key.version,
        "signs_since": timestamp(key.activate_at),
        "age_seconds": int((now - key.activate_at).total_seconds()),
    }


def _describe_backend(operations: KeyOperations, ring: RingSnapshot) -> dict[str, Any]:
    """Return whether the backend answers, and its versions and floors beside ours."""
    backend = operations.backends.get(ring.backend_uri)
    recorded = max((key.version for key in ring.keys), default=None)
    facts: dict[str, Any] = {
        "usable": False,
        "detail": "not named in the settings",
        "latest_version": None,
        "sign_floor": None,
        "verify_floor": None,
        "disabled": None,
        "recorded_version": recorded,
    }
    if backend is None:
        return facts
    try:
        health, view = backend.health(), backend.view(ring.name)
    except BackendError as error:
        return facts | {"detail": str(error)}
    return facts | {"usable": health.usable, "detail": health.detail} | _describe_view(view)


def _describe_view(view: BackendView) -> dict[str, Any]:
    return {
        "latest_version": max((int(version.ref) for version in view.versions), default=None),
        "sign_floor": None if view.sign_floor is None else int(view.sign_floor),
        "verify_floor": None if view.verify_floor is None else int(view.verify_floor),
        "disabled": view.disabled,
    }


def _plan(
    operations: KeyOperations, ring: RingSnapshot
) -> tuple[list[str], list[dict[str, str]], list[dict[str, str | None]]]:
    """Return what a tick would do now, what it would alarm about, and what it waits for."""
    try:
        plan = operations.rotator.tick(ring.name, actor=operations.actor, dry_run=True).plan
    except KeysError as error:
        event = CLOCK_ALARM if isinstance(error, ClockOffError) else "rotation.failed"
        return [], [{"event": event, "subject": ring.name, "detail": str(error)}], []
    alarms = [
        {"event": alarm.event, "subject": alarm.subject, "detail": alarm.detail}
        for alarm in plan.alarms
    ]
    waits = [
        {"what": wait.what, "until": timestamp(wait.until), "why": wait.why} for wait in plan.waits
    ]
    return [*_due(plan)], alarms, waits


def _due(plan: Plan) -> Iterator[str]:
    if plan.ring_change is not None:
        yield f"{plan.ring_change.event}: {plan.ring_change.reason}"
    for change in plan.changes:
        yield f"{change.event} {change.key.kid}: {change.reason}"
    if plan.create:
        yield "the backend is to make a version"
    if plan.fence is not None:
        yield f"the backend is to sign nothing below version {plan.fence}"


def _overdue(ring: RingSnapshot, now: datetime) -> Iterator[str]:
    judgement = judge_ring(ring, now)
    if ring.keys and (judgement.lacks_signer or judgement.standing is Standing.UNPREPARED):
        yield judgement.detail
    active = find_active_key(ring.keys, now)
    if active is not None and active.activate_at is not None and not ring.is_succeeded(now):
        age = now - active.activate_at
        if age > timedelta(seconds=ring.rotation_interval_seconds) + AGE_GRACE:
            yield f"version {active.version} has signed for {age.days} days"
        if active.state is KeyState.PUBLISHED and age > GRACE:
            yield f"nobody has recorded that version {active.version} signs: nothing ticks"
    for key in ring.keys:
        if key.state in PUBLIC_STATES and key.remove_after and now - key.remove_after > GRACE:
            yield f"version {key.version} was to leave the JWKS at {timestamp(key.remove_after)}"


def _describe_node(
    operations: KeyOperations, ring: RingSnapshot, node: NodeReport, now: datetime
) -> dict[str, Any]:
    keys = operations.services.settings.keys
    silent = now - node.seen_at > timedelta(seconds=keys.snapshot_lifetime_seconds)
    # A node that works takes so long to read a change.
    notice = timedelta(seconds=keys.timing().notice_seconds)
    had_time = ring.changed_at is None or now - ring.changed_at >= notice
    return {
        "node": node.node,
        "epoch_seen": node.epoch_seen,
        "behind": had_time and node.epoch_seen < ring.epoch,
        "seen_at": timestamp(node.seen_at),
        "silent": silent,
        "clock_offset_seconds": round(node.clock_offset_seconds, 3),
        "clock_off": abs(node.clock_offset_seconds) > keys.clock_tolerance_seconds,
    }


def _describe_events(operations: KeyOperations, ring: RingSnapshot) -> dict[str, Any]:
    """Return how many events there are and whether their chain is whole."""
    with operations.services.database.reading() as session:
        count = len(load_events(session, ring.name))
        broken = verify_event_chain(session, ring.name)
    return {"count": count, "verified": broken is None, "first_broken": broken}
