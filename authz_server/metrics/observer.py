"""Interfaces between the server and its metrics."""

from dataclasses import dataclass
from typing import Protocol

from keys.observer import Observer, SilentObserver

#: The environment variable with the folder of the metrics files.
METRICS_FOLDER_VARIABLE = "PROMETHEUS_MULTIPROC_DIR"
#: All alarms of the server; a key backend from a plugin may raise others.
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
    """The states of a server's key backends, as its processes report them.

    Attributes:
        down: the backends that failed to answer last, by URI, and Vault addresses.
        viewed_rings: the rings whose backend was observed since the server started.
        reported: whether any process records metrics; if not, no state is known.
    """

    down: frozenset[str] = frozenset()
    viewed_rings: frozenset[str] = frozenset()
    reported: bool = False


class MetricsSource(Protocol):
    """Provides the metrics of all processes."""

    content_type: str

    def render(self) -> bytes:
        """Return the page of metrics."""

    def known_backends(self) -> KnownBackends:
        """Return the states of the key backends as the processes last reported them."""


class ServerObserver(Observer, Protocol):
    """Receives key events and server events. Implementations must not raise or block."""

    def jwks_fetched(self, *, has_next: bool) -> None:
        """Count one fetch of the JWKS.

        Args:
            has_next: whether it held the next key of every ring.
        """

    def answered(self, endpoint: str, outcome: str, seconds: float) -> None:
        """Count one request to a protocol endpoint, with its duration.

        Args:
            endpoint: the endpoint's name.
            outcome: ``ok``, another outcome of the endpoint, or the error code.
            seconds: from the last byte of the request to the response.
        """

    def add_up(self) -> None:
        """Add up requests in memory, and write them only at :meth:`flush`."""

    def flush(self) -> None:
        """Write the added-up requests."""

    def shed(self, count: int) -> None:
        """Count requests that were refused unread."""


class SilentServerObserver(SilentObserver):
    """An observer that records nothing."""

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
