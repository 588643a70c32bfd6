"""Carry out plans: call the backend, write by compare-and-set, and plan again after a conflict.

Several rotators may work on a ring at once, in servers and commands on any node. The first to write
wins; the others load again and find it done. Creating a version is not a compare-and-set at any
backend, so that it is claimed in the store first: one claim, one version.
"""

import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import partial

from keys.backend import Creates, Destroys, Fences, KeyBackend, Version
from keys.errors import (
    BackendBroken,
    BackendDenied,
    BackendError,
    ClockOffError,
    KeysError,
    OrderRefusedError,
    StoreUnavailable,
)
from keys.events import Alarm, Notify, ignore
from keys.lifecycle.invariants import require_invariants
from keys.lifecycle.orders import Destroy, KeyOrder, Order, Revoke, Rotate
from keys.lifecycle.plan import Draft, Plan
from keys.lifecycle.state import CLAIM, ObservedState, Readiness, RingRules, StateReader
from keys.lifecycle.tick import plan_publication, plan_tick, plan_withdrawal
from keys.lifecycle.timing import Timing
from keys.signing_key import RingSnapshot
from keys.store import KeyStore

#: Largest number of attempts to write a change.
ATTEMPTS = 20

Planner = Callable[[ObservedState], Plan]


@dataclass(slots=True)
class Outcome:
    """The outcome of an order or a tick.

    Attributes:
        plan: the last plan; for an order, the order's own plan.
        written: whether anything was written.
        created: the created version.
        fenced: the signing floor that the backend confirmed.
        failures: descriptions of the steps that failed; the others were done.
        seconds: the duration of each step, by name.
    """

    plan: Plan
    written: bool = False
    created: Version | None = None
    fenced: str | None = None
    failures: list[str] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)


class Rotator:
    """Rotates rings by the clock and by order; safe to run concurrently.

    The time is the store's. On a machine whose clock is off, only orders that need no clock are
    carried out; everything else raises ClockOffError.

    Args:
        store: stores the rings.
        backends: the open backends by the URI that the rings name.
        rules: the rules of the settings, by ring; other rings follow their backends.
        clock: returns the present time, timezone-aware.
        timing: the installation's durations.
        notify: receives observations, outages and alarms.
        readiness: returns the consumers that have not fetched a ring's standby.
        require_steady: raises ClockOffError if the time is unreliable for another reason than an
            offset from the store's.
        limit: returns the latest time up to the given one that has certainly passed, for the orders
            that need no clock.
    """

    def __init__(  # noqa: PLR0913 - its parts, by name
        self,
        *,
        store: KeyStore,
        backends: Mapping[str, KeyBackend],
        rules: Mapping[str, RingRules],
        clock: Callable[[], datetime],
        timing: Timing,
        notify: Notify = ignore,
        readiness: Callable[[RingSnapshot], Readiness] | None = None,
        require_steady: Callable[[], None] = lambda: None,
        limit: Callable[[datetime], datetime] = lambda now: now,
    ) -> None:
        self._store = store
        self._timing = timing
        self._notify = notify
        self._reader = StateReader(
            store=store,
            backends=backends,
            rules=rules,
            clock=clock,
            timing=timing,
            notify=notify,
            readiness=readiness or (lambda _: Readiness()),
            require_steady=require_steady,
            limit=limit,
        )
        self._alarmed: dict[str, frozenset[tuple[str, str]]] = {}

    def tick(self, ring: str, *, actor: str, dry_run: bool = False) -> Outcome:
        """Carry out what is due: adopt, record, create, fence, remove.

        Raises:
            ClockOffError: this machine's clock is off; floors of the backend are still followed.
            OrderRefusedError: there is no such ring.
            StoreUnavailable: the store cannot be read or written.
        """
        if dry_run:
            return Outcome(plan_tick(self._reader.observe(ring, actor, dry_run=True)))
        try:
            outcome = self._carry_out(ring, actor, plan_tick)
        except ClockOffError:
            self.withdraw(ring, actor)
            raise
        self._raise_alarms(ring, outcome.plan.alarms)
        if outcome.plan.create:
            self._make_standby(outcome, ring, actor)
        self._fence(outcome, ring, actor)
        return outcome

    def apply(self, order: Order, *, actor: str, dry_run: bool = False) -> Outcome:
        """Carry out an order, or only plan it.

        A backend that is unavailable does not stop a revocation: introspection and the JWKS follow
        the store. Steps that failed are in ``failures``, and each tick retries them.

        Args:
            order: the order.
            actor: the recorded actor.
            dry_run: whether to only plan it.

        Raises:
            OrderRefusedError: the order cannot be carried out now; see its ``plan``.
            ClockOffError: this machine's clock is off, and the order needs it.
            BackendError: a rotation or a destruction failed at the backend; nothing has changed.
            StoreUnavailable: the store cannot be read or written.
        """
        ring = self._reader.find_ring_of(order.kid) if isinstance(order, KeyOrder) else order.ring
        if dry_run:
            needs_clock = order.needs_clock
            state = self._reader.observe(ring, actor, needs_clock=needs_clock, dry_run=True)
            return Outcome(order.plan(state))
        match order:
            case Rotate():
                return self._rotate(order, actor)
            case Revoke():
                return self._revoke(order, ring, actor)
            case Destroy():
                state = self._reader.observe(ring, actor)
                if (below := order.plan(state).destroy) is not None:
                    _require_destroys(self._reader.get_backend(state.ring)).destroy(ring, below)
        return self._write_order(order, ring, actor)

    # ------------------------------------------------------------------------- by the clock

    def withdraw(self, ring: str, actor: str) -> None:
        """Follow withdrawals at the backend, which need no clock.

        Raises:
            OrderRefusedError: there is no such ring.
            StoreUnavailable: the store cannot be read or written.
        """
        outcome = self._carry_out(ring, actor, plan_withdrawal, needs_clock=False)
        for alarm in outcome.plan.alarms if outcome.written else ():
            self._notify(alarm)

    def _make_standby(self, outcome: Outcome, ring: str, actor: str) -> None:
        # Observe again after the write: another rotator may have made the version meanwhile.
        state = self._reader.observe(ring, actor)
        try:
            if not plan_tick(state).create:
                return
            # Before the claim: each tick would write two events, for as long as the keys are lost.
            _require_held(state)
        except BackendError as error:
            # The first plan has raised the alarm. A version would only follow the other keys there.
            outcome.failures.append(f"no version was made: {error}")
            return
        if not self._claim(state, "a standby is needed"):
            return
        with suppress(BackendError):
            self._publish(outcome, ring, actor, self._create(outcome, state, actor))

    # ----------------------------------------------------------------------------- by order

    def _rotate(self, order: Rotate, actor: str) -> Outcome:
        state = self._reader.observe(order.ring, actor)
        outcome = Outcome(order.plan(state))
        versions = len(state.ring.keys)
        while not self._claim(state, order.reason):
            state = self._reader.observe(order.ring, actor)
            if len(state.ring.keys) > versions:
                raise OrderRefusedError(
                    f"{order.ring}: another process has just made its next version"
                )
            order.plan(state)
        self._publish(outcome, order.ring, actor, self._create(outcome, state, actor))
        return outcome

    def _revoke(self, order: Revoke, ring: str, actor: str) -> Outcome:
        """Revoke; if no other key could sign, create one first, which becomes active at once."""
        state = self._reader.observe(ring, actor, needs_clock=False)
        prepared = Outcome(order.plan(state))
        if not prepared.plan.create:
            return self._write_order(order, ring, actor)
        made = self._make_version(prepared, ring, actor, order.reason)
        outcome = self._write_order(order, ring, actor, made)
        outcome.created = made
        outcome.failures[:0] = prepared.failures
        outcome.seconds = prepared.seconds | outcome.seconds
        if made is not None and outcome.plan.create:
            self._report_unusable(outcome, made)
        return outcome

    def _write_order(
        self, order: Order, ring: str, actor: str, made: Version | None = None
    ) -> Outcome:
        outcome = self._carry_out(ring, actor, order.plan, made, needs_clock=order.needs_clock)
        self._fence(outcome, ring, actor)
        return outcome

    # ---------------------------------------------------------------------------- execution

    def _carry_out(
        self,
        ring: str,
        actor: str,
        planner: Planner,
        made: Version | None = None,
        *,
        needs_clock: bool = True,
    ) -> Outcome:
        """Plan and write, until no other change intervenes."""
        started = time.monotonic()
        for _ in range(ATTEMPTS):
            state = self._reader.observe(ring, actor, made, needs_clock=needs_clock)
            plan = self._plan(state, planner)
            if not plan.writes:
                return Outcome(plan, seconds={"planned": time.monotonic() - started})
            if self._write(plan):
                seconds = {"written": time.monotonic() - started}
                return Outcome(plan, written=True, seconds=seconds)
        raise StoreUnavailable(f"other processes keep changing the ring {ring!r}")

    def _plan(self, state: ObservedState, planner: Planner) -> Plan:
        try:
            return planner(state)
        except BackendBroken as error:
            # The backend contradicts what is published: plan without its state.
            self._notify(Alarm("key.not_adopted", state.ring.name, str(error)))
            return planner(replace(state, view=None))

    def _write(self, plan: Plan) -> bool:
        require_invariants(plan.ring, plan.keys, self._timing, plan.now)
        return self._store.change_ring(
            plan.ring.name, plan.ring.epoch, plan.changes, plan.ring_change
        )

    def _make_version(self, outcome: Outcome, ring: str, actor: str, reason: str) -> Version | None:
        """Claim and create one version; None if another process claimed it, or it failed."""
        state = self._reader.observe(ring, actor, needs_clock=False)
        if not self._claim(state, reason):
            return None
        with suppress(BackendError):
            return self._create(outcome, state, actor)
        return None

    def _create(self, outcome: Outcome, state: ObservedState, actor: str) -> Version:
        ring, started = state.ring, time.monotonic()
        try:
            _require_held(state)
            made = _require_creates(self._reader.get_backend(ring)).create(ring.name, ring.alg)
        except BackendError as error:
            outcome.failures.append(f"no version was made: {error}")
            self._notify(Alarm("rotation.failed", ring.name, str(error)))
            self._release(ring.name, actor)
            raise
        outcome.created = made
        outcome.seconds["created"] = time.monotonic() - started
        return made

    def _claim(self, state: ObservedState, reason: str) -> bool:
        if state.is_claimed:
            return False
        draft = Draft(state)
        draft.change_ring("ring.version_ordered", reason, claimed_until=state.now + CLAIM)
        return self._write(draft.finish())

    def _release(self, ring: str, actor: str) -> None:
        draft = Draft(self._reader.observe(ring, actor, needs_clock=False))
        draft.change_ring("ring.version_failed", "the backend made none", claimed_until=None)
        with suppress(KeysError):
            self._write(draft.finish())

    def _publish(self, outcome: Outcome, ring: str, actor: str, made: Version) -> None:
        # Pass the version along: a lagging node of the backend may not list it yet.
        planner = partial(plan_publication, version=made)
        published = self._carry_out(ring, actor, planner, made)
        outcome.plan, outcome.written = published.plan, outcome.written or published.written
        if not outcome.plan.has_version(made):
            self._report_unusable(outcome, made)

    def _report_unusable(self, outcome: Outcome, made: Version) -> None:
        alarms = (each for each in outcome.plan.alarms if each.event == "key.not_adopted")
        why = "; ".join(each.detail for each in alarms) or f"version {made.ref} is not adopted"
        outcome.failures.append(f"the version made cannot be used: {why}")
        self._notify(Alarm("rotation.failed", outcome.plan.ring.name, outcome.failures[-1]))

    def _fence(self, outcome: Outcome, ring: str, actor: str) -> None:
        """Set the plan's fence at the backend, and record it; add a failure to ``failures``."""
        floor, started = outcome.plan.fence, time.monotonic()
        if floor is None:
            return
        try:
            _require_fences(self._reader.get_backend(outcome.plan.ring)).fence(ring, floor)
        except BackendError as error:
            outcome.failures.append(f"not fenced at the backend: {error}")
            self._notify(Alarm("rotation.failed", ring, str(error)))
            return
        outcome.seconds["fenced"] = time.monotonic() - started
        outcome.fenced = floor
        # If this machine's clock is off, the next tick on another node records it.
        with suppress(ClockOffError):
            recorded = self._carry_out(ring, actor, plan_tick)
            outcome.written = outcome.written or recorded.written

    def _raise_alarms(self, ring: str, raised: Iterable[Alarm]) -> None:
        """Raise the alarms that the previous tick did not raise."""
        alarms = {(alarm.event, alarm.subject): alarm for alarm in raised}
        before = self._alarmed.get(ring, frozenset())
        for name, alarm in alarms.items():
            if name not in before:
                self._notify(alarm)
        self._alarmed[ring] = frozenset(alarms)


def _require_held(state: ObservedState) -> None:
    """Raise BackendDenied if the backend has lost the keys of the ring.

    It would count from one again, so that the ring could not adopt the key; and another key under
    the name of the lost one would stand in the way of its restoration.
    """
    view, ring = state.view, state.ring
    if view is not None and not view.versions and not view.disabled and ring.keys:
        raise BackendDenied(
            f"its backend shows no version of {ring.name} any more, and no other key is made in "
            "their place: restore them there, or move the ring to another one (keys move)"
        )


def _require_creates(backend: KeyBackend) -> Creates:
    if not isinstance(backend, Creates):
        raise BackendDenied(f"a backend of {backend.scheme!r} creates no keys")
    return backend


def _require_fences(backend: KeyBackend) -> Fences:
    if not isinstance(backend, Fences):
        raise BackendDenied(f"a backend of {backend.scheme!r} fences no versions")
    return backend


def _require_destroys(backend: KeyBackend) -> Destroys:
    if not isinstance(backend, Destroys):
        raise BackendDenied(f"a backend of {backend.scheme!r} deletes no keys")
    return backend
