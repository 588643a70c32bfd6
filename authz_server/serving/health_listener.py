"""The health listener: a port of its own, served by a thread of the main process."""

import resource
import socket
import threading
from collections.abc import Callable, Iterable
from contextlib import suppress
from http import HTTPStatus
from socketserver import ThreadingMixIn
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer
from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

from authz_server.endpoints.errors import ErrorResponses
from authz_server.endpoints.request import Request
from authz_server.endpoints.responses import new_request_id
from authz_server.errors import OAuthError

READ_SECONDS = 5
#: Connections at the same time, each with a thread; a further one closes the oldest.
MAXIMUM_CONNECTIONS = 64
#: The part of this process's open files that may be connections. The workers' pipes need others.
_PART_OF_FILES = 4
_NAME = "authz-server"
#: The reasons of refusals, by the status that the standard library would send.
_REASONS = {
    HTTPStatus.REQUEST_URI_TOO_LONG: "target_too_long",
    HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE: "header_too_large",
}
_RETRY_AFTER_SECONDS = 1


class _Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True
    request_queue_size = 64

    def __init__(self, *arguments: Any) -> None:  # noqa: ANN401 - those of the base class
        self._open: dict[socket.socket, None] = {}
        files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        few = files != resource.RLIM_INFINITY and files < MAXIMUM_CONNECTIONS * _PART_OF_FILES
        self._maximum = max(1, files // _PART_OF_FILES) if few else MAXIMUM_CONNECTIONS
        self._lock = threading.Lock()
        super().__init__(*arguments)

    def process_request(self, request: Any, client_address: Any) -> None:  # noqa: ANN401
        """Begin to answer a connection; close the oldest one if there are too many."""
        with self._lock:
            if len(self._open) >= self._maximum:
                oldest = next(iter(self._open))
                del self._open[oldest]
                with suppress(OSError):
                    oldest.shutdown(socket.SHUT_RDWR)
            self._open[request] = None
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:  # noqa: ANN401
        """Close a connection."""
        with self._lock:
            self._open.pop(request, None)
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:  # noqa: ANN401
        """Log nothing: peers may disconnect at any time."""
        del request, client_address


class _IPv6Server(_Server):
    address_family = socket.AF_INET6


class _Handler(WSGIRequestHandler):
    timeout = READ_SECONDS

    def get_environ(self) -> WSGIEnvironment:
        """Return the environment with the target as sent; the path is without leading slashes."""
        return super().get_environ() | {"REQUEST_URI": self.requestline.split()[1]}

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """Refuse a message that cannot be parsed, in the form of the application's refusals."""
        del message, explain
        reason = _REASONS.get(HTTPStatus(code), "message_malformed")
        responses = ErrorResponses(_RETRY_AFTER_SECONDS)
        answer = responses.render(OAuthError(reason), Request("", ""), new_request_id())
        fields = f"Server: {_NAME}\r\nDate: {self.date_time_string()}\r\n"
        self.wfile.write(answer.encode(fields.encode(), connection="close"))

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002, ANN401
        """Log nothing: health checks come every few seconds."""
        del format, args


def _named(application: WSGIApplication) -> WSGIApplication:
    """Return the application with a ``Server`` header; wsgiref would add its version."""

    def named(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        def start(
            status: str,
            headers: list[tuple[str, str]],
            *error: Any,  # noqa: ANN401
        ) -> Callable[[bytes], object]:
            return start_response(status, [*headers, ("Server", _NAME)], *error)

        return application(environ, start)

    return named


class HealthListener:
    """Serves a WSGI application to a few monitoring clients.

    Args:
        application: the application.
        host: the address to listen on.
        port: the port; 0 selects a free one.
    """

    def __init__(self, application: WSGIApplication, host: str, port: int) -> None:
        kind = _IPv6Server if ":" in host else _Server
        self._server = kind((host, port), _Handler)
        self._server.set_app(_named(application))
        self._thread = threading.Thread(
            target=self._server.serve_forever, name="health-listener", daemon=True
        )

    def replace(self, application: WSGIApplication) -> None:
        """Serve another application."""
        self._server.set_app(_named(application))

    @property
    def port(self) -> int:
        """The port in use."""
        return int(self._server.server_address[1])

    def start(self) -> None:
        """Start to serve."""
        self._thread.start()

    def stop(self) -> None:
        """Stop serving and release the port."""
        if self._thread.is_alive():
            self._server.shutdown()
            self._thread.join()
        self._server.server_close()
