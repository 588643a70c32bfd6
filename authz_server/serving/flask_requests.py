"""Requests that are not for a protocol endpoint; Flask answers them on a few threads."""

import asyncio
import contextvars
from collections.abc import Callable, Collection
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from typing import Any
from wsgiref.types import WSGIApplication, WSGIEnvironment

from authz_server.endpoints.request import Request
from authz_server.endpoints.responses import Answer
from authz_server.endpoints.wsgi import PEER_CERTIFICATE
from authz_server.errors import OAuthError

_THREADS = 2
#: For requests that wait for a database or another server: those that the application lets wait,
#: and some more, so that it chooses which it refuses.
_SLOW_THREADS = 12


class _Threads:
    """Some threads, and the requests that wait for one.

    Args:
        count: the number of threads.
        name: the beginning of their names.
        maximum_waiting: how many requests may wait for a thread.
    """

    def __init__(self, count: int, name: str, maximum_waiting: int) -> None:
        self._maximum_waiting = maximum_waiting
        self._waiting = 0
        self._executor = ThreadPoolExecutor(count, thread_name_prefix=name)

    async def run(self, call: Callable[[Request], Answer], request: Request) -> Answer:
        """Return the response; OAuthError ``temporarily_unavailable`` if too many wait."""
        if self._waiting >= self._maximum_waiting:
            raise OAuthError("temporarily_unavailable", "too many requests wait")
        self._waiting += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(
                self._executor, contextvars.copy_context().run, call, request
            )
        finally:
            self._waiting -= 1

    def close(self) -> None:
        """Stop the idle threads."""
        self._executor.shutdown(wait=False, cancel_futures=True)


class FlaskRequests:
    """Runs a WSGI application.

    Args:
        application: the application.
        maximum_waiting: how many requests may wait for a thread.
        secure: whether connections to this server use TLS.
        slow_paths: the paths whose requests wait for a database or another server, on threads of
            their own; one that ends in a slash is a prefix.
    """

    def __init__(
        self,
        application: WSGIApplication,
        *,
        maximum_waiting: int,
        secure: bool,
        slow_paths: Collection[str] = (),
    ) -> None:
        self._application = application
        self._scheme = "https" if secure else "http"
        self._slow_paths = frozenset(slow_paths)
        self._slow_prefixes = tuple(path for path in slow_paths if path.endswith("/"))
        self._threads = _Threads(_THREADS, "flask", maximum_waiting)
        self._slow = _Threads(_SLOW_THREADS, "flask-slow", maximum_waiting)

    async def respond(self, request: Request) -> Answer:
        """Return the application's response.

        Raises:
            OAuthError: ``temporarily_unavailable``: too many requests wait.
        """
        path = request.path
        is_slow = path in self._slow_paths or path.startswith(self._slow_prefixes)
        return await (self._slow if is_slow else self._threads).run(self._call, request)

    def close(self) -> None:
        """Stop the idle threads."""
        self._threads.close()
        self._slow.close()

    def _call(self, request: Request) -> Answer:
        answer = Answer(500, {}, b"")

        def start_response(
            status: str,
            headers: list[tuple[str, str]],
            *error: Any,  # noqa: ANN401 - PEP 3333
        ) -> Callable[[bytes], object]:
            del error
            answer.status = int(status[:3])
            answer.headers = dict(headers)
            length = answer.headers.pop("Content-Length", None)
            answer.length = int(length) if length and request.method == "HEAD" else None
            return lambda _data: None

        chunks = self._application(self._environ(request), start_response)
        try:
            answer.body = b"".join(chunks)
        finally:
            if hasattr(chunks, "close"):
                chunks.close()
        return answer

    def _environ(self, request: Request) -> WSGIEnvironment:
        host, _, port = request.headers.get("host", "localhost").rpartition(":")
        environ: WSGIEnvironment = {
            "REQUEST_METHOD": request.method,
            "SCRIPT_NAME": "",
            "PATH_INFO": request.path,
            "QUERY_STRING": request.query,
            # PATH_INFO stays encoded: no route needs encoding, so an encoded path is unknown.
            "REQUEST_URI": request.path,
            "SERVER_NAME": host or port,
            "SERVER_PORT": port if host and port.isdigit() else "80",
            "SERVER_PROTOCOL": "HTTP/1.1",
            "REMOTE_ADDR": request.peer,
            "wsgi.version": (1, 0),
            "wsgi.url_scheme": self._scheme,
            "wsgi.input": BytesIO(request.body),
            "wsgi.errors": None,
            "wsgi.multithread": True,
            "wsgi.multiprocess": True,
            "wsgi.run_once": False,
            "wsgi.input_terminated": True,
            PEER_CERTIFICATE: request.peer_certificate,
        }
        for name, value in request.headers.items():
            if name in {"content-type", "content-length"}:
                environ[name.upper().replace("-", "_")] = value
            # WSGI would confuse a name with an underscore with another; only message_id is read.
            elif "_" not in name or name == "message_id":
                environ[f"HTTP_{name.upper().replace('-', '_')}"] = value
        return environ
