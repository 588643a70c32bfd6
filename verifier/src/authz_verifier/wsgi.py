"""The skin for WSGI applications."""

from collections.abc import Callable, Iterable
from http import HTTPStatus
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from authz_verifier.context import current_token, serving
from authz_verifier.errors import Refusal
from authz_verifier.events import MAXIMUM_EVENT_CHARACTERS
from authz_verifier.requests import Request
from authz_verifier.responses import Response
from authz_verifier.verifier import Verifier

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

__all__ = ["current_token", "event_receiver", "read_event", "read_request", "requires"]

#: The accepted token in the environment.
TOKEN_KEY = "authz_verifier.token"  # noqa: S105 - the name of a variable
_DEFAULT_PORTS = {"http": "80", "https": "443"}


def requires(*scopes: str, verifier: Verifier) -> "Callable[[WSGIApplication], WSGIApplication]":
    """Return a decorator of a WSGI application that serves only requests with these scopes.

    The application finds the token by `current_token()` or as `environ["authz_verifier.token"]`;
    while it produces a body lazily, by the latter alone.
    """
    verifier.scopes.update(scopes)

    def guard(application: "WSGIApplication") -> "WSGIApplication":
        def guarded(environ: "WSGIEnvironment", start: "StartResponse") -> Iterable[bytes]:
            document = verifier.metadata_response(environ.get("PATH_INFO", ""))
            method = environ["REQUEST_METHOD"]
            if document is not None and method in ("GET", "HEAD"):
                return _send(document, start, method)
            try:
                token = verifier.authenticate(read_request(environ, verifier), *scopes)
            except Refusal as refusal:
                return _send(verifier.respond(refusal), start, method)
            environ[TOKEN_KEY] = token
            with serving(token):
                return application(environ, start)

        return guarded

    return guard


def event_receiver(verifier: Verifier) -> "WSGIApplication":
    """Return a WSGI application that receives pushed security events (RFC 8935)."""

    def receive(environ: "WSGIEnvironment", start: "StartResponse") -> Iterable[bytes]:
        if environ["REQUEST_METHOD"] != "POST":
            return _send(Response(405, (("Allow", "POST"),), b""), start, "POST")
        content_type = environ.get("CONTENT_TYPE", "")
        return _send(verifier.receive_event(read_event(environ), content_type), start, "POST")

    return receive


def read_event(environ: dict[str, Any]) -> bytes:
    """Return the body of a request, cut off above the largest event."""
    longest, length = MAXIMUM_EVENT_CHARACTERS + 1, environ.get("CONTENT_LENGTH") or "0"
    wanted = min(int(length), longest) if length.isascii() and length.isdigit() else 0
    if not wanted and environ.get("wsgi.input_terminated"):
        # A body in chunks states no length; this server ends it.
        wanted = longest
    body: bytes = environ["wsgi.input"].read(wanted)
    return body


def read_request(environ: dict[str, Any], verifier: Verifier) -> Request:
    """Return what a WSGI environment states about a request.

    A server joins repeated headers by commas, which no token and no proof contains.
    """
    header = verifier.settings.certificate_header
    return Request(
        method=environ["REQUEST_METHOD"],
        url=_url(environ),
        authorization=_values(environ.get("HTTP_AUTHORIZATION")),
        proofs=_values(environ.get("HTTP_DPOP")),
        certificate=environ.get("HTTP_" + header.upper().replace("-", "_"), "") if header else "",
    )


def _values(header: str | None) -> tuple[str, ...]:
    return () if header is None else (header,)


def _url(environ: dict[str, Any]) -> str:
    scheme = environ["wsgi.url_scheme"]
    host = environ.get("HTTP_HOST")
    if not host:
        port = environ["SERVER_PORT"]
        ending = "" if port == _DEFAULT_PORTS.get(scheme) else f":{port}"
        host = f"{environ['SERVER_NAME']}{ending}"
    path = environ.get("SCRIPT_NAME", "") + environ.get("PATH_INFO", "")
    return f"{scheme}://{host}{quote(path.encode('latin-1'), safe='/')}"


def _send(response: Response, start: "StartResponse", method: str) -> Iterable[bytes]:
    length = ("Content-Length", str(len(response.body)))
    start(f"{response.status} {HTTPStatus(response.status).phrase}", [*response.headers, length])
    # Some servers do not cut the body off, and it would begin the next response.
    return [] if method == "HEAD" else [response.body]
