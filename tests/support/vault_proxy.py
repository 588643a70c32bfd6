"""A reverse proxy before an OpenBao server that a test makes lie, lag or refuse."""

import json
from collections.abc import Callable
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any, NamedTuple, Self
from urllib.parse import urlsplit

_SECONDS = 10


class ProxyAnswer(NamedTuple):
    """An answer of the proxy itself: a status, and the body as JSON."""

    status: int
    body: Any


class VaultProxy:
    """Passes requests on to the server at `address`. A context manager.

    Attributes:
        redirect: returns the path to ask for in place of the one that was asked for.
        answer: returns what to answer without asking the server, or None.
        seen: method and path of every request that came.
    """

    def __init__(self, address: str) -> None:
        self._netloc = urlsplit(address).netloc
        self.redirect: Callable[[str, str], str] = lambda _method, path: path
        self.answer: Callable[[str, str], ProxyAnswer | None] = lambda _method, _path: None
        self.seen: list[tuple[str, str]] = []
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        self.address = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._thread = Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def count(self, part: str) -> int:
        """Return how many requests came whose path holds `part`."""
        return sum(part in path for _, path in self.seen)

    def _handler(proxy) -> type[BaseHTTPRequestHandler]:  # noqa: N805 - the handler has a self of its own
        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_: object) -> None:
                pass

            def handle_one_request(self) -> None:
                self.raw_requestline = self.rfile.readline(65_537)
                if not self.raw_requestline or not self.parse_request():
                    self.close_connection = True
                    return
                length = int(self.headers.get("Content-Length") or 0)
                body = self.rfile.read(length)
                proxy.seen.append((self.command, self.path))
                own = proxy.answer(self.command, self.path)
                status, content = (
                    proxy._forward(self, body)
                    if own is None
                    else (own.status, json.dumps(own.body).encode())
                )
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

        return Handler

    def _forward(self, handler: BaseHTTPRequestHandler, body: bytes) -> tuple[int, bytes]:
        path = self.redirect(handler.command, handler.path)
        headers = {name: value for name, value in handler.headers.items() if name != "Host"}
        connection = HTTPConnection(self._netloc, timeout=_SECONDS)
        try:
            connection.request(handler.command, path, body, headers)
            reply = connection.getresponse()
            return reply.status, reply.read()
        finally:
            connection.close()
