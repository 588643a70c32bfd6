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
#: How long a request may wait while the queue is never empty. The loop may read it one turn late
#: and refuse it one turn late; the total should stay within 0.1 s.
OVERLOAD_SECONDS = 0.08
#: A queue that was empty within this time results from a stall, not from overload; its requests
#: may wait this long.
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
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        *,
        serve: Callable[[Connection, Request], None],
        refuse: Callable[[Connection, Request], None],
        refusal: Callable[[], bytes],
        may_refuse: Callable[[], bool],
    ) -> None:
        self._loop = loop
        self._serve = serve
        self._refuse = refuse
        self._refusal = refusal
        self._may_refuse = may_refuse
        self._queue: deque[tuple[float, Connection, Request | None]] = deque()
        self._began = self._waiting_since = 0.0
        self._in_turn = False
        # The decision on the request that is being parsed.
        self._verdict: Callable[[Connection, Request], None] | None = None

    def are_late(self) -> bool:
        """Return whether a request that arrives now must wait."""
        if self._queue:
            return self._verdict is None
        if self._in_turn:
            return self._verdict is None and monotonic() - self._began > TURN_SECONDS
        self._in_turn = True
        self._began = monotonic()
        # Runs once the loop has read all pending input.
        self._loop.call_soon(self._end)
        return False

    def hold(self, connection: Connection, request: Request | None) -> None:
        """Queue a request, or the held bytes of the connection if ``request`` is None."""
        now = monotonic()
        if not self._queue:
            self._waiting_since = now
        self._queue.append((now, connection, request))

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
        began = now = monotonic()
        overloaded = now - self._waiting_since > STALL_SECONDS
        limit = OVERLOAD_SECONDS if overloaded else STALL_SECONDS
        refusing = bool(queue) and self._may_refuse()
        try:
            while queue:
                since, connection, request = queue.popleft()
                too_late = refusing and now - since > limit
                self._verdict = self._refuse if too_late else self._serve
                self._decide(connection, request)
                now = monotonic()
                if now - began > TURN_SECONDS:
                    break
        finally:
            self._verdict = None
            self._in_turn = bool(queue)
            if queue:
                self._loop.call_soon(self._end)

    def _decide(self, connection: Connection, request: Request | None) -> None:
        # The peer may have disconnected.
        if connection.phase is not Phase.ANSWERING or self._verdict is None:
            return
        if request is not None:
            self._verdict(connection, request)
        elif self._verdict is self._serve or not connection.refuse_held(self._refusal):
            connection.release()
