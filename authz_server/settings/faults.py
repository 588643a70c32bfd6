"""Faults of what plugins name in their settings, which keep no server from its work."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_reported: ContextVar[Callable[[str], object] | None] = ContextVar("reported", default=None)


@contextmanager
def collecting_faults(collect: Callable[[str], object]) -> Iterator[None]:
    """Collect the faults that are reported by this thread.

    Args:
        collect: receives each fault as a sentence without its full stop.
    """
    token = _reported.set(collect)
    try:
        yield
    finally:
        _reported.reset(token)


def report_fault(fault: str) -> None:
    """Report a file or an address in a plugin's settings that cannot be used at present.

    While plugins start, the start continues: ``config check`` fails, and ``serve`` logs a warning.

    Args:
        fault: a sentence without its full stop; it begins with the key.

    Raises:
        ValueError: the fault, outside of the start of a plugin.
    """
    collect = _reported.get()
    if collect is None:
        raise ValueError(fault)
    collect(fault)
