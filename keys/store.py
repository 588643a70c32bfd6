"""The interface of the place that keeps the rings' public state and agrees on its changes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from keys.signing_key import RingDefinition, RingSnapshot, SigningKey


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyChange:
    """One key as it is to be from now on, with the one event that records the change.

    Attributes:
        key: The key's new state, all of it.
        event: What happened, for example ``key.activated``.
        actor: Who did it.
        reason: Why, in words that an auditor can read.
        at: When.
    """

    key: SigningKey
    event: str
    actor: str
    reason: str
    at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class RingChange:
    """A ring as it is to be from now on, with the one event that records the change.

    Attributes:
        ring: Its new ``frozen``, ``successor``, ``succeeded_at``, ``cautious_until``,
            ``claimed_until``, ``prepublication_seconds`` and ``rotation_interval_seconds``;
            nothing else is taken.
        event: What happened, for example ``ring.frozen``.
        actor: Who did it.
        reason: Why, in words that an auditor can read.
        at: When.
    """

    ring: RingSnapshot
    event: str
    actor: str
    reason: str
    at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeReport:
    """What one process says of itself about one ring.

    Attributes:
        node: The process, for example ``host/1234``.
        ring: Name of the ring.
        epoch_seen: The latest epoch of the ring that it signs from.
        seen_at: When it said so, by the store's clock.
        clock_offset_seconds: The store's clock less the node's.
    """

    node: str
    ring: str
    epoch_seen: int
    seen_at: datetime
    clock_offset_seconds: float


class KeyStore(Protocol):
    """Keeps rings and keys; changes a ring by compare-and-set on its epoch.

    Every method raises ``keys.errors.StoreUnavailable`` when the store cannot be reached.
    """

    def load_rings(self, loaded_at: datetime) -> tuple[RingSnapshot, ...]:
        """Return every ring by name, its epoch read before its keys, with ``loaded_at``."""

    def add_ring(self, definition: RingDefinition) -> None:
        """Add a ring at epoch 0 without keys; a ring of that name is left as it is."""

    def change_ring(
        self,
        ring: str,
        seen_epoch: int,
        changes: Sequence[KeyChange],
        ring_change: RingChange | None = None,
    ) -> bool:
        """Write the changes, their events and the next epoch in one transaction.

        Returns:
            False, with nothing written, if the ring is no longer at ``seen_epoch``: load again.
        """

    def load_nodes(self) -> tuple[NodeReport, ...]:
        """Return the latest report of every process and ring, by node and ring."""

    def report_node(self, node: str, epochs: Mapping[str, int], offset_seconds: float) -> None:
        """Keep what this process has seen: the epoch of each ring, and its clock's offset."""

    def clock_offset_seconds(self) -> float:
        """Return the store's clock less this machine's; 0 where it has none of its own."""
