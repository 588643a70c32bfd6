"""Loopback ports that no other test process takes, however many runs share the machine.

A port that the system hands out for "any free port" may be gone again before a server binds it:
as the source port of somebody's outgoing connection, or in another test process. So ports come from
below the range used for outgoing connections, and each is held by a file lock while needed.
"""

import fcntl
import os
import random
import socket
import tempfile
from pathlib import Path

_LOWEST = 20_000
_HIGHEST = 32_000
_held: dict[int, int] = {}


def reserve_port() -> int:
    """Return a free TCP port of 127.0.0.1, held by this process until it is released."""
    first = random.SystemRandom().randrange(_LOWEST, _HIGHEST)
    for port in (*range(first, _HIGHEST), *range(_LOWEST, first)):
        if port not in _held and _hold(port):
            return port
    raise RuntimeError(f"no free loopback port between {_LOWEST} and {_HIGHEST}")


def release_port(port: int) -> None:
    """Let other test processes have the port again."""
    os.close(_held.pop(port))


def _hold(port: int) -> bool:
    directory = Path(tempfile.gettempdir()) / f"authz-server-test-ports-{os.getuid()}"
    directory.mkdir(mode=0o700, exist_ok=True)
    descriptor = os.open(directory / str(port), os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(("127.0.0.1", port))
    except OSError:
        os.close(descriptor)
        return False
    _held[port] = descriptor
    return True
