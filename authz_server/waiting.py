"""Steps that wait: one code path for servers with and without an event loop.

A coroutine awaits a :class:`Step` where it would have to wait: for the database, a remote
signature, a slow hash or a plugin. :func:`run` performs each step in place, as a WSGI server wants
it; the event loop of ``serve`` performs it on a thread of its lane, or by a connection of its own.
A coroutine that meets no step runs to its end at its first ``send``.
"""

from collections.abc import Callable, Coroutine, Generator
from enum import Enum
from typing import Any, Generic, TypeVar

T = TypeVar("T")


class Lane(Enum):
    """The cause of a wait. Steps of different lanes never wait for each other's threads."""

    DATABASE = "database"
    SIGNING = "signing"
    SECRETS = "secrets"
    PLUGINS = "plugins"


class Step(Generic[T]):
    """One call that waits.

    Args:
        lane: what it waits for.
        act: makes the call; runs at most once, on any thread.
    """

    __slots__ = ("act", "lane")

    def __init__(self, lane: Lane, act: Callable[[], T]) -> None:
        self.lane = lane
        self.act = act

    def __await__(self) -> Generator["Step[T]", Any, T]:
        """Hand this step to the driver of the coroutine; return what the driver sends back."""
        result: T = yield self
        return result


def run(coroutine: Coroutine[Step[Any], Any, T]) -> T:
    """Drive the coroutine to its end, performing each step on this thread.

    Raises:
        BaseException: what the coroutine raises.
    """
    try:
        step = coroutine.send(None)
        while True:
            try:
                value = step.act()
            except BaseException as error:  # noqa: BLE001 - the coroutine decides what it means
                step = coroutine.throw(error)
            else:
                step = coroutine.send(value)
    except StopIteration as end:
        result: T = end.value
        return result
