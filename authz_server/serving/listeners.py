"""The listening sockets of a server, by the role of their workers."""

import socket
from collections.abc import Mapping

from authz_server.settings import Role, ServerSettings, Settings

Listeners = Mapping[Role, tuple[socket.socket, ...]]

_STOP = "stop the program that listens there, or change the port in the settings"
#: An address that includes the one in use, or is part of it, needs the port to itself.
_RESTART = "this server listens on that port, restart it to change the host"


class ServingError(Exception):
    """The server cannot serve or cannot apply new settings; the message gives the reason."""


def open_all(
    settings: Settings, before: Settings | None = None, opened: Listeners | None = None
) -> Listeners:
    """Return the listening sockets of each role.

    The main process owns them: a connection that is not yet accepted outlives a worker.

    Args:
        settings: the settings.
        before: the settings in force; None at the start.
        opened: their sockets, which are used again where the address is the same.

    Raises:
        ServingError: an address cannot be used.
    """
    former = before.listeners() if before else {}
    found: dict[Role, tuple[socket.socket, ...]] = {}
    for role, server in settings.listeners().items():
        if opened and role in former and _address(server) == _address(former[role]):
            found[role] = opened[role]
            for listener in found[role]:
                listener.listen(server.backlog)
        else:
            taken = bool(opened) and server.port in {each.port for each in former.values()}
            found[role] = (open_listener(server, _RESTART if taken else _STOP),)
    return found


def open_listener(settings: ServerSettings, remedy: str = _STOP) -> socket.socket:
    """Return a listening socket on the address of ``settings``.

    Raises:
        ServingError: the address cannot be used; the message ends with ``remedy``.
    """
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    listener = socket.socket(family)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((settings.host, settings.port))
        listener.listen(settings.backlog)
    except OSError as error:
        listener.close()
        raise ServingError(
            f"{settings.host} port {settings.port} cannot be used ({error.strerror}): {remedy}."
        ) from error
    return listener


def _address(settings: ServerSettings) -> tuple[str, int]:
    return settings.host, settings.port
