"""Finds out what is known of a ring: in the store, at its backend, from the nodes and verifiers."""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime

from keys.backend import BackendView, Caps, KeyBackend, Version
from keys.errors import BackendDenied, BackendError, BackendUnavailable, OrderRefusedError
from keys.lifecycle.plan import NO_POWERS, Drive, Powers, Readiness, Situation
from keys.lifecycle.timing import Timing
from keys.node_clock import NodeClock
from keys.observer import Observer
from keys.signing_key import RingDefinition, RingSnapshot
from keys.store import KeyStore

logger = logging.getLogger(__name__)

_NO_CAPS = Caps(
    algs=frozenset(),
    in_process=False,
    prehash=False,
    batch=False,
    can_create=False,
    can_fence=False,
    can_destroy=False,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class RingRules:
    """What the settings say of one ring.

    Attributes:
        definition: Its algorithm, backend and durations.
        drive: Who makes its versions.
        powers: What this process may ask of its backend.
    """

    definition: RingDefinition
    drive: Drive = Drive.SELF
    powers: Powers = NO_POWERS


class Surveyor:
    """Finds out everything that a plan rests on.

    Args:
        store: Where the rings are.
        backends: The open backends by the URI that the rings name.
        rules: What the settings say, by the ring's name; others are followed without powers.
        clock: Returns the present, timezone-aware.
        timing: The installation's durations.
        observer: Receives views, outages and the alarm ``clock.off``.
        readiness: Tells who has not fetched a ring's standby.
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

    def situate(
        self, name: str, actor: str, made: Version | None = None, *, stopping: bool = False
    ) -> Situation:
        """Return everything that a plan for the ring ``name`` would rest on now.

        The present is the store's. A machine whose own clock is off may sign nothing, so it plans
        nothing either, except what stops a key.

        Args:
            name: The ring.
            actor: Who is recorded.
            made: A version that was just made, which the backend may not show yet.
            stopping: The plan stops a key or a ring: it is made with any clock.

        Raises:
            ClockOffError: This machine's clock is off, and the plan does not stop anything.
            OrderRefusedError: There is no such ring.
            StoreUnavailable: The store cannot be read.
        """
        ring = self.get_ring(name)
        if stopping:
            now = self._node_clock.measure_now()
        else:
            now = self._node_clock.require_now(ring.changed_at)
            self._require_steady()
        backend = self._backends.get(ring.backend_uri)
        rules = self._rules.get(name)
        return Situation(
            ring=ring,
            now=now,
            timing=self._timing,
            drive=rules.drive if rules else Drive.FOLLOW,
            powers=rules.powers if rules else NO_POWERS,
            caps=backend.caps if backend else _NO_CAPS,
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
            view = backend.view(ring.name)
        except BackendUnavailable as error:
            self._observer.backend_down(ring.backend_uri, str(error))
            return None
        except BackendError as error:
            logger.error("the ring %s cannot be followed: %s", ring.name, error)  # noqa: TRY400 - the cause is said
            # Whoever is not let in to read will not be let in to sign either.
            self._observer.backend_down(ring.backend_uri, str(error))
            self._observer.alarm("rotation.failed", ring.name, str(error))
            return None
        self._observer.backend_up(ring.backend_uri)
        self._observer.viewed(ring.name)
        return view

    def get_ring(self, name: str) -> RingSnapshot:
        """Return the ring ``name``; OrderRefusedError if there is none."""
        for ring in self._store.load_rings(self._clock()):
            if ring.name == name:
                return ring
        raise OrderRefusedError(f"there is no ring {name!r}")

    def ring_of(self, kid: str) -> str:
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


def _with_version(view: BackendView | None, made: Version | None) -> BackendView | None:
    if made is None:
        return view
    if view is None:
        return BackendView((made,), sign_floor=None, verify_floor=None, disabled=False)
    if any(version.ref == made.ref for version in view.versions):
        return view
    return replace(view, versions=(*view.versions, made))
