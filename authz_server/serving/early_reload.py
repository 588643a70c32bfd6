"""SIGHUP while a server starts, before its main process handles signals.

The imports take a second, and the default action would end the process.
"""

import signal
from collections.abc import Iterable
from types import FrameType

#: The options before the name of the command that have no value.
FLAGS = frozenset({"--debug", "--help", "--version", "--"})


class EarlyReload:
    """Keeps a SIGHUP until the main process handles it.

    By a handler: a program that is started meanwhile would inherit that a signal is ignored.

    Attributes:
        is_due: whether SIGHUP has come.
    """

    def __init__(self) -> None:
        self.is_due = False

    def watch(self) -> None:
        """Begin to keep SIGHUP."""
        signal.signal(signal.SIGHUP, self._keep)

    def _keep(self, _signal: int, _frame: FrameType | None) -> None:
        self.is_due = True


early_reload = EarlyReload()


def is_serve(arguments: Iterable[str]) -> bool:
    """Return whether the command line runs a server; before the library that parses it."""
    words = iter(arguments)
    for word in words:
        if not word.startswith("-"):
            return word == "serve"
        if word not in FLAGS and "=" not in word:
            next(words, None)
    return False
