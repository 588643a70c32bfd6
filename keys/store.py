"""The interface of the place that keeps the rings' public state and agrees on its changes."""

from collections.abc import Sequence
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


class KeyStore(Protocol):
    """Keeps rings and keys; changes a ring by compare-and-set on its epoch.

    Every method raises ``keys.errors.StoreUnavailable`` when the store cannot be reached.
    """

    def load_rings(self, loaded_at: datetime) -> tuple[RingSnapshot, ...]:
        """Return every ring by name, its epoch read before its keys, with ``loaded_at``."""

    def add_ring(self, definition: RingDefinition) -> None:
        """Add a ring at epoch 0 without keys; a ring of that name is left as it is."""

    def change_ring(self, ring: str, seen_epoch: int, changes: Sequence[KeyChange]) -> bool:
        """Write the changes, their events and the next epoch in one transaction.

        Returns:
            False, with nothing written, if the ring is no longer at ``seen_epoch``: load again.
        """
