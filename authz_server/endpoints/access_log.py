"""The access log: one line of the operator's log for each answered request."""

import logging
import re
from time import perf_counter
from wsgiref.types import StartResponse, WSGIEnvironment

from authz_server.endpoints.client_address import ClientAddressReader
from authz_server.endpoints.request import Request
from authz_server.endpoints.wsgi import CLIENT_ID, read_head
from authz_server.errors import OAuthError
from authz_server.logs import ACCESS_LOGGER

logger = logging.getLogger(ACCESS_LOGGER)

_MAXIMUM_PATH_CHARACTERS = 256
# Matches a token or secret put into a path; paths of the server have shorter segments.
_LONG_WORD = re.compile(r"[\w~+=-]{40,}")


class AccessLog:
    """Writes one line for each answered request.

    Args:
        addresses: finds the addresses of clients.
    """

    def __init__(self, addresses: ClientAddressReader) -> None:
        self._addresses = addresses

    def write(self, request: Request, *, status: int, request_id: str, seconds: float) -> None:
        """Log an answer, without the query, tokens and secrets.

        Args:
            request: the request that was answered.
            status: the HTTP status.
            request_id: the answer's ``X-Request-Id``.
            seconds: the time that the answer took.
        """
        try:
            source_address = self._addresses.read(request)
        except OAuthError:
            source_address = request.peer
        # A path that a WSGI server has decoded may hold a question mark.
        path = _LONG_WORD.sub("[redacted]", request.path.partition("?")[0])
        logger.info(
            "answered",
            extra={
                "request_id": request_id,
                "method": request.method,
                "path": path[:_MAXIMUM_PATH_CHARACTERS],
                "status": status,
                "milliseconds": round(seconds * 1_000, 2),
                "source_address": source_address,
                "client_id": request.client_id,
            },
        )

    def follow(self, environ: WSGIEnvironment, start_response: StartResponse) -> StartResponse:
        """Return a ``start_response`` that logs the answer and calls the given one.

        Args:
            environ: the WSGI environment of the request.
            start_response: the WSGI server's.
        """
        began = perf_counter()

        def start(status: str, headers: list[tuple[str, str]], *error: object) -> object:
            request = read_head(environ)
            request.client_id = environ.get(CLIENT_ID, "")
            self.write(
                request,
                status=int(status[:3]),
                request_id=dict(headers).get("X-Request-Id", ""),
                seconds=perf_counter() - began,
            )
            return start_response(status, headers, *error)  # type: ignore[arg-type]

        return start  # type: ignore[return-value]
