"""A plan for a ring: the changes to write, the steps at the backend, the waits and the alarms."""

from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from keys.lifecycle.rules import find_active_key
from keys.lifecycle.state import ObservedState
from keys.signing_key import KeyState, RingSnapshot, SigningKey
from keys.store import KeyChange, RingChange


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
    """The changes to write, the steps at the backend, the waits and the alarms.

    Attributes:
        ring: As it was read.
        now: The present that it rests on, by the store's clock.
        keys: Every key as it will be.
        changes: What is to be written, each with its event.
        ring_change: The ring's own change.
        create: Whether the backend is to make a version.
        fence: The lowest version that may sign afterwards, to be set at the backend.
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
    """Collects the parts of a plan: the keys as they will be, and why.

    Args:
        state: The observed state that the plan rests on.
    """

    def __init__(self, state: ObservedState) -> None:
        self.state = state
        self.keys = {key.version: key for key in state.ring.keys}
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
        held = self.ring_change.ring if self.ring_change else self.state.ring
        changed: RingSnapshot = replace(held, **fields)  # type: ignore[arg-type]
        self.ring_change = RingChange(
            ring=changed,
            event=event,
            actor=self.state.actor,
            reason=why,
            at=self.state.now,
        )

    def in_states(self, states: frozenset[KeyState]) -> list[SigningKey]:
        """Return the keys in one of ``states``, lowest version first."""
        return [key for _, key in sorted(self.keys.items()) if key.state in states]

    def active(self) -> SigningKey | None:
        """Return the key that signs now."""
        return find_active_key(self.keys.values(), self.state.now)

    def pending(self) -> list[SigningKey]:
        """Return the published keys above the one that signs, lowest first: the standby last."""
        active = self.active()
        lowest = active.version if active else 0
        return [
            key for key in self.in_states(frozenset({KeyState.PUBLISHED})) if key.version > lowest
        ]

    def prepublished_at(self, key: SigningKey) -> datetime:
        """Return when every obedient verifier knows ``key``."""
        published_at = key.published_at or self.state.now
        return published_at + timedelta(seconds=self.state.ring.prepublication_seconds)

    def finish(self) -> Plan:
        """Return the plan; each change carries its key as it will be in the end."""
        state = self.state
        return Plan(
            ring=state.ring,
            now=state.now,
            keys=tuple(key for _, key in sorted(self.keys.items())),
            changes=tuple(
                KeyChange(
                    key=self.keys[version],
                    event=event,
                    actor=state.actor,
                    reason=why,
                    at=state.now,
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
