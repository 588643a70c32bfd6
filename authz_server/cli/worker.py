"""What runs inside each worker process beside the application: a watch over its connections.

The WSGI server reads a request's body on the thread that serves the request, for as long as the
sender takes, and knows no limit to that. So threads are lent to slow senders, and a connection on
which nothing was sent back for too long is closed, which gives its thread back.
"""

import importlib
import multiprocessing
import os
import signal
import socket
import stat
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path
from wsgiref.types import WSGIApplication

#: Threads beyond ``server.threads`` that may wait for request bodies.
THREADS_FOR_SLOW_BODIES = 256
#: How long a body may take, counted from the end of the time allowed for the header.
BODY_SECONDS = 10
WATCH_INTERVAL_SECONDS = 2.0
#: How long a worker process may take to end once its main process is gone.
ORPHAN_SECONDS = 10.0

_OPEN_FILES = Path("/proc/self/fd")
# struct tcp_info (linux/tcp.h): milliseconds since data was last sent, at byte 44.
_LAST_DATA_SENT = struct.Struct("@44xI")


def load_application(target: str, *, port: int, silence_seconds: float) -> WSGIApplication:
    """Return the application named ``module:attribute`` and begin to watch this process.

    Args:
        target: what to load.
        port: of the public listener.
        silence_seconds: how long nothing may be sent on a connection before it is closed.
    """
    module, _, attribute = target.partition(":")
    application: WSGIApplication = getattr(importlib.import_module(module), attribute)
    watch = threading.Thread(target=_watch, args=(port, silence_seconds), name="watch", daemon=True)
    watch.start()
    return application


def _watch(port: int, silence_seconds: float) -> None:
    started = time.monotonic()
    while _main_process_lives():
        close_silent_connections(port, silence_seconds)
    # The main process was killed: nobody would ever end this one, and it holds the port. A signal
    # that comes while the server is being set up would be lost on it.
    time.sleep(max(0.0, started + WATCH_INTERVAL_SECONDS - time.monotonic()))
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(ORPHAN_SECONDS)
    os.kill(os.getpid(), signal.SIGKILL)


def _main_process_lives() -> bool:
    """Wait for one interval, less when the main process ends; tell whether it still runs."""
    main_process = multiprocessing.parent_process()
    if main_process is None:  # not a worker process of ours
        time.sleep(WATCH_INTERVAL_SECONDS)
        return True
    main_process.join(WATCH_INTERVAL_SECONDS)
    return main_process.is_alive()


def close_silent_connections(port: int, silence_seconds: float) -> int:
    """Close this process's connections to ``port`` on which nothing was sent for so long.

    Returns:
        How many were closed; always 0 where the system does not tell (other than Linux).
    """
    closed = 0
    for connection in _connections():
        with closing(connection), suppress(OSError):
            if connection.getsockname()[1] != port:
                continue
            connection.getpeername()  # a listening socket has none
            if _silence_seconds(connection) > silence_seconds:
                connection.shutdown(socket.SHUT_RDWR)
                closed += 1
    return closed


def _connections() -> Iterator[socket.socket]:
    """Yield this process's internet sockets, each under a descriptor of its own."""
    names = os.listdir(_OPEN_FILES) if _OPEN_FILES.is_dir() else []  # noqa: PTH208 - no paths needed
    for name in names:
        with suppress(OSError):
            if not stat.S_ISSOCK(os.fstat(int(name)).st_mode):
                continue
            duplicate = socket.socket(fileno=os.dup(int(name)))
            if duplicate.family in (socket.AF_INET, socket.AF_INET6):
                yield duplicate
            else:
                duplicate.close()


def _silence_seconds(connection: socket.socket) -> float:
    information = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _LAST_DATA_SENT.size)
    milliseconds: int = _LAST_DATA_SENT.unpack(information)[0]
    return milliseconds / 1_000
