"""Steps that wait: one code path for servers with and without an event loop.

A coroutine awaits a :class:`Step` for each call that waits: for the database, a remote signature,
a slow hash or a plugin. :func:`run` performs each step in place, for WSGI servers. The event loop
of ``serve`` performs it in a thread of its lane or on a connection of its own. A coroutine without
steps completes at its first ``send``.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Coroutine, Generator, Sequence
from enum import Enum
from functools import partial
from typing import Any, Generic, TypeVar

T = TypeVar("T")
V = TypeVar("V")


class Lane(Enum):
    """The cause of a wait. Steps of different lanes use different threads."""

    DATABASE = "database"
    SIGNING = "signing"
    SECRETS = "secrets"
    PLUGINS = "plugins"
    OUTBOUND = "outbound"


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
    """A wait that serves many values for the price of one, such as a commit."""

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
