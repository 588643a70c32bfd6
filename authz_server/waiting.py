"""Steps that wait: one code path for servers with and without an event loop.

A coroutine awaits a :class:`Step` for each call that waits: for the database, a remote signature,
a slow hash or a plugin. :func:`run` performs each step in place, for WSGI servers. The event loop
of ``serve`` performs it in a thread of its lane or on a connection of its own. A coroutine without
steps completes at its first ``send``.
"""

import threading
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Generator, Sequence
from contextlib import suppress
from contextvars import copy_context
from enum import Enum
from functools import partial
from queue import Empty, SimpleQueue
from time import perf_counter
from typing import Any, Generic, NamedTuple, TypeVar

from keys.forks import on_fork

#: How long a thread for bounded calls waits for the next one.
_IDLE_SECONDS = 30.0
T = TypeVar("T")
V = TypeVar("V")


class Lane(Enum):
    """The cause of a wait. Steps of different lanes use different threads."""

    DATABASE = "database"
    SIGNING = "signing"
    SECRETS = "secrets"
    PLUGINS = "plugins"
    OUTBOUND = "outbound"
    COUNTS = "counts"
    EVENTS = "events"
    SOURCES = "sources"
    CHECKS = "checks"


class Step(Generic[T]):
    """One call that waits.

    Args:
        lane: the cause of the wait.
        act: makes the call; runs at most once, on any thread.
    """

    __slots__ = ("act", "lane")

    def __init__(self, lane: Lane, act: Callable[[], T]) -> None:
        self.lane = lane
        self.act = act

    def __await__(self) -> Generator["Step[T]", Any, T]:
        """Pass this step to the driver of the coroutine; return the result that it sends back."""
        result: T = yield self
        return result


class Batch(ABC, Generic[V, T]):
    """A wait that serves many values for the price of one, such as a commit.

    Attributes:
        enough: an event loop lets a batch wait a moment for the next requests of those just
            answered, if they are no more than this; 0: it does not.
    """

    enough: int = 0

    @abstractmethod
    async def perform(self, values: Sequence[V]) -> Sequence[T]:
        """Return the result of each value, in order; an exception is that of every value."""


class BatchedStep(Step[T]):
    """A step that an event loop performs together with those that wait for the same batch.

    Args:
        batch: performs the steps.
        value: the value of this one.
    """

    __slots__ = ("batch", "value")

    def __init__(self, batch: Batch[V, T], value: V) -> None:
        super().__init__(Lane.DATABASE, partial(_perform_one, batch, value))
        self.batch = batch
        self.value = value


def _perform_one(batch: Batch[V, T], value: V) -> T:
    return run(batch.perform((value,)))[0]


def run(coroutine: Coroutine[Step[Any], Any, T]) -> T:
    """Run the coroutine to its end, performing each step on this thread.

    Raises:
        BaseException: raised by the coroutine.
    """
    try:
        step = coroutine.send(None)
        while True:
            try:
                value = step.act()
            except BaseException as error:  # noqa: BLE001 - the coroutine handles it
                step = coroutine.throw(error)
            else:
                step = coroutine.send(value)
    except StopIteration as end:
        result: T = end.value
        return result


class Wait(NamedTuple):
    """A wait of a request.

    Attributes:
        cause: the name of its lane, for example ``database`` or ``signing``.
        began_after: the time since the request began, in seconds.
        seconds: its duration.
    """

    cause: str
    began_after: float
    seconds: float


class TimedSteps(Awaitable[T]):
    """Awaits a coroutine, and notes how long each of its steps took.

    Args:
        coroutine: the coroutine.
        began: when the request began, by ``perf_counter``.
        waits: receives the waits.
    """

    def __init__(
        self, coroutine: Coroutine[Step[Any], Any, T], began: float, waits: list[Wait]
    ) -> None:
        self._coroutine = coroutine
        self._began = began
        self._waits = waits

    def __await__(self) -> Generator[Step[Any], Any, T]:
        """Pass each step to the driver; return the result of the coroutine."""
        resume: Callable[[], Step[Any]] = partial(self._coroutine.send, None)
        while True:
            try:
                step = resume()
            except StopIteration as end:
                result: T = end.value
                return result
            started = perf_counter()
            try:
                resume = partial(self._coroutine.send, (yield step))
            except Exception as error:  # noqa: BLE001 - the coroutine handles it
                resume = partial(self._coroutine.throw, error)
            wait = Wait(step.lane.value, started - self._began, perf_counter() - started)
            self._waits.append(wait)


class CallTimeoutError(Exception):
    """A bounded call did not return in time, or too many of its kind have not returned yet."""


class CallNotMadeError(CallTimeoutError):
    """A bounded call was not made, as too many of its kind have not returned yet."""


class BoundedCalls:
    """Waits for each call no longer than a limit; a call that hangs keeps only its own thread.

    Once several calls hang, further ones fail at once, until one of these returns.

    Args:
        maximum_stuck: how many calls may hang.
    """

    def __init__(self, maximum_stuck: int = 4) -> None:
        self._maximum_stuck = maximum_stuck
        self._renew()
        on_fork(self._renew)

    def run(self, act: Callable[[], T], seconds: float) -> T:
        """Return the result of ``act``, called in the context of the caller.

        Args:
            act: the call.
            seconds: the longest wait.

        Raises:
            CallTimeoutError: it did not return in time, or was not made because others hang.
            Exception: raised by ``act``.
        """
        return self.finish(self.begin(act), seconds)

    def begin(self, act: Callable[[], T]) -> "BoundedCall[T]":
        """Begin a call in the context of the caller; it ends with :meth:`finish`.

        Raises:
            CallNotMadeError: others hang.
        """
        if self._stuck >= self._maximum_stuck:
            raise CallNotMadeError("earlier calls have not returned yet")
        call = BoundedCall(partial(copy_context().run, act))
        try:
            inbox = self._idle.pop()
        except IndexError:
            inbox = SimpleQueue()
            work = partial(self._work, inbox, self._idle)
            threading.Thread(target=work, name="plugin-call", daemon=True).start()
        inbox.put(call)
        return call

    def finish(self, call: "BoundedCall[T]", seconds: float) -> T:
        """Return the result of a call.

        Args:
            call: the call, which :meth:`begin` has returned.
            seconds: the longest wait.

        Raises:
            CallTimeoutError: it did not return in time.
            Exception: raised by the call.
        """
        if not call.wait(seconds) and self._abandon(call):
            raise CallTimeoutError(f"it did not return within {seconds:g} s")
        return call.read_result()

    def _renew(self) -> None:
        # Threads do not survive a fork, nor do the locks that they hold.
        self._idle: deque[SimpleQueue[BoundedCall[Any]]] = deque()
        self._lock = threading.Lock()
        self._stuck = 0

    def _abandon(self, call: "BoundedCall[Any]") -> bool:
        with self._lock:
            if call.is_finished:
                return False
            call.is_abandoned = True
            self._stuck += 1
            return True

    def _work(
        self,
        inbox: "SimpleQueue[BoundedCall[Any]]",
        idle: "deque[SimpleQueue[BoundedCall[Any]]]",
    ) -> None:
        while True:
            try:
                call = inbox.get(timeout=_IDLE_SECONDS)
            except Empty:
                with suppress(ValueError, IndexError):
                    idle.remove(inbox)
                    return
                # A call was just given to this thread.
                call = inbox.get()
            call.perform()
            with self._lock:
                call.is_finished = True
                if call.is_abandoned:
                    self._stuck -= 1
            idle.append(inbox)
            call.done.release()


class BoundedCall(Generic[T]):
    """A call on a thread of its own, and what it gave."""

    __slots__ = ("act", "done", "error", "is_abandoned", "is_finished", "result")

    def __init__(self, act: Callable[[], T]) -> None:
        self.act = act
        self.done = threading.Lock()
        self.done.acquire()
        self.result: Any = None
        self.error: BaseException | None = None
        self.is_finished = self.is_abandoned = False

    def perform(self) -> None:
        """Make the call, and keep its result or its exception."""
        try:
            self.result = self.act()
        except BaseException as error:  # noqa: BLE001 - the caller raises it
            self.error = error

    def wait(self, seconds: float) -> bool:
        """Wait until it has returned; return False if it has not in this time."""
        return self.is_finished or self.done.acquire(timeout=seconds)

    def read_result(self) -> T:
        """Return the result of a call that has returned, or raise its exception."""
        if isinstance(self.error, Exception):
            raise self.error
        if self.error is not None:
            # Such as SystemExit, which would end this thread's own work.
            raise RuntimeError(f"it raised {type(self.error).__name__}") from self.error
        result: T = self.result
        return result


def run_apart(act: Callable[[], T], seconds: float) -> T:
    """Return the result of ``act``, called in a thread that has ended when this returns.

    Args:
        act: the call.
        seconds: the longest wait.

    Raises:
        CallTimeoutError: it did not return in time; its thread is left.
        Exception: raised by ``act``.
    """
    call = BoundedCall(partial(copy_context().run, act))
    thread = threading.Thread(target=call.perform, name="plugin-start", daemon=True)
    thread.start()
    thread.join(seconds)
    if thread.is_alive():
        raise CallTimeoutError(f"it did not return within {seconds:g} s")
    return call.read_result()
