"""The observed state of a ring: what a plan rests on, and the reader that observes it."""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from enum import StrEnum

from keys.backend import BackendView, Creates, Destroys, Fences, KeyBackend, Version
from keys.errors import BackendDenied, BackendError, BackendUnavailable, OrderRefusedError
from keys.lifecycle.timing import Timing
from keys.node_clock import NodeClock
from keys.observer import Observer
from keys.signing_key import RingDefinition, RingSnapshot
from keys.store import KeyStore, NodeReport

logger = logging.getLogger(__name__)


class RotationMode(StrEnum):
    """Who makes a ring's new versions; the values are those of the setting ``drive``.

    ``EXTERNAL``: others do, at the backend, and the ring follows it. ``COMMAND``: the command
    ``keys tick``. ``AUTOMATIC``: the server.
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
        definition: Its algorithm, backend and durations.
        mode: Who makes its versions.
        permissions: What this process may ask of its backend.
    """

    definition: RingDefinition
    mode: RotationMode = RotationMode.AUTOMATIC
    permissions: Permissions = NO_PERMISSIONS


@dataclass(frozen=True, slots=True, kw_only=True)
class Readiness:
    """Which known readers of the JWKS have not fetched the standby yet.

    Attributes:
        missing: Their names, for the operator.
        binding: Whether activation waits for them.
    """

    missing: tuple[str, ...] = ()
    binding: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ObservedState:
    """Everything that a plan rests on.

    Attributes:
        ring: As it was read.
        others: The other rings, read at the same time.
        now: The present, by the store's clock.
        timing: The installation's durations.
        mode: Who makes new versions.
        permissions: What may be asked of the backend.
        creates: Whether the backend creates keys.
        fences: Whether it fences versions.
        destroys: Whether it deletes private keys.
        view: What the backend shows; None: it does not answer.
        nodes: The latest reports about this ring.
        readiness: Who has not fetched the standby.
        definition: The ring's definition in the settings; None: it has none.
        actor: Who is recorded.
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
        """Whether a new version can be asked of the backend from here."""
        return self.permissions.create and self.creates

    @property
    def can_fence(self) -> bool:
        """Whether a fence can be asked of the backend from here."""
        return self.permissions.fence and self.fences

    def laggards(self) -> tuple[str, ...]:
        """Return the nodes that sign but have not seen the ring's epoch, by name."""
        oldest = self.now - timedelta(seconds=self.timing.snapshot_lifetime_seconds)
        return tuple(
            report.node
            for report in self.nodes
            if report.seen_at >= oldest and report.epoch_seen < self.ring.epoch
        )

    def get_ring(self, name: str) -> RingSnapshot:
        """Return this ring or another by name; OrderRefusedError if there is none."""
        return get_ring((self.ring, *self.others), name)


class StateReader:
    """Observes rings: in the store, at their backends, and from nodes and verifiers.

    Args:
        store: Where the rings are.
        backends: The open backends by the URI that the rings name.
        rules: What the settings define, by the ring's name; other rings follow their backends.
        clock: Returns the present, timezone-aware.
        timing: The installation's durations.
        observer: Receives views, outages and the alarm ``clock.off``.
        readiness: Returns who has not fetched a ring's standby.
        require_steady: Raises ClockOffError where time cannot be believed for another reason.
    """

    def __init__(  # noqa: PLR0913 - its parts, by name
        self,
        *,
        store: KeyStore,
        backends: Mapping[str, KeyBackend],
        rules: Mapping[str, RingRules],
        clock: Callable[[], datetime],
        timing: Timing,
        observer: Observer,
        readiness: Callable[[RingSnapshot], Readiness],
        require_steady: Callable[[], None],
    ) -> None:
        self._store = store
        self._backends = dict(backends)
        self._rules = dict(rules)
        self._clock = clock
        self._timing = timing
        self._observer = observer
        self._readiness = readiness
        self._require_steady = require_steady
        self._node_clock = NodeClock(store, clock, timing.clock_tolerance_seconds, observer)

    def observe(
        self, name: str, actor: str, made: Version | None = None, *, needs_clock: bool = True
    ) -> ObservedState:
        """Return everything that a plan for the ring ``name`` rests on now.

        The present is the store's. A machine whose own clock is off may sign nothing, so it plans
        nothing either, except what stops a key.

        Args:
            name: The ring.
            actor: Who is recorded.
            made: A version that was just made, which the backend may not show yet.
            needs_clock: Whether the plan requires a clock that is right.

        Raises:
            ClockOffError: This machine's clock is off, and the plan needs it.
            OrderRefusedError: There is no such ring.
            StoreUnavailable: The store cannot be read.
        """
        rings = self._store.load_rings(self._clock())
        ring = get_ring(rings, name)
        if needs_clock:
            now = self._node_clock.require_now(ring.changed_at)
            self._require_steady()
        else:
            now = self._node_clock.measure_now()
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
            self._observer.backend_down(ring.backend_uri, str(error))
            return None
        except BackendError as error:
            logger.error("the ring %s cannot be followed: %s", ring.name, error)  # noqa: TRY400 - the cause is logged
            # An identity that may not read will not be allowed to sign either.
            self._observer.backend_down(ring.backend_uri, str(error))
            self._observer.alarm("rotation.failed", ring.name, str(error))
            return None
        self._observer.backend_up(ring.backend_uri)
        self._observer.viewed(ring.name)
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
    raise OrderRefusedError(f"there is no ring {name!r}")


def _with_version(view: BackendView | None, made: Version | None) -> BackendView | None:
    if made is None:
        return view
    if view is None:
        return BackendView((made,), sign_floor=None, verify_floor=None, disabled=False)
    if any(version.ref == made.ref for version in view.versions):
        return view
    return replace(view, versions=(*view.versions, made))
