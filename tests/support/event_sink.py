"""A resource server that takes pushed security events as a test tells it to."""

import threading
import time
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Self


class EventSink:
    """A context manager; `status`, `body`, `location`, `retry_after` and `seconds` of its answers.

    `received` holds the tokens that came, in order; `types` their media types.
    """

    def __init__(self) -> None:
        self.status = 202
        self.body = b""
        self.location = ""
        self.retry_after = ""
        self.seconds = 0.0
        self.received: list[str] = []
        self.types: list[str] = []
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}/events"
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(0.01,), daemon=True
        )

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def _handler(sink: EventSink) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            sink.received.append(body.decode())
            sink.types.append(self.headers["Content-Type"])
            time.sleep(sink.seconds)
            with suppress(BrokenPipeError):
                self._answer()

        def _answer(self) -> None:
            self.send_response(sink.status)
            if sink.location:
                self.send_header("Location", sink.location)
            if sink.retry_after:
                self.send_header("Retry-After", sink.retry_after)
            self.send_header("Content-Length", str(len(sink.body)))
            self.end_headers()
            self.wfile.write(sink.body)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the library's
            """Print nothing."""

    return Handler
