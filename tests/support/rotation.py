"""A ring with its rotator, nodes and time, all in memory."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from keys.lifecycle.first_key import create_first_key
from keys.lifecycle.orders import Order
from keys.lifecycle.rotator import Outcome, Rotator
from keys.lifecycle.state import (
    ALL_PERMISSIONS,
    Permissions,
    Readiness,
    RingRules,
    RotationMode,
)
from keys.lifecycle.timing import Timing
from keys.memory import MemoryKeyStore
from keys.ring import KeyRings
from keys.signing_key import KeyState, RingDefinition, SigningKey
from support.clock import FakeClock
from support.fenced_backend import FencedBackend
from support.received_events import ReceivedEvents

URI = "fenced://"
RING = RingDefinition(name="ring", alg="ES256", backend_uri=URI)
DAY = 86_400
T = RING.rotation_interval_seconds
P = RING.prepublication_seconds
L = RING.maximum_lifetime_seconds


@dataclass
class RingFixture:
    """Everything that a ring's life needs."""

    definition: RingDefinition = RING
    mode: RotationMode = RotationMode.AUTOMATIC
    permissions: Permissions = ALL_PERMISSIONS
    clock: FakeClock = field(default_factory=FakeClock)
    received: ReceivedEvents = field(default_factory=ReceivedEvents)
    readiness: Readiness = field(default_factory=Readiness)
    make_backend: Callable[[FakeClock], Any] = FencedBackend

    def __post_init__(self) -> None:
        self.timing = Timing()
        self.store = MemoryKeyStore(self.clock)
        self.backend = self.make_backend(self.clock)
        create_first_key(self.store, self.backend, self.definition, clock=self.clock, actor="test")
        self.rotator = self.make_rotator()

    def make_rotator(self, *, permissions: Permissions | None = None, **parts: Any) -> Rotator:
        """Return one more rotator, as another process would have it."""
        rules = RingRules(
            definition=self.definition, mode=self.mode, permissions=permissions or self.permissions
        )
        return Rotator(
            store=self.store,
            backends={self.definition.backend_uri: self.backend},
            rules={self.definition.name: rules},
            clock=self.clock,
            timing=self.timing,
            notify=self.received,
            readiness=lambda _: self.readiness,
            **parts,
        )

    def make_node(self) -> KeyRings:
        """Return the rings as a server process holds them."""
        rings = KeyRings(
            self.store,
            {self.definition.backend_uri: self.backend},
            self.clock,
            self.definition.name,
            timing=self.timing,
        )
        rings.refresh()
        return rings

    def tick(self, seconds: float = 0.0):
        """Let time pass, then tick once."""
        self.clock.advance(seconds)
        return self.rotator.tick(self.definition.name, actor="test")

    def apply(self, order: Order, *, dry_run: bool = False) -> Outcome:
        """Give an order as an operator would."""
        return self.rotator.apply(order, actor="anna", dry_run=dry_run)

    @property
    def ring(self):
        """The ring as it is stored."""
        return self.store.rings[self.definition.name]

    def key(self, version: int) -> SigningKey:
        """Return one version as it is stored."""
        return next(key for key in self.ring.keys if key.version == version)

    def states(self) -> list[KeyState]:
        """Return the states of all versions, lowest first."""
        return [key.state for key in self.ring.keys]

    def events(self) -> list[str]:
        """Return the names of all events so far."""
        return [change.event for change in self.store.events]
