"""The context of a command on keys."""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any, Concatenate, ParamSpec, TypeVar

import click

from authz_server.cli.invocation import Invocation, Operations
from authz_server.cli.output import echo_status
from authz_server.key_rings.backends import Role
from authz_server.operations.keys.context import KeyContext, find_logins, open_context
from authz_server.operations.keys.list import find_key, list_keys

P = ParamSpec("P")
T = TypeVar("T")

_ID_CHARACTERS = 43
#: They report what a command reports as its own error or finding, and the audit record has.
_LEVELS = {
    "keys.backends": logging.ERROR,
    "keys.backends.vault.tokens": logging.CRITICAL,
    "keys.lifecycle.state": logging.CRITICAL,
    "authz_server.key_rings.alarms": logging.ERROR,
}


@contextmanager
def key_context(
    invocation: Invocation, role: Role, *, looking: bool = False
) -> Iterator[KeyContext]:
    """Yield the context of a command; print its remarks on the error stream.

    Args:
        invocation: the run of the command line.
        role: decides which steps at the backends are permitted.
        looking: True if nothing is changed or recorded.
    """
    settings = invocation.settings()
    logins = find_logins(settings, role, looking=looking)
    if logins.problem:
        echo_status(f"{logins.problem.rstrip('.')}. The Vault is asked as the server.")
    with (
        nullcontext() if invocation.debug else _without_warnings(),
        open_context(
            settings, logins, role, actor=invocation.actor, looking=looking, warn=invocation.warn
        ) as context,
    ):
        yield context
        for remark in context.notices.remarks:
            echo_status(remark)


@contextmanager
def key_operations(
    invocation: Invocation, role: Role, *, looking: bool = False
) -> Iterator[Operations]:
    """Yield what carries out operations on rings: here, or at the server that an option names.

    Args:
        invocation: the run of the command line.
        role: decides which steps at the backends are permitted.
        looking: True if nothing is changed or recorded.
    """
    if invocation.server:
        with invocation.operations() as carry_out:
            yield carry_out
        return
    with key_context(invocation, role, looking=looking) as context:

        def carry_out_here(
            operation: Callable[Concatenate[Any, P], T], /, *args: P.args, **kwargs: P.kwargs
        ) -> T:
            return operation(context, *args, **kwargs)

        yield carry_out_here


def resolve_kid(invocation: Invocation, named: str, *, standby: bool = False) -> str:
    """Return the id of the key that an argument identifies; see :func:`find_key`."""
    if len(named) == _ID_CHARACTERS:
        return named
    with invocation.operations() as carry_out:
        return carry_out(find_key, named, standby=standby)


def find_default_ring(invocation: Invocation) -> str:
    """Return the name of the default ring; at a server, of its only ring.

    Raises:
        click.UsageError: the server has several.
    """
    if not invocation.server:
        return invocation.settings().keys.default_ring
    with invocation.operations() as carry_out:
        names = sorted({key.ring for key in carry_out(list_keys)})
    if len(names) != 1:
        raise click.UsageError(f"Name the RING: {', '.join(names) or 'there is none'}.")
    return names[0]


@contextmanager
def _without_warnings() -> Iterator[None]:
    loggers = [logging.getLogger(name) for name in _LEVELS]
    levels = [logger.level for logger in loggers]
    for logger, level in zip(loggers, _LEVELS.values(), strict=True):
        logger.setLevel(level)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
