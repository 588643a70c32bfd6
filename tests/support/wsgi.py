"""Requests handed to a WSGI application as a server hands them over, however strange they are."""

from dataclasses import dataclass, field
from io import BytesIO
from typing import Any


@dataclass
class RawRequest:
    """A request in the making; text is latin-1, as WSGI has it (PEP 3333)."""

    method: str
    path: str
    query: str = ""
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    #: None: the body's true length; otherwise what the request says, empty for nothing.
    content_length: str | None = None

    def environ(self) -> dict[str, Any]:
        """Return what a WSGI server would make of it."""
        environ = {
            "REQUEST_METHOD": self.method,
            "SCRIPT_NAME": "",
            "PATH_INFO": self.path,
            "QUERY_STRING": self.query,
            "SERVER_NAME": "127.0.0.1",
            "SERVER_PORT": "8080",
            "SERVER_PROTOCOL": "HTTP/1.1",
            "HTTP_HOST": "127.0.0.1:8080",
            "REMOTE_ADDR": "203.0.113.7",
            "wsgi.version": (1, 0),
            "wsgi.url_scheme": "http",
            "wsgi.input": BytesIO(self.body),
            "wsgi.errors": BytesIO(),
            "wsgi.multithread": True,
            "wsgi.multiprocess": True,
            "wsgi.run_once": False,
        }
        for name, value in self.headers.items():
            key = name.upper().replace("-", "_")
            environ["CONTENT_TYPE" if key == "CONTENT_TYPE" else f"HTTP_{key}"] = value
        length = str(len(self.body)) if self.content_length is None else self.content_length
        if length:
            environ["CONTENT_LENGTH"] = length
        return environ


@dataclass(frozen=True)
class RawAnswer:
    """What the application answered; header names in lower case."""

    status: int
    headers: dict[str, str]
    body: bytes


def call(application: Any, request: RawRequest) -> RawAnswer:
    """Hand a request to the application; what it raises gets through."""
    started: list[Any] = []

    def start_response(status: str, headers: list[tuple[str, str]], error: Any = None) -> Any:
        if error is not None:
            raise error[1]
        started[:] = [status, headers]
        return lambda _data: None

    chunks = application(request.environ(), start_response)
    try:
        body = b"".join(chunks)
    finally:
        if hasattr(chunks, "close"):
            chunks.close()
    status, headers = started
    return RawAnswer(int(status[:3]), {name.lower(): value for name, value in headers}, body)
