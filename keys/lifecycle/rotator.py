"""Carries out plans: asks the backend, writes by compare-and-set, and starts anew when it lost.

Several rotators may work on one ring at once, in servers and commands on any node. Whoever writes
first wins; the others read again and find it done. Only the making of a version is no
compare-and-set at any backend, so it is claimed in the store first: one claim, one version.
"""

import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from functools import partial

from keys.backend import KeyBackend, Version
from keys.errors import (
    BackendBroken,
    BackendError,
    ClockOffError,
    KeysError,
    OrderRefusedError,
    StoreUnavailable,
)
from keys.lifecycle.invariants import require_invariants
from keys.lifecycle.orders import (
    plan_activation,
    plan_destruction,
    plan_freeze,
    plan_pruning,
    plan_revocation,
    plan_rotation,
    plan_succession,
    plan_taint,
)
from keys.lifecycle.plan import Alarm, Draft, Plan, Readiness, Situation
from keys.lifecycle.planner import plan_tick, plan_withdrawal
from keys.lifecycle.survey import RingRules, Surveyor
from keys.lifecycle.timing import Timing
from keys.observer import Observer, SilentObserver
from keys.signing_key import RingSnapshot
from keys.store import KeyStore

#: How often a change is planned anew because somebody else changed the ring meanwhile.
ATTEMPTS = 20
#: How long the others leave the making of a version to whoever claimed it.
CLAIM_SECONDS = 30

Planner = Callable[[Situation], Plan]


@dataclass(slots=True)
class Outcome:
    """What came of an order or a tick.

    Attributes:
        plan: What was planned last; for an order, the order's own plan.
        written: Whether anything was written.
        created: The version that was made.
        fenced: The lowest version that may sign, as the backend confirmed it.
        failures: What could not be done, in words; the rest was.
        seconds: How long each step took, by its name.
    """

    plan: Plan
    written: bool = False
    created: Version | None = None
    fenced: str | None = None
    failures: list[str] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)


class Rotator:
    """Moves rings on, by the clock and by order; safe to run many times at once.

    The time is the store's. On a machine whose clock is off, ``revoke``, ``taint`` and ``freeze``
    work, and everything else raises ClockOffError.

    Args:
        store: Where the rings are.
        backends: The open backends by the URI that the rings name.
        rules: What the settings say, by the ring's name; others are followed without powers.
        clock: Returns the present, timezone-aware.
        timing: The installation's durations.
        observer: Hears of views, outages and alarms.
        readiness: Tells who has not fetched a ring's standby.
        require_steady: Raises ClockOffError where time cannot be believed for another reason than
            an offset from the store's.
    """

    def __init__(  # noqa: PLR0913 - its parts, by name
        self,
        *,
        store: KeyStore,
        backends: Mapping[str, KeyBackend],
        rules: Mapping[str, RingRules],
        clock: Callable[[], datetime],
        timing: Timing,
        observer: Observer | None = None,
        readiness: Callable[[RingSnapshot], Readiness] | None = None,
        require_steady: Callable[[], None] = lambda: None,
    ) -> None:
        self._store = store
        self._timing = timing
        self._observer = observer or SilentObserver()
        self._survey = Surveyor(
            store=store,
            backends=backends,
            rules=rules,
            clock=clock,
            timing=timing,
            observer=self._observer,
            readiness=readiness or (lambda _: Readiness()),
            require_steady=require_steady,
        )
        self._alarmed: dict[str, frozenset[tuple[str, str]]] = {}

    # ------------------------------------------------------------------------------ by the clock

    def tick(self, ring: str, *, actor: str, dry_run: bool = False) -> Outcome:
        """Do what time and the backend's state ask for: adopt, record, make, fence, remove.

        Raises:
            ClockOffError: This machine's clock is off. Floors of the backend are followed even so.
            OrderRefusedError: There is no such ring.
            StoreUnavailable: The store cannot be read or written.
        """
        if dry_run:
            return Outcome(plan_tick(self._survey.situate(ring, actor)))
        try:
            outcome = self._carry_out(ring, actor, plan_tick)
        except ClockOffError:
            self._withdraw(ring, actor)
            raise
        self._raise_alarms(ring, outcome.plan.alarms)
        if outcome.plan.create:
            self._make_standby(outcome, ring, actor)
        if outcome.plan.fence is not None:
            self._fence(outcome, ring, actor, outcome.plan.fence)
        return outcome

    def _withdraw(self, ring: str, actor: str) -> None:
        """Follow what people withdrew at the backend: that does not wait for a clock."""
        outcome = self._carry_out(ring, actor, plan_withdrawal, stopping=True)
        for alarm in outcome.plan.alarms if outcome.written else ():
            self._observer.alarm(alarm.event, alarm.subject, alarm.detail)

    def _make_standby(self, outcome: Outcome, ring: str, actor: str) -> None:
        situation = self._survey.situate(ring, actor)
        # Read anew after whatever was just written: another rotator may have made it meanwhile.
        if not plan_tick(situation).create or not self._claim(situation, "a standby is needed"):
            return
        with suppress(BackendError):
            self._adopt(outcome, ring, actor, self._create(outcome, situation.ring, actor))

    # --------------------------------------------------------------------------------- by order

    def rotate(self, ring: str, *, actor: str, reason: str, dry_run: bool = False) -> Outcome:
        """Make a version now; the standby takes over as soon as verifiers surely know it.

        Raises:
            OrderRefusedError: See ``orders.plan_rotation``; or somebody else is making one.
            BackendError: The backend did not make it; nothing has changed.
        """
        situation = self._survey.situate(ring, actor)
        outcome = Outcome(plan_rotation(situation))
        if dry_run:
            return outcome
        versions = len(situation.ring.keys)
        while not self._claim(situation, reason):
            situation = self._survey.situate(ring, actor)
            if len(situation.ring.keys) > versions:
                raise OrderRefusedError(f"{ring}: somebody else has just made its next version")
            plan_rotation(situation)
        self._adopt(outcome, ring, actor, self._create(outcome, situation.ring, actor))
        return outcome

    def activate(  # noqa: PLR0913 - an order's parts, by name
        self,
        kid: str,
        *,
        actor: str,
        reason: str,
        at: datetime | None = None,
        emergency: bool = False,
        dry_run: bool = False,
    ) -> Outcome:
        """Let a published key sign now, or from ``at`` on: ``orders.plan_activation``."""
        order = partial(plan_activation, kid=kid, reason=reason, at=at, emergency=emergency)
        return self._order(self._survey.ring_of(kid), actor, order, dry_run=dry_run)

    def taint(self, kid: str, *, actor: str, reason: str, dry_run: bool = False) -> Outcome:
        """Stop a key from signing; what it signed expires: ``keys.lifecycle.orders.plan_taint``."""
        order = partial(plan_taint, kid=kid, reason=reason)
        ring = self._survey.ring_of(kid)
        return self._order(ring, actor, order, dry_run=dry_run, stopping=True)

    def revoke(
        self,
        kid: str,
        *,
        actor: str,
        reason: str,
        all_versions: bool = False,
        dry_run: bool = False,
    ) -> Outcome:
        """Revoke a key, or all of its ring's: ``keys.lifecycle.orders.plan_revocation``.

        A backend that is away does not stop this: the store is what introspection and the JWKS
        follow. What could not be done there is in ``failures`` and is tried at each tick. Where no
        other key could sign, one is made first and signs under a recorded exception.
        """
        ring = self._survey.ring_of(kid)
        order = partial(plan_revocation, kid=kid, reason=reason, all_versions=all_versions)
        prepared = Outcome(order(self._survey.situate(ring, actor, stopping=True)))
        if dry_run:
            return prepared
        if not prepared.plan.create:
            return self._order(ring, actor, order, dry_run=False, stopping=True)
        made = self._make_version(prepared, ring, actor, reason)
        outcome = self._order(ring, actor, order, dry_run=False, made=made, stopping=True)
        outcome.created = made
        outcome.failures[:0] = prepared.failures
        outcome.seconds = prepared.seconds | outcome.seconds
        return outcome

    def freeze(self, ring: str, *, actor: str, reason: str, dry_run: bool = False) -> Outcome:
        """Hold the ring as it is: ``keys.lifecycle.orders.plan_freeze``."""
        order = partial(plan_freeze, reason=reason, frozen=True)
        return self._order(ring, actor, order, dry_run=dry_run, stopping=True)

    def unfreeze(self, ring: str, *, actor: str, reason: str, dry_run: bool = False) -> Outcome:
        """Let the ring move again."""
        order = partial(plan_freeze, reason=reason, frozen=False)
        return self._order(ring, actor, order, dry_run=dry_run)

    def prune(self, ring: str, *, actor: str, dry_run: bool = False) -> Outcome:
        """Take expired keys out of the JWKS: ``keys.lifecycle.orders.plan_pruning``."""
        return self._order(ring, actor, plan_pruning, dry_run=dry_run)

    def destroy(self, ring: str, *, actor: str, reason: str, dry_run: bool = False) -> Outcome:
        """Delete the private keys that no token needs, for good: ``orders.plan_destruction``.

        Raises:
            BackendError: The backend did not delete them; nothing is recorded.
        """
        situation = self._survey.situate(ring, actor)
        plan = plan_destruction(situation, reason)
        if not dry_run and plan.destroy is not None:
            self._survey.get_backend(situation.ring).destroy(ring, plan.destroy)
        return self._order(ring, actor, partial(plan_destruction, reason=reason), dry_run=dry_run)

    def succeed(  # noqa: PLR0913 - an order's parts, by name
        self,
        ring: str,
        successor: str,
        *,
        actor: str,
        reason: str,
        at: datetime | None = None,
        dry_run: bool = False,
    ) -> Outcome:
        """Let another ring sign in the place of this one: ``orders.plan_succession``."""

        def order(situation: Situation) -> Plan:
            return plan_succession(situation, self._survey.get_ring(successor), reason, at=at)

        return self._order(ring, actor, order, dry_run=dry_run)

    # -------------------------------------------------------------------------------- execution

    def _order(  # noqa: PLR0913 - an order's parts, by name
        self,
        ring: str,
        actor: str,
        order: Planner,
        *,
        dry_run: bool,
        made: Version | None = None,
        stopping: bool = False,
    ) -> Outcome:
        if dry_run:
            return Outcome(order(self._survey.situate(ring, actor, stopping=stopping)))
        outcome = self._carry_out(ring, actor, order, made, stopping=stopping)
        if outcome.plan.fence is not None:
            self._fence(outcome, ring, actor, outcome.plan.fence)
        return outcome

    def _carry_out(
        self,
        ring: str,
        actor: str,
        planner: Planner,
        made: Version | None = None,
        *,
        stopping: bool = False,
    ) -> Outcome:
        """Plan and write until nobody has changed the ring in between."""
        started = time.monotonic()
        for _ in range(ATTEMPTS):
            situation = self._survey.situate(ring, actor, made, stopping=stopping)
            plan = self._plan(situation, planner)
            if not plan.writes:
                return Outcome(plan, seconds={"planned": time.monotonic() - started})
            if self._write(plan):
                seconds = {"written": time.monotonic() - started}
                return Outcome(plan, written=True, seconds=seconds)
        raise StoreUnavailable(f"others keep changing the ring {ring!r}")

    def _plan(self, situation: Situation, planner: Planner) -> Plan:
        try:
            return planner(situation)
        except BackendBroken as error:
            # What it shows contradicts what is published: go on without believing any of it.
            self._observer.alarm("key.not_adopted", situation.ring.name, str(error))
            return planner(replace(situation, view=None))

    def _write(self, plan: Plan) -> bool:
        require_invariants(plan.ring, plan.keys, self._timing, plan.now)
        return self._store.change_ring(
            plan.ring.name, plan.ring.epoch, plan.changes, plan.ring_change
        )

    def _make_version(self, outcome: Outcome, ring: str, actor: str, reason: str) -> Version | None:
        """Claim the making of one version, and make it; None if it is another's, or failed."""
        situation = self._survey.situate(ring, actor, stopping=True)
        if not self._claim(situation, reason):
            return None
        with suppress(BackendError):
            return self._create(outcome, situation.ring, actor)
        return None

    def _create(self, outcome: Outcome, ring: RingSnapshot, actor: str) -> Version:
        started = time.monotonic()
        try:
            made = self._survey.get_backend(ring).create(ring.name, ring.alg)
        except BackendError as error:
            outcome.failures.append(f"no version was made: {error}")
            self._observer.alarm("rotation.failed", ring.name, str(error))
            self._release(ring.name, actor)
            raise
        outcome.created = made
        outcome.seconds["created"] = time.monotonic() - started
        return made

    def _claim(self, situation: Situation, reason: str) -> bool:
        ring, now = situation.ring, situation.now
        if ring.claimed_until is not None and ring.claimed_until > now:
            return False
        draft = Draft(situation)
        draft.change_ring(
            "ring.version_ordered", reason, claimed_until=now + timedelta(seconds=CLAIM_SECONDS)
        )
        return self._write(draft.finish())

    def _release(self, ring: str, actor: str) -> None:
        draft = Draft(self._survey.situate(ring, actor, stopping=True))
        draft.change_ring("ring.version_failed", "the backend made none", claimed_until=None)
        with suppress(KeysError):
            self._write(draft.finish())

    def _adopt(self, outcome: Outcome, ring: str, actor: str, made: Version) -> None:
        # The version is handed on: a node of the backend that lags behind may not show it yet.
        adopted = self._carry_out(ring, actor, _releasing, made)
        outcome.plan, outcome.written = adopted.plan, outcome.written or adopted.written

    def _fence(self, outcome: Outcome, ring: str, actor: str, floor: str) -> None:
        started = time.monotonic()
        try:
            self._survey.get_backend(self._survey.get_ring(ring)).fence(ring, floor)
        except BackendError as error:
            outcome.failures.append(f"not fenced at the backend: {error}")
            self._observer.alarm("rotation.failed", ring, str(error))
            return
        outcome.seconds["fenced"] = time.monotonic() - started
        outcome.fenced = floor
        # Where this machine's clock is off, the next tick elsewhere records it.
        with suppress(ClockOffError):
            recorded = self._carry_out(ring, actor, plan_tick)
            outcome.written = outcome.written or recorded.written

    def _raise_alarms(self, ring: str, raised: Iterable[Alarm]) -> None:
        """Tell of alarms that were not raised at the tick before."""
        alarms = {(alarm.event, alarm.subject): alarm for alarm in raised}
        before = self._alarmed.get(ring, frozenset())
        for name, alarm in alarms.items():
            if name not in before:
                self._observer.alarm(alarm.event, alarm.subject, alarm.detail)
        self._alarmed[ring] = frozenset(alarms)


def _releasing(situation: Situation) -> Plan:
    """Return the tick's plan, which also ends the claim on the version that was made."""
    plan = plan_tick(situation)
    draft = Draft(situation)
    draft.ring_change = plan.ring_change
    draft.change_ring("ring.version_made", "the version is published", claimed_until=None)
    return replace(plan, ring_change=draft.ring_change, create=False)
