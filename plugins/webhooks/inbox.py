"""Stores events for the senders, without a long wait of the event loop."""

import logging
import sqlite3
import threading
from collections import deque
from pathlib import Path

from plugins.webhooks.queue import DeliveryQueue, QueueFullError

logger = logging.getLogger("authz_server.plugins.webhooks")

#: How long an event waits for a file that another process holds.
WAIT_SECONDS = 0.2
#: How many events are held in memory while the file cannot be written.
MAXIMUM_HELD = 10_000


class Inbox:
    """Stores events in a queue, and holds them in memory while its file cannot be written.

    Args:
        path: the file of the queue.
        maximum: how many events of a receiver may wait.
    """

    def __init__(self, path: Path, maximum: int) -> None:
        # A connection of its own: those of the senders may wait longer.
        self._queue = DeliveryQueue(path, maximum, wait_seconds=WAIT_SECONDS)
        self._held: deque[tuple[list[str], str, str, bytes]] = deque()
        self._lock = threading.Lock()

    def add(self, receivers: list[str], message_id: str, event: str, body: bytes) -> None:
        """Store an event for receivers, or hold it until :meth:`flush`.

        Raises:
            QueueFullError: it is lost for some receivers: too many events wait.
        """
        # While events are held, no further one waits for the file.
        if not self._held:
            try:
                self._queue.add(receivers, message_id, event, body)
            except (sqlite3.Error, OSError) as error:
                logger.warning("the queue of webhooks cannot be used: events wait: %s", error)
            else:
                return
        if len(self._held) >= MAXIMUM_HELD:
            raise QueueFullError(f"{MAXIMUM_HELD} events wait in memory")
        self._held.append((receivers, message_id, event, body))

    def flush(self, queue: DeliveryQueue) -> None:
        """Store the held events in a queue, in their order.

        Raises:
            sqlite3.Error: the file cannot be written yet; the events stay held.
            OSError: as above.
        """
        if not self._held:
            return
        with self._lock:
            while self._held:
                try:
                    queue.add(*self._held[0])
                except QueueFullError as error:
                    logger.error("an event is lost: %s", error)  # noqa: TRY400 - not a fault
                self._held.popleft()
