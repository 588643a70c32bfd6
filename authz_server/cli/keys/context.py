"""The context of a command on keys."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

from authz_server.cli.invocation import Invocation
from authz_server.cli.output import echo_status
from authz_server.key_rings.backends import Role
from authz_server.operations.key_names import ChooseKey, find_kid
from authz_server.operations.keys.context import KeyContext, find_logins, open_context

_ID_CHARACTERS = 43
#: They report what a command reports as its own error or finding, and the audit record has.
_LOGGERS = ("keys.backends", "authz_server.key_rings.alarms")


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
        echo_status(f"{logins.problem} The Vault is asked as the server.")
    with (
        nullcontext() if invocation.debug else _without_warnings(),
        open_context(settings, logins, role, actor=invocation.actor, looking=looking) as context,
    ):
        yield context
        for remark in context.notices.remarks:
            echo_status(remark)


def resolve_kid(invocation: Invocation, named: str, choose: ChooseKey) -> str:
    """Return the id of the key that an argument identifies; see :func:`find_kid`."""
    if len(named) == _ID_CHARACTERS:
        return named
    with invocation.services() as services:
        rings = services.key_store.load_rings(services.clock())
    return find_kid(rings, named, choose)


@contextmanager
def _without_warnings() -> Iterator[None]:
    loggers = [logging.getLogger(name) for name in _LOGGERS]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
