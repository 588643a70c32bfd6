"""Notifications of one plugin: in order, and a slow one holds up no request."""

import threading
from collections.abc import Callable
from contextvars import copy_context
from functools import partial
from queue import Empty, SimpleQueue
from typing import Any, NamedTuple

from authz_server.waiting import BoundedCall, BoundedCalls, CallTimeoutError
from keys.forks import on_fork

#: How long a request waits for a notification. All requests of a worker wait: it has one thread.
PATIENCE_SECONDS = 0.25
#: How long a plugin that was slow is notified in the background alone.
QUIET_SECONDS = 10.0
#: How many notifications may wait for a slow plugin.
MAXIMUM_WAITING = 10_000


class Notification(NamedTuple):
    """One call of a hook that is notified.

    Attributes:
        hook: the name of the hook.
        subject: what it is about, for the log.
        act: makes the call.
    """

    hook: str
    subject: str
    act: Callable[[], Any]


Fail = Callable[[Notification, Exception], None]
_Waiting = tuple[Notification, BoundedCall[Any] | None, threading.Event]


class Notifications:
    """Calls the hooks of a plugin that are notified. Safe for threads.

    Args:
        seconds: how long a call may take.
        patience_seconds: how long the sender waits for it. The plugin is then notified by a thread
            of its own, until nothing happened for some time. None: as long as it may take.
        fail: receives each notification that failed.
    """

    def __init__(self, seconds: float, patience_seconds: float | None, fail: Fail) -> None:
        self._seconds = seconds
        patience = seconds if patience_seconds is None else patience_seconds
        self._patience_seconds = min(patience, seconds)
        self._fail = fail
        self._calls = BoundedCalls()
        self._renew()
        on_fork(self._renew)

    def send(self, notification: Notification, *, awaited: bool = False) -> None:
        """Notify the plugin; never raises.

        Args:
            notification: the notification.
            awaited: whether to wait as long as the call may take.
        """
        patience = self._seconds if awaited else self._patience_seconds
        done = threading.Event()
        if self._queue is not None and self._put(notification, None, done):
            if awaited:
                done.wait(patience)
            return
        try:
            call = self._calls.begin(notification.act)
            if patience < self._seconds and not call.wait(patience):
                self._put(notification, call, done, begins=True)
                return
            self._calls.finish(call, patience)
        except Exception as error:  # noqa: BLE001 - the plugin's, which reaches no sender
            self._fail(notification, error)

    def _renew(self) -> None:
        # Threads do not survive a fork, nor do the locks that they hold.
        self._lock = threading.Lock()
        self._queue: SimpleQueue[_Waiting] | None = None

    def _put(
        self,
        notification: Notification,
        call: BoundedCall[Any] | None,
        done: threading.Event,
        *,
        begins: bool = False,
    ) -> bool:
        """Let the thread make or finish a call; return False if there is no thread any more."""
        with self._lock:
            queue = self._queue
            if queue is None:
                if not begins:
                    return False
                queue = self._queue = SimpleQueue()
                threading.Thread(
                    target=self._work_off, args=(queue,), name="plugin-notifications", daemon=True
                ).start()
            is_full = queue.qsize() >= MAXIMUM_WAITING
            if not is_full:
                kept = notification._replace(act=partial(copy_context().run, notification.act))
                queue.put((kept, call, done))
        if is_full:
            done.set()
            self._fail(notification, CallTimeoutError(f"{MAXIMUM_WAITING} notifications wait"))
        return True

    def _work_off(self, queue: SimpleQueue[_Waiting]) -> None:
        while True:
            try:
                notification, call, done = queue.get(timeout=QUIET_SECONDS)
            except Empty:
                with self._lock:
                    if queue.empty():
                        self._queue = None
                        return
                continue
            try:
                begun = call or self._calls.begin(notification.act)
                self._calls.finish(begun, self._seconds)
            except Exception as error:  # noqa: BLE001 - the plugin's
                self._fail(notification, error)
            done.set()
