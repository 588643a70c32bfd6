"""The places of workers, and the workers that have the same settings."""

import time
from collections.abc import Mapping
from dataclasses import dataclass, field

from authz_server.serving.listeners import Listeners
from authz_server.serving.shares import make_table
from authz_server.serving.tls import TlsFiles
from authz_server.serving.worker_processes import Worker
from authz_server.settings import Role, Settings

#: The pause before a worker is replaced; it doubles with each early exit in a row.
FIRST_PAUSE_SECONDS = 0.1
LONGEST_PAUSE_SECONDS = 30.0


@dataclass(eq=False)
class Slot:
    """The place of a worker, with the number of early exits in a row.

    Attributes:
        role: the listener that the worker serves.
        place: its number among the workers of that listener.
        table: the descriptor of the table of connections that these share.
    """

    role: Role
    place: int
    table: int
    worker: Worker | None = None
    deaths: int = 0
    start_at: float = 0.0

    def find_problems(self) -> tuple[str, ...]:
        """Return why its worker does not serve; no reasons if it does."""
        worker = self.worker
        if worker is None or not worker.reported_at:
            return ("a worker is not running yet",)
        if not worker.latest.accepts:
            return ("a worker is ending",)
        if worker.is_silent(time.monotonic()):
            return ("a worker does not answer",)
        return worker.latest.failed

    def serves(self) -> bool:
        """Return whether its worker reports that it can serve."""
        return not self.find_problems()


@dataclass(eq=False)
class Generation:
    """Settings with their sockets and the files of their TLS, by role, and workers."""

    settings: Settings
    listeners: Listeners
    tls: Mapping[Role, TlsFiles | None]
    slots: list[Slot] = field(default_factory=list)
    begun_at: float = 0.0

    def has_others_that_serve(self, slot: Slot) -> bool:
        """Return whether the worker of another slot serves the listener of ``slot``."""
        others = (each for each in self.slots if each is not slot and each.role == slot.role)
        return any(each.serves() for each in others)


def make_slots(settings: Settings) -> list[Slot]:
    """Return the places of the workers of every listener.

    Raises:
        OSError: a table that workers share cannot be made.
    """
    tables = [(*each, make_table(each[1].workers)) for each in settings.listeners().items()]
    return [Slot(role, n, table) for role, server, table in tables for n in range(server.workers)]


def pause_after(deaths: int) -> float:
    """Return the pause before a worker is replaced, in seconds.

    Args:
        deaths: the number of early exits in a row before this one.
    """
    # Limit the exponent: a large power of two has no float.
    return min(FIRST_PAUSE_SECONDS * 2.0 ** min(deaths, 1_000), LONGEST_PAUSE_SECONDS)
