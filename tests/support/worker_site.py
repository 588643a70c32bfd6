"""A worker's front in this process, on the event loop of a thread, with endpoints of a test."""

import asyncio
import json
import socket
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from copy import copy
from ssl import SSLContext
from typing import Any, Self

from authz_server.audit.notifier import Notifier, Receiver
from authz_server.endpoints.access_log import AccessLog
from authz_server.endpoints.client_address import ClientAddressReader
from authz_server.endpoints.errors import ErrorResponses
from authz_server.endpoints.request import Request
from authz_server.endpoints.responses import Answer, new_request_id
from authz_server.errors import OAuthError
from authz_server.metrics.events import RequestsShed
from authz_server.serving.flask_requests import FlaskRequests
from authz_server.serving.front import FrontParts, WorkerFront
from authz_server.serving.lanes import Lanes
from authz_server.serving.senders import Senders
from authz_server.serving.shares import Shares
from authz_server.serving.turns import Turns
from authz_server.serving.worker import new_loop
from authz_server.settings import ServerSettings
from authz_server.waiting import Lane, Step
from support.raw_http import RawConnection

LARGE_BYTES = 200_000
LATE = "late"
#: The event loops under which `serve` runs: with uvloop, and where it is not installed; and one
#: that is late at every request, so that all that arrives waits unread for its turn.
LOOPS: Mapping[str, Callable[[], asyncio.AbstractEventLoop]] = {
    "uvloop": new_loop,
    "asyncio": asyncio.new_event_loop,
    LATE: new_loop,
}

#: Those that are loops of their own.
PLAIN_LOOPS = ("uvloop", "asyncio")


class WorkerSite:
    """Accepts connections on a port of 127.0.0.1, with `tls` by TLS. A context manager.

    A POST to ``/echo`` is answered with what the request held, to ``/held`` with the same once
    `gate` is set, to ``/large`` with LARGE_BYTES bytes, to ``/busy`` after holding the loop for as
    many milliseconds as its body says. Everything else a WSGI application answers with 404.

    Attributes:
        requests: what was answered by an endpoint.
        held: how many requests to ``/held`` have begun.
        records: the events of refused messages that reached none.
        gate: lets the requests to ``/held`` go on.
        each_tick: called several times a second.
        front: the front, whose deadlines may be changed.
    """

    def __init__(
        self,
        loop: str = "uvloop",
        *,
        tls: SSLContext | None = None,
        access_log: AccessLog | None = None,
        shares: Shares | None = None,
        larger_bodies: Mapping[str, int] | None = None,
        **settings: Any,
    ) -> None:
        self.loop = LOOPS[loop]()
        self._is_late = loop == LATE
        self._tls = tls
        self._access_log = access_log
        self._shares = shares
        self._larger_bodies = larger_bodies or {}
        self._settings = ServerSettings(**{"maximum_body_bytes": 20_000} | settings)
        self.requests: list[Request] = []
        self.held = 0
        self.shed = []
        self.records: list[Any] = []
        self.gate = threading.Event()
        self.each_tick: Callable[[], None] = lambda: None
        self._errors = ErrorResponses(self._settings.retry_after_seconds)
        self._thread = threading.Thread(target=self.loop.run_forever, name="site", daemon=True)
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=1_024)
        # So a peer that does not read is noticed soon.
        self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 32_768)
        self._listener.setblocking(False)  # noqa: FBT003 - the standard library's signature
        self.port: int = self._listener.getsockname()[1]

    def __enter__(self) -> Self:
        self._thread.start()
        self.run(self._begin)
        return self

    def __exit__(self, *_: object) -> None:
        self.gate.set()
        self.start_drain(0.0).result()
        asyncio.run_coroutine_threadsafe(self.lanes.close(), self.loop).result()
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join()
        self.loop.close()
        self._listener.close()

    def connect(self, deadline_seconds: float = 10.0) -> RawConnection:
        """Open a connection."""
        return RawConnection(self.port, deadline_seconds)

    def another_listener(self) -> socket.socket:
        """Return the listening socket as another worker has it."""
        return self._listener.dup()

    def run(self, act: Callable[[], Any]) -> Any:
        """Return what `act` returns on the loop."""

        async def on_loop() -> Any:
            return act()

        return asyncio.run_coroutine_threadsafe(on_loop(), self.loop).result()

    def start_drain(self, grace_seconds: float) -> "Future[None]":
        """Have the front come to its end as at SIGTERM."""
        return asyncio.run_coroutine_threadsafe(self.front.drain(grace_seconds), self.loop)

    def connection_count(self) -> int:
        """Return how many connections are open."""
        return self.run(lambda: len(self._senders))

    def await_connections(self, count: int) -> None:
        """Return when exactly as many connections are open."""
        _await_count(self.connection_count, count)

    def await_held(self, count: int) -> None:
        """Return when as many requests to ``/held`` have begun."""
        _await_count(lambda: self.held, count)

    def _begin(self) -> None:
        settings = self._settings
        self.lanes = Lanes(
            self.loop,
            threads=dict.fromkeys(Lane, settings.threads),
            maximum_waiting=settings.maximum_waiting_requests,
            prepared_queries=None,
        )
        proxies = ClientAddressReader(settings.trusted_proxies, settings.forwarded_header)
        self._senders = Senders(
            maximum=settings.maximum_connections,
            maximum_each=settings.maximum_connections_per_address,
            maximum_bodies=settings.maximum_bodies_per_address,
            is_exempt=proxies.is_trusted_proxy,
        )
        endpoints = {"/echo": _Echo, "/held": _Held, "/large": _Large, "/busy": _Busy}
        parts = FrontParts(
            endpoints={path: kind(self) for path, kind in endpoints.items()},  # type: ignore[misc]
            other=FlaskRequests(
                _nowhere, maximum_waiting=settings.maximum_waiting_requests, secure=False
            ),
            lanes=self.lanes,
            senders=self._senders,
            errors=self._errors,
            notify=Notifier(self._find_receivers).notify,
            addresses=proxies,
            each_tick=self._act_each_tick,
            access_log=self._access_log,
            shares=self._shares,
            larger_bodies=self._larger_bodies,
        )
        self.front = WorkerFront(self.loop, settings, parts)
        if self._is_late:
            _make_late(self.front._turns)  # noqa: SLF001 - no timing makes every request late
        self.front.listen([self._listener], self._tls)

    def _find_receivers(self, kind: type) -> tuple[Receiver, ...]:
        if kind is RequestsShed:
            return (lambda event: self.shed.append(event.number),)
        return (self.records.append,)

    def _act_each_tick(self) -> None:
        self.each_tick()

    def answer(self, request: Request) -> Answer:
        """Note the request and return what it held, or the refusal of its fault."""
        self.requests.append(copy(request))
        if request.fault is not None:
            return self._errors.render(request.fault, request, new_request_id())
        echo = {
            "method": request.method,
            "path": request.path,
            "query": request.query,
            "headers": dict(request.headers),
            "body": request.body.decode("latin-1"),
            "peer": request.peer,
        }
        return Answer(200, {"Content-Type": "application/json"}, json.dumps(echo).encode())


class _Echo:
    maximum_body_bytes = 0

    def __init__(self, site: WorkerSite) -> None:
        self.site = site

    async def respond(self, request: Request) -> Answer:
        return self.site.answer(request)


class _Held(_Echo):
    async def respond(self, request: Request) -> Answer:
        self.site.held += 1
        try:
            await Step(Lane.DATABASE, self.site.gate.wait)
        except OAuthError as fault:
            request.fault = fault
        return self.site.answer(request)


class _Large(_Echo):
    async def respond(self, request: Request) -> Answer:
        self.site.requests.append(copy(request))
        return Answer(200, {}, b"x" * LARGE_BYTES)


class _Busy(_Echo):
    async def respond(self, request: Request) -> Answer:
        time.sleep(int(request.body) / 1_000)  # noqa: ASYNC251 - holds the loop on purpose
        return self.site.answer(request)


def _await_count(count: Callable[[], int], expected: int) -> None:
    deadline = time.monotonic() + 60
    while (found := count()) != expected:
        assert time.monotonic() < deadline, f"{found} instead of {expected}"
        time.sleep(0.01)


def _nowhere(environ: Mapping[str, Any], start_response: Callable[..., Any]) -> list[bytes]:
    body = f"{environ['REQUEST_METHOD']} {environ['PATH_INFO']}".encode("latin-1")
    start_response("404 Not Found", [("Content-Length", str(len(body)))])
    return [b"" if environ["REQUEST_METHOD"] == "HEAD" else body]


def _make_late(turns: Turns) -> None:
    """Have every request wait for its turn."""
    look = turns.are_late

    def are_late() -> bool:
        look()  # begins a turn
        return turns._verdict is None  # noqa: SLF001 - likewise

    turns.are_late = are_late  # type: ignore[method-assign]
