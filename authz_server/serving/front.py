"""A worker's front: accepts connections, dispatches requests, and sheds load."""

import asyncio
import logging
import socket
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from email.utils import formatdate
from functools import partial
from ssl import SSLContext

from authz_server.audit.events import RequestRefused
from authz_server.audit.notifier import Notify
from authz_server.endpoints.access_log import AccessLog
from authz_server.endpoints.client_address import ClientAddressReader
from authz_server.endpoints.errors import ErrorResponses, as_refusal
from authz_server.endpoints.protocol import ProtocolEndpoint
from authz_server.endpoints.request import Request
from authz_server.endpoints.responses import Answer, new_request_id
from authz_server.endpoints.routes import NO_RESOURCES, Resources
from authz_server.errors import OAuthError
from authz_server.metrics.events import RequestsShed
from authz_server.serving import turns
from authz_server.serving.flask_requests import FlaskRequests
from authz_server.serving.http import Connection
from authz_server.serving.lanes import Lanes
from authz_server.serving.large_bodies import LargeBodies
from authz_server.serving.logged_connection import LoggedConnection
from authz_server.serving.senders import Phase, Sender, Senders
from authz_server.serving.shares import Shares
from authz_server.settings import ServerSettings

logger = logging.getLogger(__name__)

_ID_TO_COME = "{request id}"
TICK_SECONDS = 0.25
#: How long idle connections, old and new, stay open while the worker stops: a request may be on its
#: way.
DRAIN_SECONDS = 1.0
_DRAIN_INTERVAL_SECONDS = 0.02
#: Connections that a worker accepts at once, before it looks at its other events; and where others
#: are closed to make room for them, whose files stay open a little longer.
_ACCEPTED_AT_ONCE, _ACCEPTED_WITHOUT_ROOM = 512, 16
#: How long a worker leaves new connections to those that have fewer.
_REST_SECONDS = 0.001
_BACK_OFF_SECONDS = 0.5


@dataclass(frozen=True, slots=True)
class FrontParts:
    """The collaborators of a front.

    Attributes:
        endpoints: the protocol endpoints, by path; each answers POST.
        other: answers every other request.
        lanes: run the steps of endpoints that wait.
        senders: limits connections.
        errors: renders the refusal of a message that reaches no endpoint.
        notify: passes an event on; raises if it cannot be recorded.
        addresses: finds the address of the client behind trusted proxies.
        each_tick: called several times a second.
        access_log: gets a line for each response; None for no log.
        resources: the resources that have other methods than POST.
        shares: the connections of the workers that share the sockets; None: no other worker does.
        larger_bodies: the size in bytes of the largest body, by path, of authenticated POST
            requests to ``other``.
    """

    endpoints: Mapping[str, ProtocolEndpoint]
    other: FlaskRequests
    lanes: Lanes
    senders: Senders
    errors: ErrorResponses
    notify: Notify
    addresses: ClientAddressReader
    each_tick: Callable[[], None]
    access_log: AccessLog | None = None
    resources: Resources = NO_RESOURCES
    shares: Shares | None = None
    larger_bodies: Mapping[str, int] = field(default_factory=dict)


class Handshake:
    """A TLS handshake in progress, which counts as a connection.

    Args:
        task: performs the handshake.
        deadline: the time by which it must complete.
        senders: the limits.
        address: the peer's address.
    """

    used = False

    def __init__(
        self, task: asyncio.Task[object], deadline: float, senders: Senders, address: str
    ) -> None:
        self.phase = Phase.IDLE
        self.deadline = deadline
        self._task = task
        self._senders = senders
        self._sender = senders.admit(self, address)
        task.add_done_callback(self._end)

    def evict(self) -> None:
        """Cancel the handshake."""
        self._task.cancel()
        self._end()

    def _end(self, _task: object = None) -> None:
        self._senders.dismiss(self, self._sender)


class WorkerFront:
    """Connects a worker's listening sockets with the endpoints.

    Args:
        loop: the event loop.
        settings: limits and deadlines.
        parts: the collaborators.
    """

    def __init__(
        self, loop: asyncio.AbstractEventLoop, settings: ServerSettings, parts: FrontParts
    ) -> None:
        self._loop = loop
        self._parts = parts
        self._endpoints = parts.endpoints
        self._resources = parts.resources
        self._lanes = parts.lanes
        self._connections: dict[Connection, None] = {}
        self._listeners: tuple[socket.socket, ...] = ()
        self._tls: SSLContext | None = None
        self._arriving: set[asyncio.Task[object]] = set()
        self._maximum = settings.maximum_connections
        self._shares = parts.shares
        self._left = 1
        self._turns = turns.Turns(
            loop,
            serve=self._serve,
            refuse=self._shed,
            refusal=self._new_refusal,
            may_refuse=lambda: len(self._connections) > turns.FEW,
            has_room=parts.lanes.has_room,
        )
        log = parts.access_log
        self._connection: Callable[[], Connection] = (
            partial(LoggedConnection, self, log) if log else partial(Connection, self)
        )
        self._sheds = 0
        self._overloaded = parts.errors.render(
            OAuthError("temporarily_unavailable"), Request("POST", ""), _ID_TO_COME
        )
        self.header_seconds = float(settings.header_timeout_seconds)
        self.body_seconds = float(settings.body_timeout_seconds)
        self.keep_alive_seconds = float(settings.keep_alive_seconds)
        self._body_bytes = settings.maximum_body_bytes
        self._body_limits = {
            path: max(settings.maximum_body_bytes, endpoint.maximum_body_bytes)
            for path, endpoint in parts.endpoints.items()
        }
        # Only requests to a listener that has larger bodies take the steps of their limits.
        self.body_limit: Callable[[Connection, Request], int] = (
            LargeBodies(parts.larger_bodies, self._body_limit, self._connections.__contains__).limit
            if parts.larger_bodies
            else self._body_limit
        )
        self.draining = False
        self._tick()

    def _body_limit(self, _connection: Connection, request: Request) -> int:
        return self._body_limits.get(request.path, self._body_bytes)

    # -------------------------------------------------------------------------- connections

    def listen(self, listeners: Iterable[socket.socket], tls: SSLContext | None) -> None:
        """Accept connections; several workers may share the sockets.

        Args:
            listeners: listening and non-blocking sockets.
            tls: the TLS context; None: plain HTTP.
        """
        self._tls = tls
        self._listeners = tuple(listeners)
        self._count()
        for listener in self._listeners:
            self._add_listener(listener)

    def _add_listener(self, listener: socket.socket) -> None:
        accept = self._accept_some if self._shares is None else self._accept_share
        self._loop.add_reader(listener.fileno(), accept, listener)

    def stop_accepting(self) -> None:
        """Accept the connections that wait, and no more: other workers may share the sockets."""
        if self._shares is not None:
            self._shares.leave()
            self._shares = None
        listeners, self._listeners = self._listeners, ()
        for listener in listeners:
            self._loop.remove_reader(listener.fileno())
            # Closing the last socket would reset connections that nobody accepted.
            self._accept(listener, self._maximum)
            listener.close()

    async def drain(self, grace_seconds: float) -> None:
        """Stop accepting, answer the requests in progress, and close every connection.

        Args:
            grace_seconds: time limit, after which the remaining connections are aborted.
        """
        self.draining = True
        early = set(self._connections)
        self.stop_accepting()
        ends = self._loop.time() + grace_seconds
        await self._serve_out(self._loop.time() + min(DRAIN_SECONDS, grace_seconds / 2))
        late = self._loop.time() + DRAIN_SECONDS
        while (self._connections or self._arriving) and self._loop.time() < ends:
            is_late = self._loop.time() > late
            for connection in list(self._connections):
                # The first request may be on its way to a connection that was just accepted.
                if is_late or connection.used or connection in early:
                    connection.drain()
            await asyncio.sleep(_DRAIN_INTERVAL_SECONDS)
        for connection in list(self._connections):
            connection.evict()

    async def _serve_out(self, until: float) -> None:
        """Answer late requests, and close each connection after its response."""
        while self._loop.time() < until and (self._connections or self._arriving):  # noqa: ASYNC110 - many set it
            await asyncio.sleep(_DRAIN_INTERVAL_SECONDS)

    def _accept_share(self, listener: socket.socket) -> None:
        shares, count = self._shares, len(self._connections) + len(self._arriving)
        if shares is None or not shares.is_ahead(count):
            self._left = 1
            self._accept(listener, 1)
        else:
            self._loop.remove_reader(listener.fileno())
            self._loop.call_later(_REST_SECONDS, self._accept_left, listener)

    def _accept_left(self, listener: socket.socket) -> None:
        """Accept connections that the other workers have left, each time more of them."""
        if listener in self._listeners:
            self._add_listener(listener)
            self._accept_some(listener, self._left)
            self._left = min(2 * self._left, _ACCEPTED_AT_ONCE)

    def _accept_some(self, listener: socket.socket, most: int = _ACCEPTED_AT_ONCE) -> None:
        # A few at a time: requests wait for the loop.
        room = self._parts.senders.maximum - len(self._connections) - len(self._arriving)
        self._accept(listener, min(most, max(room, _ACCEPTED_WITHOUT_ROOM)))

    def _accept(self, listener: socket.socket, at_once: int) -> None:
        for _ in range(at_once):
            try:
                accepted, address = listener.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                logger.error("cannot accept connections: %s", error.strerror)  # noqa: TRY400 - the message has it
                self._loop.remove_reader(listener.fileno())
                self._loop.call_later(_BACK_OFF_SECONDS, self._accept_again, listener)
                return
            accepted.setblocking(False)  # noqa: FBT003 - the standard library's signature
            task = self._loop.create_task(self._connect(accepted))
            self._arriving.add(task)
            task.add_done_callback(partial(self._arrived, accepted))
            if self._tls is not None:
                deadline = self.now + self.header_seconds
                Handshake(task, deadline, self._parts.senders, address[0])
            self._count()

    def _count(self) -> None:
        if self._shares is not None:
            self._shares.write(len(self._connections) + len(self._arriving))

    def _arrived(self, accepted: socket.socket, task: asyncio.Task[object]) -> None:
        self._arriving.discard(task)
        self._count()
        if task.cancelled():
            # The task may not have started.
            accepted.close()

    def _accept_again(self, listener: socket.socket) -> None:
        if listener in self._listeners:
            self._add_listener(listener)

    async def _connect(self, accepted: socket.socket) -> None:
        # A failed TLS handshake or a lost peer is not logged.
        with suppress(OSError, asyncio.TimeoutError):
            await self._loop.connect_accepted_socket(
                self._connection,
                accepted,
                ssl=self._tls,
                ssl_handshake_timeout=self.header_seconds if self._tls else None,
            )

    def opened(self, connection: Connection) -> Sender:
        """Add a connection."""
        self._connections[connection] = None
        return self._parts.senders.admit(connection, connection.peer)

    def closed(self, connection: Connection) -> None:
        """Remove a connection."""
        self._connections.pop(connection, None)
        self._count()
        self._parts.senders.dismiss(connection, connection.sender)

    def body_begun(self, connection: Connection) -> None:
        """Count a body that is arriving."""
        self._parts.senders.begin_body(connection, connection.sender)

    def _tick(self) -> None:
        # First, so that no fault ends the deadlines.
        self._loop.call_later(TICK_SECONDS, self._tick)
        self.now = self._loop.time()
        self.date = f"Date: {formatdate(usegmt=True)}\r\n".encode()
        self._refusal = self._overloaded.encode(self.date).split(_ID_TO_COME.encode())
        for connection in [each for each in self._connections if each.deadline < self.now]:
            connection.expire()
        if self._sheds:
            logger.warning("overloaded: %d requests were refused", self._sheds)
            self._parts.notify(RequestsShed(self._sheds))
            self._sheds = 0
        self._parts.each_tick()

    # ----------------------------------------------------------------------------- requests

    def holds(self, connection: Connection) -> bool:
        """Return whether the next bytes of a connection must wait, because the loop is late."""
        late = self._turns.are_late()
        if late:
            self._turns.hold(connection, None)
        return late

    def handle(self, connection: Connection, request: Request) -> None:
        """Answer a request, now or later."""
        self._turns.take(connection, request)

    def _shed(self, connection: Connection, _request: Request) -> None:
        self._sheds += 1
        headers = self._overloaded.headers | {"X-Request-Id": new_request_id()}
        connection.answer(Answer(self._overloaded.status, headers, self._overloaded.body))

    def _new_refusal(self) -> bytes:
        self._sheds += 1
        before, after = self._refusal
        return b"%b%b%b" % (before, new_request_id().encode(), after)

    def _serve(self, connection: Connection, request: Request) -> None:
        method, path = request.method, request.path
        by_path = method == "POST"
        endpoint = self._endpoints.get(path) if by_path else self._resources.find(method, path)
        if endpoint is not None:
            self._lanes.start(endpoint.respond(request), connection.answer)
        elif request.fault is not None:
            self.refuse(connection, request, request.fault)
        else:
            self._lanes.keep(self._respond(connection, request))

    def refuse(self, connection: Connection, request: Request | None, fault: OAuthError) -> None:
        """Refuse an incomplete message, by its endpoint if that is known."""
        endpoint = self._endpoints.get(request.path) if request is not None else None
        if request is not None and request.method == "POST" and endpoint is not None:
            request.fault = fault
            self._lanes.start(endpoint.respond(request), connection.answer)
            return
        request_id = new_request_id()
        try:
            self._parts.notify(
                RequestRefused(
                    request_id=request_id,
                    source_address=self._find_address(connection, request),
                    error=fault.error,
                    reason=fault.reason,
                )
            )
        except OAuthError as unrecorded:
            fault = unrecorded
        connection.answer(self._parts.errors.render(fault, request or Request("", ""), request_id))

    def _find_address(self, connection: Connection, request: Request | None) -> str:
        with suppress(OAuthError):
            return self._parts.addresses.read(request) if request else connection.peer
        return connection.peer

    async def _respond(self, connection: Connection, request: Request) -> None:
        try:
            answer = await self._parts.other.respond(request)
        except Exception as fault:  # noqa: BLE001 - every fault is answered
            answer = self._parts.errors.render(as_refusal(fault), request, new_request_id())
        connection.answer(answer)
