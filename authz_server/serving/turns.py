"""Whose turn it is: requests that the loop answers now, that wait, and that are too many.

While the loop keeps up, every request is answered as it is read. Where one turn of the loop takes
too long, what is read further waits in a queue, so that the loop looks for new input and new
connections in between. A refusal costs as little as it can, for under overload most requests are
refused: what arrives for a queue is not even taken apart before its turn.

A refusal does not come early. A sender that is refused at once tries at once again, and refusing
would take the time for which others are waiting.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from time import monotonic

from authz_server.endpoints.request import Request
from authz_server.serving.http import Connection
from authz_server.serving.senders import Phase

#: How long the loop answers requests before it looks for new input and new connections.
TURN_SECONDS = 0.01
#: How long a request may wait while the queue does not become empty. The loop may have read it a
#: turn late, and may refuse it a turn late; 0.1 s is to be enough for all of it.
OVERLOAD_SECONDS = 0.08
#: A queue that was empty within this time comes from a stall, not from an overload: its requests
#: may wait as long.
STALL_SECONDS = 0.12
#: As many connections, or requests that wait, never are an overload: all are answered within
#: that time.
FEW = 512


class Turns:
    """The requests of one event loop.

    Args:
        loop: the loop.
        serve: answers a request, now or later.
        refuse: refuses one as too many.
        refusal: returns the same refusal as it is sent.
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
        # What happens to the request whose bytes are taken apart now.
        self._verdict: Callable[[Connection, Request], None] | None = None

    def are_late(self) -> bool:
        """Return whether a request that arrives now has to wait."""
        if self._queue:
            return self._verdict is None
        if self._in_turn:
            return self._verdict is None and monotonic() - self._began > TURN_SECONDS
        self._in_turn = True
        self._began = monotonic()
        # Runs when the loop has read all the input that it has found.
        self._loop.call_soon(self._end)
        return False

    def hold(self, connection: Connection, request: Request | None) -> None:
        """Have a request wait; None: the bytes that the connection holds."""
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
        # Its peer may be gone.
        if connection.phase is not Phase.ANSWERING or self._verdict is None:
            return
        if request is not None:
            self._verdict(connection, request)
        elif self._verdict is self._serve or not connection.refuse_held(self._refusal):
            connection.release()
