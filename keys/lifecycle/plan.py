"""A plan for a ring: what it rests on, what is to be done, what is waited for."""

from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from enum import StrEnum

from keys.backend import BackendView, Caps
from keys.lifecycle.rules import find_active_key
from keys.lifecycle.timing import Timing
from keys.signing_key import KeyState, RingDefinition, RingSnapshot, SigningKey
from keys.store import KeyChange, NodeReport, RingChange


class Drive(StrEnum):
    """Who makes a ring's new versions."""

    FOLLOW = "follow"
    ROTATOR = "rotator"
    SELF = "self"


@dataclass(frozen=True, slots=True)
class Powers:
    """What the identity that executes a plan may do at the backend."""

    create: bool
    fence: bool


ALL_POWERS = Powers(create=True, fence=True)
NO_POWERS = Powers(create=False, fence=False)


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
class Situation:
    """Everything that a plan rests on.

    Attributes:
        ring: As it was read.
        now: The present, by the store's clock.
        timing: The installation's durations.
        drive: Who makes new versions.
        powers: What may be asked of the backend.
        caps: What the backend can do.
        view: What the backend shows; None: it does not answer.
        nodes: The latest reports about this ring.
        readiness: Who has not fetched the standby.
        definition: What the settings say of the ring; None: as it is.
        actor: Who is recorded.
    """

    ring: RingSnapshot
    now: datetime
    timing: Timing
    drive: Drive
    powers: Powers
    caps: Caps
    view: BackendView | None
    nodes: tuple[NodeReport, ...] = ()
    readiness: Readiness = field(default_factory=Readiness)
    definition: RingDefinition | None = None
    actor: str = "server"

    @property
    def fenceable(self) -> bool:
        """Whether a fence will come: from us, or from those who drive the ring in the backend."""
        return self.caps.can_fence and self.powers.fence

    def laggards(self) -> tuple[str, ...]:
        """Return the nodes that sign but have not seen the ring's epoch, by name."""
        oldest = self.now - timedelta(seconds=self.timing.snapshot_lifetime_seconds)
        return tuple(
            report.node
            for report in self.nodes
            if report.seen_at >= oldest and report.epoch_seen < self.ring.epoch
        )


@dataclass(frozen=True, slots=True)
class Wait:
    """Something that is not done yet.

    Attributes:
        what: In words, with the key's id.
        until: When it will be done; None: that depends on ``why``.
        why: Which rule the wait serves.
    """

    what: str
    until: datetime | None
    why: str


@dataclass(frozen=True, slots=True)
class Alarm:
    """Something that an operator has to look at; ``event`` is its name in the records."""

    event: str
    subject: str
    detail: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What is to be done, and what is waited for.

    Attributes:
        ring: As it was read.
        now: The present that it rests on, by the store's clock.
        keys: Every key as it will be.
        changes: What is to be written, each with its event.
        ring_change: The ring's own change.
        create: Whether the backend is to make a version.
        fence: The lowest version that may sign from now on, to be set at the backend.
        destroy: The lowest version that is kept, to be set at the backend.
        waits: What is not done yet.
        alarms: What an operator has to look at.
    """

    ring: RingSnapshot
    now: datetime
    keys: tuple[SigningKey, ...]
    changes: tuple[KeyChange, ...] = ()
    ring_change: RingChange | None = None
    create: bool = False
    fence: str | None = None
    destroy: str | None = None
    waits: tuple[Wait, ...] = ()
    alarms: tuple[Alarm, ...] = ()

    @property
    def writes(self) -> bool:
        """Whether anything is to be written."""
        return bool(self.changes) or self.ring_change is not None


class Draft:
    """A plan in the making: the keys as they will be, and why.

    Args:
        situation: What the plan rests on.
    """

    def __init__(self, situation: Situation) -> None:
        self.situation = situation
        self.keys = {key.version: key for key in situation.ring.keys}
        self.ring_change: RingChange | None = None
        self.create = False
        self.fence: str | None = None
        self.destroy: str | None = None
        self.waits: list[Wait] = []
        self.alarms: list[Alarm] = []
        self._events: list[tuple[int, str, str]] = []

    def change(self, key: SigningKey, event: str, why: str, **fields: object) -> SigningKey:
        """Change ``key`` as the named fields say; ``why`` is recorded with ``event``."""
        changed: SigningKey = replace(key, **fields)  # type: ignore[arg-type]
        self.keys[key.version] = changed
        self._events.append((key.version, event, why))
        return changed

    def change_ring(self, event: str, why: str, **fields: object) -> None:
        """Change the ring itself as the named fields say."""
        held = self.ring_change.ring if self.ring_change else self.situation.ring
        changed: RingSnapshot = replace(held, **fields)  # type: ignore[arg-type]
        self.ring_change = RingChange(
            ring=changed,
            event=event,
            actor=self.situation.actor,
            reason=why,
            at=self.situation.now,
        )

    def in_states(self, states: frozenset[KeyState]) -> list[SigningKey]:
        """Return the keys in one of ``states``, lowest version first."""
        return [key for _, key in sorted(self.keys.items()) if key.state in states]

    def active(self) -> SigningKey | None:
        """Return the key that signs now."""
        return find_active_key(self.keys.values(), self.situation.now)

    def pending(self) -> list[SigningKey]:
        """Return the published keys above the one that signs, lowest first: the standby last."""
        active = self.active()
        lowest = active.version if active else 0
        return [
            key for key in self.in_states(frozenset({KeyState.PUBLISHED})) if key.version > lowest
        ]

    def prepublished_at(self, key: SigningKey) -> datetime:
        """Return when every obedient verifier knows ``key``."""
        published_at = key.published_at or self.situation.now
        return published_at + timedelta(seconds=self.situation.ring.prepublication_seconds)

    def finish(self) -> Plan:
        """Return the plan; each change carries its key as it will be in the end."""
        situation = self.situation
        return Plan(
            ring=situation.ring,
            now=situation.now,
            keys=tuple(key for _, key in sorted(self.keys.items())),
            changes=tuple(
                KeyChange(
                    key=self.keys[version],
                    event=event,
                    actor=situation.actor,
                    reason=why,
                    at=situation.now,
                )
                for version, event, why in self._events
            ),
            ring_change=self.ring_change,
            create=self.create,
            fence=self.fence,
            destroy=self.destroy,
            waits=tuple(self.waits),
            alarms=tuple(self.alarms),
        )
