"""Interface of the metrics exporter; importing the exporter takes long."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol


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

    def render(self, ready: Mapping[str, bool]) -> bytes:
        """Return the page of metrics.

        Args:
            ready: whether each condition of readiness holds, by name.
        """

    def known_backends(self) -> KnownBackends:
        """Return the states of the key backends as the processes last reported them."""
