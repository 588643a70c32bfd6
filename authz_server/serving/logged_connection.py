"""A connection that writes its responses to the access log."""

from collections.abc import Callable
from time import perf_counter

from authz_server.endpoints.access_log import AccessLog
from authz_server.endpoints.request import Request
from authz_server.endpoints.responses import Answer
from authz_server.serving.http import Connection
from authz_server.serving.interface import Front
from authz_server.serving.messages import Message
from authz_server.serving.senders import Phase


class LoggedConnection(Connection):
    """A connection whose responses are logged, including those to unread and malformed messages.

    Args:
        front: the worker.
        log: gets a line for each response.
    """

    def __init__(self, front: Front, log: AccessLog) -> None:
        super().__init__(front)
        self._log = log
        self._arrived = 0.0
        # The time at which the current request had arrived; 0 if it is refused incomplete.
        self._began = 0.0

    def data_received(self, data: bytes) -> None:
        """Process the next bytes of one or more messages."""
        self._arrived = perf_counter()
        super().data_received(data)

    def refuse_held(self, refusal: Callable[[], bytes]) -> bool:
        """Return False, so that held bytes are parsed and the log line names the request."""
        del refusal
        return False

    def answer(self, answer: Answer) -> None:
        """Send the response, then log it."""
        answered, message = self.phase is Phase.ANSWERING, self._answered
        began, self._began = self._began or self._arrived, 0.0
        super().answer(answer)
        if answered:
            self._log.write(
                message.request or self._unread_request(message),
                status=answer.status,
                request_id=answer.headers.get("X-Request-Id", ""),
                seconds=perf_counter() - began,
            )

    def _answer(self, message: Message, request: Request) -> None:
        self._began = self._arrived
        super()._answer(message, request)

    def _unread_request(self, message: Message) -> Request:
        path = message.target.partition(b"?")[0].decode("latin-1")
        return Request("", path, peer=self.peer)
