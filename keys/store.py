"""Interface of the store of the rings' public state."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol

from keys.signing_key import RingDefinition, RingSnapshot, SigningKey

_CHANGEABLE = (
    "frozen",
    "successor",
    "succeeded_at",
    "cautious_until",
    "claimed_until",
    "prepublication_seconds",
    "rotation_interval_seconds",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyChange:
    """The new state of a key, with the event that records the change.

    Attributes:
        key: the complete new state of the key.
        event: the event, for example ``key.activated``.
        actor: the actor of the change.
        reason: the reason, readable for an auditor.
        at: the time of the change.
    """

    key: SigningKey
    event: str
    actor: str
    reason: str
    at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class RingChange:
    """The new state of a ring, with the event that records the change.

    Attributes:
        ring: the ring with the new values of the fields in :meth:`values`; other fields are
            ignored.
        event: the event, for example ``ring.frozen``.
        actor: the actor of the change.
        reason: the reason, readable for an auditor.
        at: the time of the change.
    """

    ring: RingSnapshot
    event: str
    actor: str
    reason: str
    at: datetime

    def values(self) -> dict[str, Any]:
        """Return the fields of the ring that a change may set, by name."""
        return {name: getattr(self.ring, name) for name in _CHANGEABLE}


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeReport:
    """A node's report on one ring.

    Attributes:
        node: the process, for example ``host/1234``.
        ring: the name of the ring.
        epoch_seen: the epoch of the ring that the node holds.
        seen_at: the time of the report, by the store's clock.
        clock_offset_seconds: the store's clock minus the node's.
    """

    node: str
    ring: str
    epoch_seen: int
    seen_at: datetime
    clock_offset_seconds: float


class KeyStore(Protocol):
    """Stores rings and keys; changes a ring by compare-and-set on its epoch.

    Every method raises ``keys.errors.StoreUnavailable`` if the store cannot be reached.
    """

    def load_rings(self, loaded_at: datetime) -> tuple[RingSnapshot, ...]:
        """Return every ring by name, its epoch read before its keys, with ``loaded_at``."""

    def add_ring(self, definition: RingDefinition) -> None:
        """Add a ring at epoch 0 without keys, unless the name exists."""

    def change_ring(
        self,
        ring: str,
        seen_epoch: int,
        changes: Sequence[KeyChange],
        ring_change: RingChange | None = None,
    ) -> bool:
        """Write the changes, their events and the next epoch in one transaction.

        Returns:
            False, with nothing written, if the ring is no longer at ``seen_epoch``: load it again.
        """

    def load_nodes(self) -> tuple[NodeReport, ...]:
        """Return the latest report of every process and ring, by node and ring."""

    def report_node(self, node: str, epochs: Mapping[str, int], offset_seconds: float) -> None:
        """Store the epochs that this node holds, and the offset of its clock."""

    def clock_offset_seconds(self) -> float:
        """Return the store's clock minus this machine's; 0 if it has no clock of its own."""
