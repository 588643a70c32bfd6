"""Admission of requests: answered now, queued, or refused under overload.

While the loop keeps up, every request is answered as it is read. If one turn of the loop takes too
long, further input waits in a queue, so that the loop reads new input and accepts connections in
between. Refusing must be cheap, because under overload most requests are refused: queued input is
not parsed before its turn.

A refusal is not sent early. A refused sender retries at once, and refusing it would take time from
the requests that wait.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from time import monotonic

from authz_server.endpoints.request import Request
from authz_server.serving.http import Connection
from authz_server.serving.senders import Phase

#: How long the loop answers requests before it reads new input and accepts connections.
TURN_SECONDS = 0.01
#: How long a request may wait. The loop may read it one turn late and refuse it one turn late; the
#: total should stay within 0.1 s.
OVERLOAD_SECONDS = 0.08
#: The first request of a connection has waited about this long for the connection to be accepted.
ACCEPT_SECONDS = 0.03
#: A pause between two turns, or one request, as long as this is a stall, not overload: something
#: else took the processor or the disk. For a while after it, requests may wait longer.
PAUSE_SECONDS = 0.05
STALL_SECONDS = 0.12
#: Up to this number of connections or waiting requests is never an overload.
FEW = 512


class Turns:
    """The requests of one event loop.

    Args:
        loop: the loop.
        serve: answers a request, now or later.
        refuse: refuses a parsed request because of overload.
        refusal: returns the encoded refusal for an unparsed request.
        may_refuse: returns whether there are enough connections for an overload.
        has_room: returns whether the next request would not wait behind the database's queries.
            If not, one request is answered in each turn of the loop, and the others wait here,
            where refusing them is cheap.
    """

    def __init__(  # noqa: PLR0913 - its parts, by name
        self,
        loop: asyncio.AbstractEventLoop,
        *,
        serve: Callable[[Connection, Request], None],
        refuse: Callable[[Connection, Request], None],
        refusal: Callable[[], bytes],
        may_refuse: Callable[[], bool],
        has_room: Callable[[], bool],
    ) -> None:
        self._loop = loop
        self._serve = serve
        self._refuse = refuse
        self._refusal = refusal
        self._may_refuse = may_refuse
        self._has_room = has_room
        self._queue: deque[tuple[float, Connection, Request | None]] = deque()
        self._began = self._ended = self._stalled = 0.0
        self._in_turn = False
        # The decision on the request that is being parsed.
        self._verdict: Callable[[Connection, Request], None] | None = None

    def are_late(self) -> bool:
        """Return whether a request that arrives now must wait."""
        if self._queue:
            return self._verdict is None
        if self._in_turn:
            if self._verdict is not None:
                return False
            return monotonic() - self._began > TURN_SECONDS or not self._has_room()
        self._in_turn = True
        self._began = monotonic()
        # Runs once the loop has read all pending input.
        self._loop.call_soon(self._end)
        return False

    def hold(self, connection: Connection, request: Request | None) -> None:
        """Queue a request, or the held bytes of the connection if ``request`` is None."""
        now = monotonic()
        if not self._queue:
            self._ended = now
        since = now if connection.used else now - ACCEPT_SECONDS
        self._queue.append((since, connection, request))

    def take(self, connection: Connection, request: Request) -> None:
        """Answer a request, now or later."""
        if self._verdict is not None:
            self._verdict(connection, request)
        elif self.are_late():
            self.hold(connection, request)
        else:
            self._serve(connection, request)

    def _end(self) -> None:
        queue = self._queue
        began = monotonic()
        if queue and began - self._ended > PAUSE_SECONDS:
            self._stalled = began
        try:
            is_behind = bool(queue) and self._may_refuse() and self._refuse_late(began)
            latest = began
            while queue:
                # Where refusing cannot keep up, the latest arrivals are the ones still in time.
                _, connection, request = queue.pop() if is_behind else queue.popleft()
                self._decide(self._serve, connection, request)
                before, latest = latest, monotonic()
                if latest - before > PAUSE_SECONDS:
                    self._stalled = latest
                if latest - began > TURN_SECONDS or not self._has_room():
                    break
        finally:
            self._verdict = None
            self._in_turn = bool(queue)
            if queue:
                self._ended = monotonic()
                self._loop.call_soon(self._end)

    def _refuse_late(self, began: float) -> bool:
        """Refuse those that waited too long; return whether some are left after half a turn."""
        queue, now = self._queue, began
        stalled = now - self._stalled < STALL_SECONDS
        limit = STALL_SECONDS if stalled else OVERLOAD_SECONDS
        while queue and now - queue[0][0] > limit:
            if now - began > TURN_SECONDS / 2:
                return True
            _, connection, request = queue.popleft()
            self._decide(self._refuse, connection, request)
            now = monotonic()
        return False

    def _decide(
        self,
        verdict: Callable[[Connection, Request], None],
        connection: Connection,
        request: Request | None,
    ) -> None:
        # The peer may have disconnected.
        if connection.phase is not Phase.ANSWERING:
            return
        self._verdict = verdict
        if request is not None:
            verdict(connection, request)
        elif verdict is self._serve or not connection.refuse_held(self._refusal):
            connection.release()
