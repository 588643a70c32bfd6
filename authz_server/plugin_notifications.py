"""Notifications of one plugin: in order, and a slow one holds up no request."""

import logging
import threading
from collections import Counter, deque
from collections.abc import Callable
from contextvars import copy_context
from functools import partial
from time import monotonic
from typing import Any, NamedTuple

from authz_server.audit.notifier import Notify
from authz_server.metrics.events import PluginFailed
from authz_server.waiting import BoundedCalls, CallNotMadeError, CallTimeoutError
from keys.forks import on_fork

#: How long a request waits for a notification. All requests of a worker wait: it has one thread.
PATIENCE_SECONDS = 0.25
#: How long no call may be slow before requests wait again: one wait in this time at most.
QUIET_SECONDS = 10.0
#: How many notifications of one kind may wait for a slow plugin.
MAXIMUM_WAITING = 5_000
#: How long the end of the server waits for them; less than ``serve`` leaves to a worker that ends.
END_SECONDS = 2.0

_logger = logging.getLogger(__name__)


class Notification(NamedTuple):
    """One call of a hook that is notified.

    Attributes:
        hook: the name of the hook.
        subject: what it is about, for example the name of the event; one of a fixed set.
        act: makes the call.
    """

    hook: str
    subject: str
    act: Callable[[], Any]

    @property
    def kind(self) -> tuple[str, str]:
        """The notifications with which this one shares the limit."""
        return self.hook, self.subject


class Notifications:
    """Calls the hooks of a plugin that are notified. Safe for threads.

    The sender makes each call and waits for it. Once one was slow, a thread makes them, until none
    waits and none has been slow for some time.

    Args:
        plugin: the name of the plugin.
        seconds: how long a call may take.
        patience_seconds: how long the sender waits for it; None: as long as it may take.
        report: receives each failure and each loss.
    """

    def __init__(
        self, plugin: str, seconds: float, patience_seconds: float | None, report: Notify
    ) -> None:
        self._plugin = plugin
        self._seconds = seconds
        patience = seconds if patience_seconds is None else patience_seconds
        self._patience_seconds = min(patience, seconds)
        self._report = report
        self._calls = BoundedCalls()
        self._renew()
        on_fork(self._renew)

    def _renew(self) -> None:
        # Threads do not survive a fork, nor do the locks that they hold.
        self._changed = threading.Condition()
        self._waiting: deque[tuple[Notification, Callable[[], Any]]] = deque()
        self._counts: Counter[tuple[str, str]] = Counter()
        self._lost = 0
        #: Whether there is the thread, whether it makes a call, and whether the server ends.
        self._is_slow = self._is_calling = self._is_ending = False

    def send(self, notification: Notification, *, awaited: bool = False) -> None:
        """Notify the plugin; never raises.

        Args:
            notification: the notification.
            awaited: whether to wait for it, and for those that wait, as long as a call may take.
        """
        if awaited:
            self._wait(self._seconds)
        elif self._is_slow:
            act = partial(self._calls.run, notification.act, self._seconds)
            if self._defer(notification, act):
                return
        limit = self._seconds if awaited else self._patience_seconds
        try:
            call = self._calls.begin(notification.act)
            if limit == self._seconds or self._is_ending or call.wait(limit):
                self._calls.finish(call, limit)
            else:
                act = partial(self._calls.finish, call, self._seconds)
                self._defer(notification, act, is_under_way=True)
        except Exception as error:  # noqa: BLE001 - the plugin's, which reaches no sender
            self._fail(notification, error)

    def end(self) -> None:
        """Wait for what waits and give up the rest; the thread gets no later notifications."""
        self._is_ending = True
        self._wait(END_SECONDS)
        with self._changed:
            left = [notification for notification, _ in self._waiting]
            lost = self._lost + len(left)
            self._lost = 0
            self._waiting.clear()
            self._counts.clear()
        for notification in left:
            self._report(PluginFailed(self._plugin, notification.hook, "lost"))
        self._log_lost(lost)

    def _wait(self, seconds: float) -> None:
        with self._changed:
            self._changed.wait_for(lambda: not self._waiting and not self._is_calling, seconds)

    def _defer(
        self, notification: Notification, act: Callable[[], Any], *, is_under_way: bool = False
    ) -> bool:
        """Leave a call to the thread; return False if there is none, and the call is not made."""
        kept = notification, partial(copy_context().run, act)
        with self._changed:
            if not is_under_way and (not self._is_slow or self._is_ending):
                return False
            if is_under_way or self._counts[notification.kind] < MAXIMUM_WAITING:
                self._begin_thread()
                self._counts[notification.kind] += 1
                self._waiting.append(kept)
                self._changed.notify_all()
                return True
        self._lose(notification)
        return True

    def _lose(self, notification: Notification) -> None:
        """Count a notification that is not made; log the first, and their number at the end."""
        with self._changed:
            if self._patience_seconds < self._seconds:
                self._begin_thread()
            self._lost += 1
            is_first = self._lost == 1
        self._report(PluginFailed(self._plugin, notification.hook, "lost"))
        if is_first:
            self._log_lost(1)

    def _begin_thread(self) -> None:
        if not self._is_slow:
            name = "plugin-notifications"
            threading.Thread(target=self._work_off, name=name, daemon=True).start()
            self._is_slow = True

    def _work_off(self) -> None:
        quiet_at = monotonic() + QUIET_SECONDS
        while waiting := self._take(quiet_at):
            notification, act = waiting
            began, timed_out = monotonic(), False
            try:
                act()
            except Exception as error:  # noqa: BLE001 - the plugin's
                timed_out = isinstance(error, CallTimeoutError)
                self._fail(notification, error)
            if timed_out or monotonic() - began >= self._patience_seconds:
                quiet_at = monotonic() + QUIET_SECONDS

    def _take(self, quiet_at: float) -> tuple[Notification, Callable[[], Any]] | None:
        """Return what waits longest; None: the thread ends, as nothing waits at this time."""
        with self._changed:
            self._is_calling = False
            self._changed.notify_all()
            if self._changed.wait_for(lambda: self._waiting, quiet_at - monotonic()):
                self._is_calling = True
                taken = self._waiting.popleft()
                self._counts[taken[0].kind] -= 1
                return taken
            self._is_slow = False
            lost, self._lost = self._lost, 0
        self._log_lost(lost)
        return None

    def _log_lost(self, number: int) -> None:
        if number:
            _logger.error("plugin %s is too slow: notifications lost: %d", self._plugin, number)

    def _fail(self, notification: Notification, error: Exception) -> None:
        if isinstance(error, CallNotMadeError):
            self._lose(notification)
            return
        hook, subject, _ = notification
        failure = "timed_out" if isinstance(error, CallTimeoutError) else "raised"
        self._report(PluginFailed(self._plugin, hook, failure))
        extra = {"plugin": self._plugin, "hook": hook, "event": subject}
        _logger.error("a plugin failed", exc_info=error, extra=extra)
