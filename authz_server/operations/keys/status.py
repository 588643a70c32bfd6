"""Report the status of a ring: its keys, backend, nodes, readers and plans."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from sqlalchemy import select
from sqlalchemy.orm import Session

from authz_server.key_rings.event_log import load_events, verify_event_chain
from authz_server.key_rings.models import KeyEvent
from authz_server.key_rings.standby import find_next_key
from authz_server.operations.keys.consumers import StandbyConsumers, count_consumers
from authz_server.operations.keys.context import KeyContext
from authz_server.operations.keys.history import Change, load_history
from authz_server.operations.keys.list import KeyView, describe_keys
from keys.backend import Destroys
from keys.errors import BackendError, ClockOffError, KeysError
from keys.events import Alarm
from keys.lifecycle.calendar import Calendar, Milestone, draw_calendar
from keys.lifecycle.judgement import Standing, judge_ring
from keys.lifecycle.plan import Plan, Wait
from keys.lifecycle.rules import (
    PUBLIC_STATES,
    destroyable_keys,
    find_active_key,
    succeeded_since,
)
from keys.lifecycle.state import get_ring
from keys.node_clock import CLOCK_ALARM
from keys.plurals import counted
from keys.signing_key import KeyState, RingSnapshot, SigningKey
from keys.store import NodeReport

#: A change later than this is overdue; ticks run every few minutes.
GRACE = timedelta(minutes=10)
#: A key that signs for longer than its interval and this time is overdue.
AGE_GRACE = timedelta(days=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class ActiveKey:
    """The key that signs now."""

    kid: str
    version: int
    signs_since: datetime
    age_seconds: int


@dataclass(frozen=True, slots=True, kw_only=True)
class NextKey:
    """The key that signs next; ``activate_at`` is None if it waits for a rotation.

    In a ring that another one succeeds first, no key signs next.
    """

    kid: str
    version: int
    activate_at: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class BackendStatus:
    """The state of a ring at its backend: health, versions and floors."""

    usable: bool = False
    detail: str
    latest_version: int | None = None
    sign_floor: int | None = None
    verify_floor: int | None = None
    disabled: bool | None = None
    recorded_version: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeStatus:
    """A process that signs.

    Attributes:
        node: its name.
        epoch_seen: the latest epoch of the ring that it has read.
        behind: True if it had time to read the present epoch and has not.
        seen_at: the time of its last report.
        silent: True if that is too long ago.
        clock_offset_seconds: the database's clock minus its own.
        clock_off: True if that is more than is tolerated.
    """

    node: str
    epoch_seen: int
    behind: bool
    seen_at: datetime
    silent: bool
    clock_offset_seconds: float
    clock_off: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class EventChain:
    """The recorded events: their number, and the first one that breaks the chain."""

    count: int
    verified: bool
    first_broken: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class RingStatus:
    """The status of one ring; its fields are the members of the JSON that ``keys status`` prints.

    Attributes:
        drive: the setting; None: the ring is not in the settings.
        planned: the planned changes, soonest first.
        readers: the readers of the key that signs next; None if there is no such key.
        due: the changes that a tick would make now.
        waits: the changes that a tick would leave for later.
        overdue: the changes that should have happened.
        alarms: the alarms that a tick would raise.
        history: the latest changes, newest first.
        history_older: the number of older changes.
        destroyable: the versions whose private keys the order ``destroy`` would delete, without
            those that it has deleted before.
    """

    ring: str
    algorithm: str
    backend: str
    drive: str | None
    epoch: int
    frozen: bool
    successor: str | None
    succeeded_at: datetime | None
    cautious_until: datetime | None
    claimed_until: datetime | None
    prepublication_seconds: int
    rotation_interval_seconds: int
    maximum_lifetime_seconds: int
    active: ActiveKey | None
    next: NextKey | None
    at_backend: BackendStatus
    keys: tuple[KeyView, ...]
    planned: tuple[Milestone, ...]
    nodes: tuple[NodeStatus, ...]
    readers: StandbyConsumers | None
    due: tuple[str, ...]
    waits: tuple[Wait, ...]
    overdue: tuple[str, ...]
    alarms: tuple[Alarm, ...]
    events: EventChain
    history: tuple[Change, ...]
    history_older: int
    destroyable: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class RingReport:
    """The status of a ring, and its calendar for pictures."""

    status: RingStatus
    calendar: Calendar


@dataclass(frozen=True, slots=True, kw_only=True)
class RingsReport:
    """The status of several rings at one time.

    Attributes:
        at: the present time of the database's clock.
        issuer: the issuer of the server.
        asked_as: the identity of the logins to the Vaults.
        store_clock_offset_seconds: the database's clock minus that of this machine.
        clock_off: whether this is more than is tolerated.
        rings: the status and the calendar of each ring.
    """

    at: datetime
    issuer: str
    asked_as: str
    store_clock_offset_seconds: float
    clock_off: bool
    rings: tuple[RingReport, ...]


def report_rings(context: KeyContext, name: str | None = None) -> RingsReport:
    """Return the status of every ring, or of one.

    Args:
        context: the context of the operation.
        name: the ring; None: all.

    Raises:
        KeysError: there is no such ring, or the database cannot answer.
    """
    rings = context.rings()
    shown = rings if name is None else [get_ring(rings, name)]
    offset = context.clock_offset_seconds()
    return RingsReport(
        at=context.now(),
        issuer=context.settings.issuer,
        asked_as=context.identity,
        store_clock_offset_seconds=round(offset, 3),
        clock_off=abs(offset) > context.settings.keys.clock_tolerance_seconds,
        rings=tuple(report_ring(context, ring, rings) for ring in shown),
    )


def report_ring(
    context: KeyContext, ring: RingSnapshot, rings: Sequence[RingSnapshot]
) -> RingReport:
    """Return the status and the calendar of ``ring``, one of ``rings``."""
    services, now = context.services, context.now()
    calendar = draw_calendar(ring, rings, context.settings.keys.timing(), now)
    settings = context.settings.keys.rings.get(ring.name)
    next_key = find_next_key(ring, now)
    tick = _plan_tick(context, ring)
    nodes = [node for node in services.key_store.load_nodes() if node.ring == ring.name]
    with services.database.reading() as session:
        history = load_history(session, ring)
        destroyable = tuple(_find_destroyable(context, session, ring))
    status = RingStatus(
        ring=ring.name,
        algorithm=ring.alg,
        backend=ring.backend_uri,
        drive=settings.drive if settings else None,
        epoch=ring.epoch,
        frozen=ring.frozen,
        successor=ring.successor,
        succeeded_at=ring.succeeded_at,
        cautious_until=ring.cautious_until,
        claimed_until=ring.claimed_until,
        prepublication_seconds=ring.prepublication_seconds,
        rotation_interval_seconds=ring.rotation_interval_seconds,
        maximum_lifetime_seconds=ring.maximum_lifetime_seconds,
        active=_find_active(ring, now),
        next=_describe_next(ring, rings, next_key),
        at_backend=_ask_backend(context, ring),
        keys=tuple(describe_keys(ring)),
        planned=calendar.milestones,
        nodes=tuple(_describe_node(context, ring, node, now) for node in nodes),
        readers=count_consumers(services, next_key),
        due=tick.due,
        waits=tick.waits,
        overdue=tuple(find_overdue(ring, rings, now)),
        alarms=tick.alarms,
        events=_verify_events(context, ring),
        history=history.changes,
        history_older=history.older,
        destroyable=destroyable,
    )
    return RingReport(status, calendar)


def _find_destroyable(context: KeyContext, session: Session, ring: RingSnapshot) -> Iterator[int]:
    found = destroyable_keys(ring.keys)
    if not found or not isinstance(context.backends.get(ring.backend_uri), Destroys):
        return
    # A revoked key stays revoked: only the event records that its private key is deleted.
    deleted = KeyEvent.ring == ring.name, KeyEvent.event == "key.destroyed"
    gone = frozenset(session.scalars(select(KeyEvent.kid).where(*deleted)))
    yield from (key.version for key in found if key.kid not in gone)


def _find_active(ring: RingSnapshot, now: datetime) -> ActiveKey | None:
    key = find_active_key(ring.keys, now)
    if key is None or key.activate_at is None:
        return None
    return ActiveKey(
        kid=key.kid,
        version=key.version,
        signs_since=key.activate_at,
        age_seconds=int((now - key.activate_at).total_seconds()),
    )


def _describe_next(
    ring: RingSnapshot, rings: Sequence[RingSnapshot], key: SigningKey | None
) -> NextKey | None:
    if key is None or succeeded_since(ring, rings, key.activate_at):
        return None
    return NextKey(kid=key.kid, version=key.version, activate_at=key.activate_at)


def _ask_backend(context: KeyContext, ring: RingSnapshot) -> BackendStatus:
    backend = context.backends.get(ring.backend_uri)
    recorded = max((key.version for key in ring.keys), default=None)
    status = BackendStatus(detail="not named in the settings", recorded_version=recorded)
    if backend is None:
        return status
    try:
        health, view = backend.health(), backend.describe_versions(ring.name)
    except BackendError as error:
        return replace(status, detail=str(error))
    return replace(
        status,
        usable=health.usable,
        detail=health.detail,
        latest_version=max((int(version.ref) for version in view.versions), default=None),
        sign_floor=None if view.sign_floor is None else int(view.sign_floor),
        verify_floor=None if view.verify_floor is None else int(view.verify_floor),
        disabled=view.disabled,
    )


@dataclass(frozen=True, slots=True)
class _Tick:
    """The plan of a tick: changes, alarms and waits."""

    due: tuple[str, ...]
    alarms: tuple[Alarm, ...]
    waits: tuple[Wait, ...]


def _plan_tick(context: KeyContext, ring: RingSnapshot) -> _Tick:
    try:
        plan = context.rotator.tick(ring.name, actor=context.actor, dry_run=True).plan
    except KeysError as error:
        event = CLOCK_ALARM if isinstance(error, ClockOffError) else "rotation.failed"
        return _Tick((), (Alarm(event, ring.name, str(error)),), ())
    return _Tick(tuple(_due(plan)), plan.alarms, plan.waits)


def _due(plan: Plan) -> Iterator[str]:
    if plan.ring_change is not None:
        yield f"{plan.ring_change.event}: {plan.ring_change.reason}"
    for change in plan.changes:
        yield f"{change.event} {change.key.kid}: {change.reason}"
    if plan.create:
        yield "the backend is to make a version"
    if plan.fence is not None:
        yield f"the backend is to sign nothing below version {plan.fence}"


def find_overdue(ring: RingSnapshot, rings: Sequence[RingSnapshot], now: datetime) -> Iterator[str]:
    """Yield the changes of ``ring``, one of ``rings``, that should have happened."""
    judgement = judge_ring(ring, rings, now)
    if ring.keys and (judgement.lacks_signer or judgement.standing is Standing.UNPREPARED):
        yield judgement.detail
    succeeded = judgement.standing is Standing.SUCCEEDED
    active = None if succeeded else find_active_key(ring.keys, now)
    if active is not None and active.activate_at is not None:
        age = now - active.activate_at
        if age > timedelta(seconds=ring.rotation_interval_seconds) + AGE_GRACE:
            yield f"version {active.version} has signed for {counted(age.days, 'day')}"
        if active.state is KeyState.PUBLISHED and age > GRACE:
            yield f"version {active.version} signs, and that is not recorded: no tick runs"
    for key in ring.keys:
        if key.state in PUBLIC_STATES and key.remove_after and now - key.remove_after > GRACE:
            at = f"{key.remove_after:%Y-%m-%dT%H:%M:%SZ}"
            yield f"version {key.version} was to leave the JWKS at {at}"


def _describe_node(
    context: KeyContext, ring: RingSnapshot, node: NodeReport, now: datetime
) -> NodeStatus:
    keys = context.settings.keys
    # A working node reads a change within this time.
    notice = timedelta(seconds=keys.timing().notice_seconds)
    had_time = ring.changed_at is None or now - ring.changed_at >= notice
    return NodeStatus(
        node=node.node,
        epoch_seen=node.epoch_seen,
        behind=had_time and node.epoch_seen < ring.epoch,
        seen_at=node.seen_at,
        silent=now - node.seen_at > timedelta(seconds=keys.snapshot_lifetime_seconds),
        clock_offset_seconds=round(node.clock_offset_seconds, 3),
        clock_off=abs(node.clock_offset_seconds) > keys.clock_tolerance_seconds,
    )


def _verify_events(context: KeyContext, ring: RingSnapshot) -> EventChain:
    with context.services.database.reading() as session:
        count = len(load_events(session, ring.name))
        broken = verify_event_chain(session, ring.name)
    return EventChain(count=count, verified=broken is None, first_broken=broken)
