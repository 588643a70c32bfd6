"""Resets for forked processes, which must not share locks, connections and threads.

A lock that another thread held at the fork stays locked in the child for ever, and two processes on
one connection get each other's responses. Python runs the resets after :func:`os.fork`. A server
that forks in C, such as uWSGI, runs no Python hooks and must call :func:`run_resets`.
"""

import atexit
import os
from collections.abc import Callable
from dataclasses import dataclass
from inspect import ismethod
from typing import Any
from weakref import WeakKeyDictionary

_functions: list[Callable[[], None]] = []
_methods: WeakKeyDictionary[object, Callable[[Any], None]] = WeakKeyDictionary()
_process_id = os.getpid()


def on_fork(reset: Callable[[], None]) -> None:
    """Call ``reset`` in every process that is forked from this one.

    Functions run first, then methods, each in the order of registration. They must not raise.

    Args:
        reset: a function, or one method of an object, which is referenced weakly.
    """
    if ismethod(reset):
        _methods[reset.__self__] = reset.__func__
    else:
        _functions.append(reset)


def run_resets() -> None:
    """Run the resets in a forked process that has not run them; else do nothing."""
    global _process_id  # noqa: PLW0603 - one value for the process
    if _process_id == os.getpid():
        return
    _process_id = os.getpid()
    for function in _functions.copy():
        function()
    for owner, method in list(_methods.items()):
        method(owner)


def at_exit(act: Callable[[], object]) -> None:
    """Call ``act`` when this process exits, but not when a forked process exits."""
    atexit.register(_ExitAct(os.getpid(), act))


def forget_at_exit(act: Callable[[], object]) -> None:
    """Take back :func:`at_exit`, which keeps the owner of ``act`` in memory."""
    atexit.unregister(_ExitAct(os.getpid(), act))


@dataclass(frozen=True, slots=True)
class _ExitAct:
    process_id: int
    act: Callable[[], object]

    def __call__(self) -> None:
        if self.process_id == os.getpid():
            self.act()


os.register_at_fork(after_in_child=run_resets)
