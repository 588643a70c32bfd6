"""Rings and encrypted keys in memory, for tests and experiments."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from datetime import UTC, datetime
from threading import Lock

from keys.backends.local.storage import EncryptedKey
from keys.signing_key import KeyState, RingDefinition, RingSnapshot
from keys.store import KeyChange, NodeReport, RingChange


class MemoryEncryptedKeyStorage:
    """Encrypted private keys in memory: ``keys.backends.local.storage.EncryptedKeyStorage``."""

    def __init__(self) -> None:
        self.keys: list[EncryptedKey] = []
        self._lock = Lock()

    def load(self, ring: str) -> tuple[EncryptedKey, ...]:
        """Return every version of ``ring``, lowest first."""
        held = [key for key in self.keys if key.ring == ring]
        return tuple(sorted(held, key=lambda key: key.version))

    def find_newest(self) -> EncryptedKey | None:
        """Return the key that was created last, or None."""
        return max(self.keys, key=lambda key: (key.created_at, key.version), default=None)

    def add(self, key: EncryptedKey) -> bool:
        """Store ``key`` unless its version or kid is taken."""
        with self._lock:
            for held in self.keys:
                if (held.ring, held.version) == (key.ring, key.version) or held.kid == key.kid:
                    return False
            self.keys.append(key)
            return True

    def delete_below(self, ring: str, version: int) -> None:
        """Delete every version of ``ring`` below ``version``."""
        with self._lock:
            self.keys = [key for key in self.keys if key.ring != ring or key.version >= version]


class MemoryKeyStore:
    """Rings in memory (``keys.store.KeyStore``); ``events`` holds the recorded events.

    Args:
        clock: returns the present time, timezone-aware; None: the system's clock.
    """

    def __init__(self, clock: Callable[[], datetime] | None = None) -> None:
        self.rings: dict[str, RingSnapshot] = {}
        self.events: list[KeyChange | RingChange] = []
        self.nodes: dict[tuple[str, str], NodeReport] = {}
        self.clock = clock or _utc_now
        self.offset_seconds = 0.0
        self._lock = Lock()

    def load_rings(self, loaded_at: datetime) -> tuple[RingSnapshot, ...]:
        """Return every ring by name."""
        rings = sorted(self.rings.items())
        return tuple(replace(ring, loaded_at=loaded_at) for _, ring in rings)

    def add_ring(self, definition: RingDefinition) -> None:
        """Add a ring without keys, unless the name exists."""
        with self._lock:
            if definition.name not in self.rings:
                self.rings[definition.name] = empty_ring(definition)

    def change_ring(
        self,
        ring: str,
        seen_epoch: int,
        changes: Sequence[KeyChange],
        ring_change: RingChange | None = None,
    ) -> bool:
        """Write the changes if the ring is still at ``seen_epoch``."""
        with self._lock:
            held = self.rings.get(ring)
            if held is None or held.epoch != seen_epoch:
                return False
            keys = {key.version: key for key in held.keys}
            keys |= {change.key.version: change.key for change in changes}
            ordered = tuple(keys[version] for version in sorted(keys))
            if sum(key.state is KeyState.ACTIVE for key in ordered) > 1:
                return False
            if ring_change is not None:
                held = replace(held, **ring_change.values())
                self.events.append(ring_change)
            times = [change.at for change in (*changes, ring_change) if change is not None]
            changed_at = max(times, default=held.changed_at)
            self.rings[ring] = replace(
                held, epoch=held.epoch + 1, keys=ordered, changed_at=changed_at
            )
            self.events.extend(changes)
            return True

    def load_nodes(self) -> tuple[NodeReport, ...]:
        """Return the latest report of every node and ring."""
        return tuple(report for _, report in sorted(self.nodes.items()))

    def report_node(self, node: str, epochs: Mapping[str, int], offset_seconds: float) -> None:
        """Store a node's epochs."""
        for ring, epoch in epochs.items():
            self.nodes[node, ring] = NodeReport(
                node=node,
                ring=ring,
                epoch_seen=epoch,
                seen_at=self.clock(),
                clock_offset_seconds=offset_seconds,
            )

    def clock_offset_seconds(self) -> float:
        """Return ``offset_seconds``."""
        return self.offset_seconds


def empty_ring(definition: RingDefinition) -> RingSnapshot:
    """Return a ring before its first key, at epoch 0."""
    never = datetime.min.replace(tzinfo=UTC)
    return RingSnapshot(**asdict(definition), epoch=0, keys=(), loaded_at=never)


def _utc_now() -> datetime:
    return datetime.now(UTC)
