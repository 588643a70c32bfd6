"""What the server's parts can tell whoever counts, beside what the keys tell."""

from dataclasses import dataclass
from typing import Protocol

from keys.observer import Observer, SilentObserver

#: Names the folder that the processes of a server count in.
METRICS_FOLDER_VARIABLE = "PROMETHEUS_MULTIPROC_DIR"
#: Every alarm that the server itself can raise; a key backend from elsewhere may know more.
ALARMS = (
    "backend.disabled",
    "clock.leapt",
    "clock.off",
    "floor.changed_externally",
    "key.absent",
    "key.not_adopted",
    "node.behind",
    "privilege.too_wide",
    "ring.no_active_key",
    "ring.no_standby",
    "rotation.failed",
    "vault.denied",
    "vault.secret_id_intercepted",
)


@dataclass(frozen=True, slots=True)
class KnownBackends:
    """What the processes of a server know of its key backends, together.

    Attributes:
        down: The backends that did not answer last, as the rings name them, and Vault addresses.
        viewed_rings: The rings that a backend has shown since the server started.
        told: Whether any process tells what it hears, so that silence means: not asked yet.
    """

    down: frozenset[str] = frozenset()
    viewed_rings: frozenset[str] = frozenset()
    told: bool = False


class MetricsSource(Protocol):
    """Where the numbers of all processes come together."""

    content_type: str

    def render(self) -> bytes:
        """Return the page of metrics."""

    def known_backends(self) -> KnownBackends:
        """Return what the processes last heard of the key backends."""


class ServerObserver(Observer, Protocol):
    """Hears what happens to keys, and what happens besides; never raises, never blocks."""

    def jwks_fetched(self, *, has_next: bool) -> None:
        """Count one fetch of the key set.

        Args:
            has_next: Whether it held the next key of every ring.
        """

    def answered(self, endpoint: str, outcome: str, seconds: float) -> None:
        """Count one request to a protocol endpoint, and how long it took.

        Args:
            endpoint: its name.
            outcome: ``ok``, a finer word of the endpoint's, or the error that was answered.
            seconds: from the last byte of the request to the answer.
        """

    def add_up(self) -> None:
        """Write what is counted of requests at each :meth:`flush` from now on, not at once."""

    def flush(self) -> None:
        """Write what was counted of requests."""

    def shed(self, count: int) -> None:
        """Count requests that were refused unread."""


class SilentServerObserver(SilentObserver):
    """An observer for programs that count nothing."""

    def jwks_fetched(self, *, has_next: bool) -> None:
        """Do nothing."""

    def answered(self, endpoint: str, outcome: str, seconds: float) -> None:
        """Do nothing."""

    def shed(self, count: int) -> None:
        """Do nothing."""

    def add_up(self) -> None:
        """Do nothing."""

    def flush(self) -> None:
        """Do nothing."""
