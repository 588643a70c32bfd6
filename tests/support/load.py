"""Requests under way while something happens to the server: steady ones, floods, and overload."""

import os
import resource
import selectors
import socket
import threading
import time
from collections import Counter, deque
from contextlib import suppress
from errno import ECONNREFUSED
from typing import Self

from support.edge import ServerFixture
from support.raw_http import MalformedAnswerError, RawConnection, RawResponse

_DEADLINE_SECONDS = 20.0
_COMING_AGAIN = 100


def whole_request(edge: ServerFixture, endpoint: str, *, version: str = "1.1") -> bytes:
    """Return the bytes of a request that succeeds and changes nothing."""
    head, form = edge.request(endpoint, harmless=True)
    framed = head + b"Content-Length: %d\r\n\r\n" % len(form) + form
    return framed.replace(b"HTTP/1.1", f"HTTP/{version}".encode())


def raise_file_limit() -> None:
    """Let this process open as many files as it may."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


class Requester:
    """Sends one request after the other, on one connection that is kept or on a new one each.

    Attributes:
        latencies: how long each answer took, in seconds, the time to connect included.
        statuses: how often each status came.
        failures: what happened instead of an answer.
    """

    def __init__(self, port: int, request: bytes, *, keeps: bool, source: str = "127.0.0.1"):
        self.port, self.source = port, source
        self._request, self._keeps = request, keeps
        self._connection: RawConnection | None = None
        self.latencies: list[float] = []
        self.statuses: Counter[int] = Counter()
        self.failures: list[str] = []

    def ask(self) -> None:
        """Send a request and note what came of it."""
        began = time.monotonic()
        try:
            answer = self._exchange()
        except (OSError, MalformedAnswerError) as fault:
            self._fail(repr(fault))
            return
        if answer is None:
            self._fail("hung up without an answer")
            return
        self.latencies.append(time.monotonic() - began)
        self.statuses[answer.status] += 1
        if not self._keeps or answer.headers.get("connection") == "close":
            self.close()

    def close(self) -> None:
        """Close the connection, if there is one."""
        if self._connection is not None:
            self._connection.__exit__()
        self._connection = None

    def _exchange(self) -> RawResponse | None:
        if self._connection is None:
            self._connection = RawConnection(self.port, _DEADLINE_SECONDS, self.source)
        self._connection.send(self._request)
        return self._connection.receive()

    def _fail(self, what: str) -> None:
        self.failures.append(what)
        self.close()


#: How many requests of each requester show that it was served.
_MANY = 10


class SteadyLoad:
    """Requesters in threads of their own, each with a short pause after each request.

    A context manager; after `stop` the requesters can be looked at.
    """

    def __init__(self, *requesters: Requester, pause_seconds: float = 0.01) -> None:
        self.requesters = requesters
        self._pause_seconds = pause_seconds
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._run, args=(each,)) for each in requesters]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.await_many()
        self.stop()

    def await_many(self) -> None:
        """Return when each requester was answered often, or failed: a busy machine needs time."""
        deadline = time.monotonic() + 60
        while not self._stop.is_set() and time.monotonic() < deadline:
            if all(each.failures or len(each.latencies) > _MANY for each in self.requesters):
                return
            time.sleep(0.01)

    def stop(self) -> None:
        """Let every request under way end, and send no more."""
        self._stop.set()
        for thread in self._threads:
            thread.join()
        for requester in self.requesters:
            requester.close()

    def lost(self) -> list[str]:
        """Return what failed otherwise than by a closed port, where a client knows what happened.

        One connection may come in the moment between the last look for new ones and the close.
        """
        refused = repr(ConnectionRefusedError(ECONNREFUSED, os.strerror(ECONNREFUSED)))
        return [each for one in self.requesters for each in one.failures if each != refused]

    def require_all_served(self) -> None:
        """Stop; raise AssertionError unless every request was answered with 200, and many were."""
        self.stop()
        for requester in self.requesters:
            assert requester.failures == [], requester.failures
            assert set(requester.statuses) == {200}, requester.statuses
            assert len(requester.latencies) > _MANY, len(requester.latencies)

    def _run(self, requester: Requester) -> None:
        while not self._stop.is_set():
            requester.ask()
            self._stop.wait(self._pause_seconds)


def steady_load(
    edge: ServerFixture,
    endpoint: str = "token",
    *,
    clients: int = 2,
    pause_seconds: float = 0.03,
) -> SteadyLoad:
    """Return a load of clients that keep their connection, and as many that open new ones.

    Between requests, most of the processor's time is for what happens beside them.
    """
    request = whole_request(edge, endpoint)
    kept = [Requester(edge.port, request, keeps=True) for _ in range(clients)]
    new = [Requester(edge.port, request, keeps=False) for _ in range(clients)]
    return SteadyLoad(*kept, *new, pause_seconds=pause_seconds)


class Flood:
    """Connections that never finish a request, from one address. A context manager.

    Each second every one of them sends another byte, and some of those that the server closed come
    again: more would measure this process.

    Args:
        port: where to.
        openings: what each connection sends first; empty: it stays idle and sends nothing later.
        source: the address.
    """

    def __init__(self, port: int, openings: list[bytes], source: str) -> None:
        raise_file_limit()
        self._port, self._source = port, source
        self._openings = openings
        self._sockets: list[socket.socket | None] = [None] * len(openings)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self.opened = 0

    def __enter__(self) -> Self:
        self._drip(len(self._sockets))
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        for each in self._sockets:
            if each is not None:
                each.close()

    def _run(self) -> None:
        while not self._stop.wait(1.0):
            self._drip(_COMING_AGAIN)

    def _drip(self, most_opened: int) -> None:
        ends = self.opened + most_opened
        for number, opening in enumerate(self._openings):
            held = self._sockets[number]
            is_open = held is not None and _is_open(held, b"a" if opening else b"")
            if not is_open and self.opened < ends and not self._stop.is_set():
                self._sockets[number] = self._open(held, opening)

    def _open(self, held: socket.socket | None, opening: bytes) -> socket.socket | None:
        if held is not None:
            held.close()
        with suppress(OSError):
            opened = socket.create_connection(("127.0.0.1", self._port), 5, (self._source, 0))
            opened.sendall(opening)
            opened.setblocking(False)  # noqa: FBT003 - the standard library's signature
            self.opened += 1
            return opened
        return None


def _is_open(held: socket.socket, drop: bytes) -> bool:
    """Send a byte; tell whether the server still has the connection."""
    try:
        if drop:
            held.send(drop)
        return held.recv(4_096) != b""
    except BlockingIOError:
        return True
    except OSError:
        return False


class Overload:
    """Sends requests on many connections, each as soon as the one before is answered.

    A connection whose request was refused pauses before its next, as `Retry-After` asks.

    Attributes:
        served: how many were answered with 200.
        refusals: how long each 503 took, in seconds.
        without_retry_after: how many of them named no time.
        others: what else came.
    """

    def __init__(self, port: int, request: bytes, *, pause_seconds: float = 0.0) -> None:
        raise_file_limit()
        self._port, self._request, self._pause_seconds = port, request, pause_seconds
        self._sent: dict[socket.socket, float] = {}
        self._pausing: deque[tuple[float, socket.socket]] = deque()
        self.served = self.without_retry_after = 0
        self.refusals: list[float] = []
        self.others: Counter[str] = Counter()

    def run(self, connections: int, seconds: float) -> float:
        """Send for that long, then close everything; return the 200s per second."""
        served = self.served
        with selectors.DefaultSelector() as selector:
            for _ in range(connections):
                self._open(selector)
            began = time.monotonic()
            while (now := time.monotonic()) < began + seconds:
                while self._pausing and self._pausing[0][0] <= now:
                    self._send(self._pausing.popleft()[1])
                for key, _ in selector.select(0.02):
                    self._receive(selector, key.fileobj)  # type: ignore[arg-type]
            for each in self._sent:
                each.close()
        self._sent.clear()
        self._pausing.clear()
        return (self.served - served) / seconds

    def _open(self, selector: selectors.BaseSelector) -> None:
        connection = socket.create_connection(("127.0.0.1", self._port), 10)
        connection.setblocking(False)  # noqa: FBT003 - the standard library's signature
        selector.register(connection, selectors.EVENT_READ)
        self._send(connection)

    def _send(self, connection: socket.socket) -> None:
        self._sent[connection] = time.monotonic()
        with suppress(OSError):
            connection.send(self._request)

    def _receive(self, selector: selectors.BaseSelector, connection: socket.socket) -> None:
        # An answer is short enough to come in one piece.
        try:
            answer = connection.recv(65_536)
        except OSError as fault:
            answer = repr(fault).encode()
        now, status = time.monotonic(), answer[9:12]
        if status == b"200":
            self.served += 1
            self._send(connection)
        elif status == b"503":
            self.refusals.append(now - self._sent[connection])
            self.without_retry_after += b"retry-after: " not in answer.lower()
            self._pausing.append((now + self._pause_seconds, connection))
        else:
            self.others[answer[:80].decode("latin-1")] += 1
            selector.unregister(connection)
