"""A plan for a ring: the changes to write, the steps at the backend, the waits and the alarms."""

from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from keys.backend import Version
from keys.events import Alarm
from keys.jose.jwk import thumbprint
from keys.lifecycle.rules import find_active_key
from keys.lifecycle.state import ObservedState
from keys.signing_key import KeyState, RingSnapshot, SigningKey
from keys.store import KeyChange, RingChange


@dataclass(frozen=True, slots=True)
class Wait:
    """A step that is not done yet.

    Attributes:
        what: a description with the key's id.
        until: when it will be done; None: see ``why``.
        why: the rule that requires the wait.
    """

    what: str
    until: datetime | None
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """The changes to write, the steps at the backend, the waits and the alarms.

    Attributes:
        ring: the ring as loaded.
        now: the time of the plan, by the store's clock.
        keys: every key after the changes.
        changes: the changes to write, each with its event.
        ring_change: the change of the ring itself.
        create: whether to create a version at the backend.
        fence: the new signing floor at the backend.
        destroy: the lowest version to keep at the backend.
        waits: the steps that are not done yet.
        alarms: the alarms to raise.
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

    def has_version(self, version: Version) -> bool:
        """Return whether the ring has ``version`` after the changes, and not another key there."""
        number, kid = int(version.ref), thumbprint(version.jwk)
        return any((key.version, key.kid) == (number, kid) for key in self.keys)


class Draft:
    """Collects the parts of a plan: the new state of the keys, and the reasons.

    Args:
        state: the observed state.
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
        """Replace fields of ``key``; record ``event`` with ``why``."""
        changed: SigningKey = replace(key, **fields)  # type: ignore[arg-type]
        self.keys[key.version] = changed
        self._events.append((key.version, event, why))
        return changed

    def change_ring(self, event: str, why: str, **fields: object) -> None:
        """Replace fields of the ring; record ``event`` with ``why``."""
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
        """Return the active key."""
        return find_active_key(self.keys.values(), self.state.now)

    def pending(self) -> list[SigningKey]:
        """Return the published keys above the active one, lowest first; the last is the standby."""
        active = self.active()
        lowest = active.version if active else 0
        return [
            key for key in self.in_states(frozenset({KeyState.PUBLISHED})) if key.version > lowest
        ]

    def prepublished_at(self, key: SigningKey) -> datetime:
        """Return when every verifier that obeys the cache time knows ``key``."""
        published_at = key.published_at or self.state.now
        return published_at + timedelta(seconds=self.state.ring.prepublication_seconds)

    def finish(self) -> Plan:
        """Return the plan; each change has the final state of its key."""
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
