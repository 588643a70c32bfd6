"""The plugin: queues events, and delivers them from each process that serves."""

import json
import logging
import os
import random
import sqlite3
import threading
import time
import uuid
from collections.abc import Collection, Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import click

from authz_server.plugin_api import (
    Event,
    FetchError,
    PluginServices,
    ServerStarted,
    ServerStopped,
    encode_event,
    hookimpl,
    report_fault,
)
from plugins.webhooks.command import make_command
from plugins.webhooks.inbox import Inbox
from plugins.webhooks.queue import LONGEST_PAUSE_SECONDS, Delivery, DeliveryQueue, Message
from plugins.webhooks.receivers import (
    RETRIED,
    EventRefusedError,
    GoneError,
    Receiver,
    read_receivers,
)

logger = logging.getLogger("authz_server.plugins.webhooks")

#: The name of this plugin in metrics.
NAME = "webhooks"
#: How long a thread waits for the next event; those of other processes are found so.
POLL_SECONDS = 1.0
FIRST_RETRY_SECONDS, LONGEST_RETRY_SECONDS = 2.0, LONGEST_PAUSE_SECONDS
#: How long a receiver that fails is left alone, whatever waits for it, unless it asks for longer.
LONGEST_SILENCE_SECONDS = 30.0
#: A receiver that failed so often in a row was away: what waits is due when it answers again.
FAILURES_OF_ABSENCE = 3
#: A receiver that refused so many events in a row, as with a wrong secret, fails.
REFUSALS_OF_FAILURE = 10
#: How often a process looks for events that are tried no longer.
EXPIRY_SECONDS = 60.0
_LONGEST_EXPONENT = 12
_LIMITS = {"maximum_queued": (10, 10_000_000), "retry_hours": (1, 720)}


class Webhooks:
    """The plugin: ``receivers`` of its settings has a table for each receiver."""

    @hookimpl
    def start(self, settings: Mapping[str, Any], services: PluginServices) -> None:
        """Read the settings; the queue is opened by the first event.

        Raises:
            ValueError: a value cannot be used.
        """
        for key in settings:
            if key not in {"queue", "receivers", *_LIMITS}:
                raise ValueError(f"there is no key {key!r}")
        path = settings.get("queue", "")
        if not isinstance(path, str) or not Path(path).is_absolute():
            raise ValueError("queue: write the absolute path of the file for waiting events")
        if not Path(path).parent.is_dir():
            raise ValueError(f"queue: there is no folder {Path(path).parent}")
        if Path(path).is_dir() or not os.access(Path(path).parent, os.W_OK):
            report_fault(f"queue: {path} cannot be written")
        values: dict[str, Any] = {"maximum_queued": 100_000, "retry_hours": 72, **settings}
        for key, (lowest, highest) in _LIMITS.items():
            if type(values[key]) is not int or not lowest <= values[key] <= highest:
                raise ValueError(f"{key}: use {lowest} to {highest}")
        self._services = services
        self._receivers = read_receivers(settings.get("receivers"))
        self._queue = DeliveryQueue(Path(path), values["maximum_queued"])
        self._path = Path(path)
        self._inbox: Inbox | None = None
        self._retry_seconds = values["retry_hours"] * 3_600
        self._senders: list[Sender] = []

    @hookimpl
    def event_happened(self, event: Event) -> None:
        """Take an event for its receivers; start with the server and stop with it."""
        if isinstance(event, ServerStarted):
            self._start()
        wanting = [each.name for each in self._receivers.values() if each.wants(event.name)]
        try:
            if wanting:
                message_id = f"msg_{uuid.uuid4().hex}"
                # A command has no thread that stores the event later, and no event loop.
                store = self._queue if self._inbox is None else self._inbox
                store.add(Message(wanting, message_id, event.name, make_body(event)))
        finally:
            if isinstance(event, ServerStopped):
                self._stop()

    def _start(self) -> None:
        self._senders = [
            Sender(each, self._queue, self._services, self._retry_seconds)
            for each in self._receivers.values()
        ]
        self._inbox = Inbox(self._path, self._queue, stored=self._wake, lost=self._report_lost)
        self._inbox.open()

    def _wake(self, receivers: Collection[str]) -> None:
        for sender in self._senders:
            sender.wake(receivers)

    def _report_lost(self, receiver: str, number: int) -> None:
        logger.error("%d events are lost for %s: its queue is full", number, receiver)
        self._services.report_failure(NAME, "event_happened", "lost")

    def _stop(self) -> None:
        for sender in self._senders:
            sender.stop()
        if self._inbox is not None:
            self._inbox.close()
            self._inbox = None
        # A sender that is under way opens the file again, and closes it at its end.
        with suppress(sqlite3.Error):
            self._queue.close()

    @hookimpl
    def register_commands(self) -> list[click.Command]:
        """Return the command ``webhooks``."""
        return [make_command(self._queue, self._receivers)]


def make_body(event: Event) -> bytes:
    """Return the body of a message, in the form of Standard Webhooks."""
    moment = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    head = json.dumps({"type": event.name, "timestamp": moment}).encode()
    return b'%b, "data": %b}' % (head[:-1], encode_event(event))


class Sender:
    """Delivers the events of one receiver, on a thread of its own; a slow one delays no other.

    Args:
        receiver: the receiver.
        queue: the events.
        services: the services of the server.
        retry_seconds: how long an event is tried.
    """

    def __init__(
        self,
        receiver: Receiver,
        queue: DeliveryQueue,
        services: PluginServices,
        retry_seconds: float,
    ) -> None:
        self._receiver = receiver
        self._queue = queue
        self._services = services
        self._retry_seconds = retry_seconds
        self._awake = threading.Event()
        self._is_stopped = False
        self._refusals = 0
        self._expire_at = 0.0
        name = f"webhook-{receiver.name}"
        threading.Thread(target=self._run, name=name, daemon=True).start()

    def wake(self, receivers: Collection[str]) -> None:
        """Look for events now, if this receiver is among those that have one."""
        if self._receiver.name in receivers:
            self._awake.set()

    def stop(self) -> None:
        """End the thread; what is left stays in the queue."""
        self._is_stopped = True
        self._awake.set()

    def _run(self) -> None:
        while not self._is_stopped:
            try:
                self._deliver_due()
                self._expire()
            except sqlite3.Error as error:
                logger.warning("the queue of webhooks cannot be used: %s", error)
            except Exception:
                # Without its thread the receiver has no events until the next start.
                logger.exception("webhooks are not sent to %s at present", self._receiver.name)
            self._awake.wait(POLL_SECONDS)
            self._awake.clear()
        with suppress(sqlite3.Error):
            self._queue.close()

    def _deliver_due(self) -> None:
        while not self._is_stopped:
            delivery = self._queue.claim(self._receiver.name)
            if delivery is None:
                return
            self.deliver(delivery)

    def _expire(self) -> None:
        """Give up what is too old. Each event was tried, unless the receiver is left alone."""
        if self._is_stopped or time.monotonic() < self._expire_at:
            return
        self._expire_at = time.monotonic() + EXPIRY_SECONDS
        if number := self._queue.expire(self._receiver.name, self._retry_seconds):
            hours = self._retry_seconds // 3_600
            self._report_undelivered(
                f"{number} events are not delivered to {self._receiver.name} within {hours} hours"
            )

    def deliver(self, delivery: Delivery) -> None:
        """Send one event, and note the outcome.

        Raises:
            sqlite3.Error: the outcome cannot be noted; the event is sent again.
        """
        try:
            self._receiver.send(delivery, self._services)
        except GoneError as error:
            self._queue.postpone(delivery, str(error), seconds=0.0, is_dead=True)
            self._note_failure(delivery, error)
            self._report_undelivered(
                f"the event {delivery.event} is not delivered to {self._receiver.name}: {error}"
            )
        except RETRIED as error:
            self._note_failure(delivery, error)
            pause = _pause(delivery.attempts, error)
            self._queue.postpone(delivery, str(error), seconds=pause, is_dead=False)
        else:
            self._refusals = 0
            if failures := self._queue.remove(delivery):
                logger.info("%s accepts webhooks again", self._receiver.name)
            if failures >= FAILURES_OF_ABSENCE:
                self._queue.hasten(self._receiver.name)

    def _note_failure(self, delivery: Delivery, error: Exception) -> None:
        name = self._receiver.name
        if isinstance(error, EventRefusedError):
            self._refusals += 1
            if self._refusals < REFUSALS_OF_FAILURE:
                if not delivery.attempts:
                    logger.warning(
                        "%s does not accept the event %s: %s; it is sent again",
                        name,
                        delivery.event,
                        error,
                    )
                return
        if self._queue.leave_alone(name, partial(_silence, error=error)):
            logger.warning("%s accepts no webhooks: %s", name, error)

    def _report_undelivered(self, text: str) -> None:
        logger.error("%s; see `authz-server webhooks list`", text)
        self._services.report_failure(NAME, "event_happened", "undelivered")


def _pause(attempts: int, error: Exception) -> float:
    """Return the delay of the next attempt in seconds, by the number of earlier ones."""
    longest: float = FIRST_RETRY_SECONDS * 2 ** min(attempts, _LONGEST_EXPONENT)
    pause = min(longest, LONGEST_RETRY_SECONDS) * random.uniform(0.5, 1.0)  # noqa: S311 - spreads attempts
    return max(pause, min(_asked(error), LONGEST_RETRY_SECONDS))


def _silence(failures: int, error: Exception) -> float:
    """Return for how long a receiver is left alone after so many earlier failures."""
    longest = max(LONGEST_SILENCE_SECONDS, min(_asked(error), LONGEST_RETRY_SECONDS))
    return min(_pause(failures, error), longest)


def _asked(error: Exception) -> float:
    """Return for how long a receiver asks to be left alone."""
    seconds: float = error.retry_after_seconds if isinstance(error, FetchError) else 0.0
    return seconds
