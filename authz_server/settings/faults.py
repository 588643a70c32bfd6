"""Faults of what plugins name in their settings, which keep no server from its work."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Literal, NamedTuple

#: The kinds of things that settings refer to by name.
Kind = Literal["client", "resource server", "ring", "scope"]


class Reference(NamedTuple):
    """A setting that refers to another thing by name.

    Attributes:
        kind: the kind of the thing.
        key: the setting.
        name: the name; that of a client or scope may be a pattern with ``*``.
    """

    kind: Kind
    key: str
    name: str


_reported: ContextVar[Callable[[str], object] | None] = ContextVar("reported", default=None)
_referred: ContextVar[Callable[[Reference], object] | None] = ContextVar("referred", default=None)


@contextmanager
def collecting_faults(
    plugin: str, faults: list[str], references: list[Reference]
) -> Iterator[None]:
    """Collect the faults and references that a plugin reports on this thread.

    Args:
        plugin: the name of the plugin.
        faults: receives each fault as a sentence without its full stop.
        references: receives each reference, with the path of its key.
    """

    def refer(found: Reference) -> None:
        references.append(found._replace(key=f"plugins.settings.{plugin}.{found.key}"))

    fault_token = _reported.set(lambda text: faults.append(f"plugin {plugin}: {text}"))
    reference_token = _referred.set(refer)
    try:
        yield
    finally:
        _referred.reset(reference_token)
        _reported.reset(fault_token)


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


def refer_to(kind: Kind, key: str, name: str) -> None:
    """Report that a plugin's setting refers to another thing by name, while the plugin starts.

    ``config check`` refuses a key ring that the settings lack, and ``serve`` logs a warning. Of the
    others, which are registered while the server runs, ``config check`` warns.

    Args:
        kind: the kind of the thing.
        key: the key in the plugin's settings.
        name: the name; that of a client or scope may be a pattern with ``*``.
    """
    refer = _referred.get()
    if refer is not None:
        refer(Reference(kind, key, name))
