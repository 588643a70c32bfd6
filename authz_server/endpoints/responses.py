"""JSON responses that are never cached and carry a request id."""

import random
from base64 import urlsafe_b64encode
from collections.abc import Iterable
from http import HTTPStatus
from wsgiref.types import StartResponse, WSGIEnvironment

import msgspec

_encode = msgspec.json.Encoder().encode
_REQUEST_ID_BYTES = 12
_WITHOUT_BODY = frozenset({int(HTTPStatus.NO_CONTENT), int(HTTPStatus.NOT_MODIFIED)})
_STATUS_LINES = {int(status): f"{status.value} {status.phrase}" for status in HTTPStatus}


class Answer(msgspec.Struct):
    """A response that is a WSGI application, and so also a valid Flask response.

    Werkzeug's general response would take a quarter of the time of a token request.

    Attributes:
        status: the HTTP status.
        headers: all headers except ``Content-Length``.
        body: the body.
        length: the length of the body that a response to HEAD leaves out.
    """

    status: int
    headers: dict[str, str]
    body: bytes
    length: int | None = None

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Send the response (PEP 3333)."""
        sent = list(self.headers.items())
        if self.status != HTTPStatus.NO_CONTENT:
            sent.append(("Content-Length", str(len(self.body))))
        start_response(_STATUS_LINES[self.status], sent)
        return () if environ["REQUEST_METHOD"] == "HEAD" else (self.body,)

    def encode(self, date: bytes, *, connection: str = "", head: bool = False) -> bytes:
        """Return the response as an HTTP/1.1 message.

        Args:
            date: the ``Date`` field, with its line end.
            connection: the value of the ``Connection`` field; empty for none.
            head: leave the body out (RFC 9110, 9.3.2).
        """
        fields = "".join([f"{name}: {value}\r\n" for name, value in self.headers.items()])
        if connection:
            fields += f"Connection: {connection}\r\n"
        if self.status in _WITHOUT_BODY:
            # RFC 9110, 8.6: Content-Length would state the length of a document that is not sent.
            line = _STATUS_LINES[self.status].encode()
            return b"HTTP/1.1 %b\r\n%b%b\r\n" % (line, fields.encode("latin-1"), date)
        return b"HTTP/1.1 %b\r\n%b%bContent-Length: %d\r\n\r\n%b" % (
            _STATUS_LINES[self.status].encode(),
            fields.encode("latin-1"),
            date,
            len(self.body) if self.length is None else self.length,
            b"" if head else self.body,
        )


def new_request_id() -> str:
    """Return an id of 16 characters for one request and its records."""
    # Unique, not secret: os.urandom takes longer than rendering a response.
    return urlsafe_b64encode(random.randbytes(_REQUEST_ID_BYTES)).decode()  # noqa: S311 - see above


def private_answer(
    body: object, request_id: str, *, status: int = 200, headers: dict[str, str] | None = None
) -> Answer:
    """Return a JSON response that must not be cached (RFC 6749, 5.1).

    Args:
        body: encoded as JSON.
        request_id: sent as ``X-Request-Id``.
        status: the HTTP status.
        headers: further headers.

    Raises:
        ValueError: a further header holds a line break.
    """
    return private_bytes(_encode(body), "application/json", request_id, status, headers)


def private_bytes(
    body: bytes,
    content_type: str,
    request_id: str,
    status: int = 200,
    headers: dict[str, str] | None = None,
) -> Answer:
    """Return a response of any content type that must not be cached."""
    sent = {
        "Content-Type": content_type,
        "Cache-Control": "no-store",
        "Pragma": "no-cache",
        "X-Content-Type-Options": "nosniff",
        "X-Request-Id": request_id,
    }
    if headers:
        for value in headers.values():
            if "\n" in value or "\r" in value:
                raise ValueError("a header holds a line break")
        sent |= headers
    return Answer(status, sent, body)
