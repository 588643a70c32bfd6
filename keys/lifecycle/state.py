"""The observed state of a ring, the basis of plans, and its reader."""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from enum import StrEnum

from keys.backend import BackendView, Creates, Destroys, Fences, KeyBackend, Version
from keys.errors import BackendDenied, BackendError, BackendUnavailable, OrderRefusedError
from keys.events import Alarm, BackendAnswered, BackendFailed, Notify, RingObserved
from keys.lifecycle.rules import succeeded_since
from keys.lifecycle.timing import Timing
from keys.node_clock import NodeClock
from keys.signing_key import RingDefinition, RingSnapshot
from keys.store import KeyStore, NodeReport

logger = logging.getLogger(__name__)

#: How long a claim reserves the creation of a version.
CLAIM = timedelta(seconds=30)
#: How long no version is made by the clock after one that cannot be used.
UNUSABLE_PAUSE = timedelta(hours=1)


class RotationMode(StrEnum):
    """The maker of a ring's new versions; the values are those of the setting ``drive``.

    ``AUTOMATIC``: by the server. ``COMMAND``: by ``keys tick``. ``EXTERNAL``: at the backend, which
    the ring follows.
    """

    EXTERNAL = "follow"
    COMMAND = "rotator"
    AUTOMATIC = "self"


@dataclass(frozen=True, slots=True)
class Permissions:
    """The permissions at the backend of the identity that executes a plan."""

    create: bool
    fence: bool


ALL_PERMISSIONS = Permissions(create=True, fence=True)
NO_PERMISSIONS = Permissions(create=False, fence=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class RingRules:
    """The rules of the settings for one ring.

    Attributes:
        definition: its algorithm, backend and durations.
        mode: where its versions are made.
        permissions: the operations that this process may request from its backend.
    """

    definition: RingDefinition
    mode: RotationMode = RotationMode.AUTOMATIC
    permissions: Permissions = NO_PERMISSIONS


@dataclass(frozen=True, slots=True, kw_only=True)
class Readiness:
    """The known consumers of the JWKS that have not fetched the standby yet.

    Attributes:
        missing: their names, for the operator.
        binding: whether activation waits for them.
    """

    missing: tuple[str, ...] = ()
    binding: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ObservedState:
    """The complete basis of a plan.

    Attributes:
        ring: the ring as loaded.
        others: the other rings, loaded at the same time.
        now: the present time, by the store's clock.
        timing: the installation's durations.
        mode: where new versions are made.
        permissions: the operations that may be requested from the backend.
        creates: whether the backend creates keys.
        fences: whether it fences versions.
        destroys: whether it deletes private keys.
        view: the backend's state; None: it does not answer.
        nodes: the latest reports on this ring.
        readiness: the consumers that have not fetched the standby.
        definition: the ring's definition in the settings, if any.
        actor: the recorded actor.
    """

    ring: RingSnapshot
    now: datetime
    timing: Timing
    mode: RotationMode
    permissions: Permissions
    creates: bool
    fences: bool
    destroys: bool
    view: BackendView | None
    others: tuple[RingSnapshot, ...] = ()
    nodes: tuple[NodeReport, ...] = ()
    readiness: Readiness = field(default_factory=Readiness)
    definition: RingDefinition | None = None
    actor: str = "server"

    @property
    def can_create(self) -> bool:
        """Whether this process can create a version at the backend."""
        return self.permissions.create and self.creates

    @property
    def can_fence(self) -> bool:
        """Whether this process can set a fence at the backend."""
        return self.permissions.fence and self.fences

    @property
    def is_claimed(self) -> bool:
        """Whether another process is making the next version; a longer claim is a pause."""
        until = self.ring.claimed_until
        return until is not None and self.now < until <= self.now + 2 * CLAIM

    def laggards(self) -> tuple[str, ...]:
        """Return the names of the signing nodes that have not seen the ring's epoch."""
        oldest = self.now - timedelta(seconds=self.timing.snapshot_lifetime_seconds)
        return tuple(
            report.node
            for report in self.nodes
            if report.seen_at >= oldest and report.epoch_seen < self.ring.epoch
        )

    def succession(self) -> datetime | None:
        """Return when another ring took over; None while this one signs."""
        return succeeded_since(self.ring, self.others, self.now)

    def get_ring(self, name: str) -> RingSnapshot:
        """Return this ring or another by name; OrderRefusedError if there is none."""
        return get_ring((self.ring, *self.others), name)


class StateReader:
    """Observes rings: in the store, at their backends, and from nodes and consumers.

    Args:
        store: stores the rings.
        backends: the open backends by the URI that the rings name.
        rules: the rules of the settings, by ring; other rings follow their backends.
        clock: returns the present time, timezone-aware.
        timing: the installation's durations.
        notify: receives observations, outages and the alarm ``clock.off``.
        readiness: returns the consumers that have not fetched a ring's standby.
        require_steady: raises ClockOffError if the time is unreliable for another reason.
        limit: returns the latest time up to the given one that has certainly passed.
    """

    def __init__(  # noqa: PLR0913 - its parts, by name
        self,
        *,
        store: KeyStore,
        backends: Mapping[str, KeyBackend],
        rules: Mapping[str, RingRules],
        clock: Callable[[], datetime],
        timing: Timing,
        notify: Notify,
        readiness: Callable[[RingSnapshot], Readiness],
        require_steady: Callable[[], None],
        limit: Callable[[datetime], datetime],
    ) -> None:
        self._store = store
        self._backends = dict(backends)
        self._rules = dict(rules)
        self._clock = clock
        self._timing = timing
        self._notify = notify
        self._readiness = readiness
        self._require_steady = require_steady
        self._limit = limit
        self._node_clock = NodeClock(store, clock, timing.clock_tolerance_seconds, notify)

    def observe(
        self,
        name: str,
        actor: str,
        made: Version | None = None,
        *,
        needs_clock: bool = True,
        dry_run: bool = False,
    ) -> ObservedState:
        """Return the observed state of the ring ``name``.

        The present time is the store's. A machine whose clock is off may not sign, and plans only
        what stops a key.

        Args:
            name: the ring.
            actor: the recorded actor.
            made: a version that was just made, which the backend may not list yet.
            needs_clock: whether the plan requires a correct clock.
            dry_run: whether the plan is not carried out. Nothing is stored, so that leaps of the
                clock are not looked for.

        Raises:
            ClockOffError: this machine's clock is off, and the plan needs it.
            OrderRefusedError: there is no such ring.
            StoreUnavailable: the store cannot be read.
        """
        rings = self._store.load_rings(self._clock())
        ring = get_ring(rings, name)
        if needs_clock:
            now = self._node_clock.require_now(ring.changed_at)
            if not dry_run:
                self._require_steady()
        else:
            # A successor that is due by a clock that leapt ahead signs nothing once it is set back.
            latest = self._node_clock.measure_now()
            passed = latest if dry_run else self._limit(latest)
            now = max(passed, min(latest, ring.changed_at or latest))
        backend = self._backends.get(ring.backend_uri)
        rules = self._rules.get(name)
        return ObservedState(
            ring=ring,
            others=tuple(each for each in rings if each.name != name),
            now=now,
            timing=self._timing,
            mode=rules.mode if rules else RotationMode.EXTERNAL,
            permissions=rules.permissions if rules else NO_PERMISSIONS,
            creates=isinstance(backend, Creates),
            fences=isinstance(backend, Fences),
            destroys=isinstance(backend, Destroys),
            view=_with_version(self._view(backend, ring), made),
            nodes=tuple(report for report in self._store.load_nodes() if report.ring == name),
            readiness=self._readiness(ring),
            definition=rules.definition if rules else None,
            actor=actor,
        )

    def _view(self, backend: KeyBackend | None, ring: RingSnapshot) -> BackendView | None:
        if backend is None:
            return None
        try:
            view = backend.describe_versions(ring.name)
        except BackendUnavailable as error:
            self._notify(BackendFailed(ring.backend_uri, str(error)))
            return None
        except BackendError as error:
            logger.error("cannot observe the backend of ring %s: %s", ring.name, error)  # noqa: TRY400 - the cause is logged
            # An identity that may not read may probably not sign either.
            self._notify(BackendFailed(ring.backend_uri, str(error)))
            self._notify(Alarm("rotation.failed", ring.name, str(error)))
            return None
        self._notify(BackendAnswered(ring.backend_uri))
        self._notify(RingObserved(ring.name))
        return view

    def find_ring_of(self, kid: str) -> str:
        """Return the name of the ring that has the key; OrderRefusedError if none has."""
        for ring in self._store.load_rings(self._clock()):
            if any(key.kid == kid for key in ring.keys):
                return ring.name
        raise OrderRefusedError(f"no ring has a key {kid!r}")

    def get_backend(self, ring: RingSnapshot) -> KeyBackend:
        """Return the ring's backend; BackendDenied if it is not open here."""
        try:
            return self._backends[ring.backend_uri]
        except KeyError:
            raise BackendDenied(f"the backend of {ring.name!r} is not open here") from None


def get_ring(rings: tuple[RingSnapshot, ...], name: str) -> RingSnapshot:
    """Return the ring ``name``; OrderRefusedError if there is none."""
    for ring in rings:
        if ring.name == name:
            return ring
    known = ", ".join(ring.name for ring in rings) or "none"
    raise OrderRefusedError(f"there is no ring {name!r}; the rings are: {known}")


def _with_version(view: BackendView | None, made: Version | None) -> BackendView | None:
    if made is None:
        return view
    if view is None:
        return BackendView((made,), sign_floor=None, verify_floor=None, disabled=False)
    if any(version.ref == made.ref for version in view.versions):
        return view
    return replace(view, versions=(*view.versions, made))
