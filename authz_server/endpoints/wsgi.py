"""Convert a WSGI request (PEP 3333) to the request of the protocol endpoints."""

import logging
import re
import sys
from functools import lru_cache
from wsgiref.types import WSGIEnvironment

from authz_server.endpoints.request import Request
from authz_server.errors import OAuthError

logger = logging.getLogger(__name__)

#: The only header read here whose name has an underscore.
MESSAGE_ID = "message_id"
#: A path that no route has.
NOWHERE = "/%"
#: The name of the authenticated client's id in the environment, for the access log.
CLIENT_ID = "authz_server.client_id"
#: Where the refusal of a request stands whose header `serve` would refuse.
FAULT = "authz_server.fault"
#: Where the certificate that the peer has shown to this server's own TLS stands, in DER.
PEER_CERTIFICATE = "authz_server.peer_certificate"

# RFC 9112, 3.2: a name or an address, with an optional port.
_HOST = re.compile(r"(?:[A-Za-z0-9._~-]+|\[[0-9A-Fa-f:.]+\])(?::[0-9]{1,5})?")
_ODD = re.compile(r"[%#]|//|/\.\.?(?:/|\Z)")
#: RFC 9112, 3.2.2: a target with its host. The path may be empty, also before a query.
ABSOLUTE = re.compile(r"https?://([^/?#]+)([/?][^#]*)?", re.IGNORECASE | re.ASCII)
_ORIGIN = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://[^/]*")


def read_headers(environ: WSGIEnvironment) -> dict[str, str]:
    """Return the request's header fields by lower-case name.

    WSGI does not distinguish ``-`` and ``_`` in names. Each name gets hyphens, except
    ``message_id``.
    """
    headers = {}
    for key, value in environ.items():
        if key.startswith("HTTP_"):
            name = key[5:].lower().replace("_", "-")
            headers[MESSAGE_ID if name == "message-id" else name] = value
        elif key in {"CONTENT_TYPE", "CONTENT_LENGTH"} and value:
            headers[key.lower().replace("_", "-")] = value
    return headers


def read_head(environ: WSGIEnvironment) -> Request:
    """Return the request without its body."""
    return Request(
        method=environ["REQUEST_METHOD"],
        path=environ.get("PATH_INFO", ""),
        query=environ.get("QUERY_STRING", ""),
        headers=read_headers(environ),
        peer=str(environ.get("REMOTE_ADDR", "")),
        peer_certificate=environ.get(PEER_CERTIFICATE),
    )


def read_request(environ: WSGIEnvironment, maximum_body_bytes: int) -> Request:
    """Return the request with its whole body.

    If :func:`prepare` refused the header, or the body cannot be read or is too large, the error
    becomes the request's ``fault``.

    Args:
        environ: from a server that has checked the message's framing.
        maximum_body_bytes: the largest accepted body.
    """
    request = read_head(environ)
    request.fault = environ.get(FAULT)
    if request.fault is not None:
        return request
    try:
        request.body = _read_body(environ, maximum_body_bytes)
    except OAuthError as fault:
        request.fault = fault
    return request


@lru_cache(64)
def is_host(text: str) -> bool:
    """Return whether ``text`` is a valid ``Host`` (RFC 9112, 3.2)."""
    return _HOST.fullmatch(text) is not None


def read_path(environ: WSGIEnvironment) -> str:
    """Return the path of a request; :data:`NOWHERE` for one that no route can have."""
    if has_odd_path(environ):
        return NOWHERE
    path: str = environ.get("PATH_INFO", "")
    if not path.startswith("/"):
        # uWSGI leaves an absolute target as it is.
        path = _ORIGIN.sub("", path, count=1)
    return path if path.startswith("/") else NOWHERE


def has_odd_path(environ: WSGIEnvironment) -> bool:
    """Return whether the path, as sent, has percent-encoding, doubled slashes or dot segments.

    No route needs them, nor a fragment, and a filtering proxy in front may interpret such a path
    differently. Some servers resolve them in ``PATH_INFO``.
    """
    target = environ.get("RAW_URI") or environ.get("REQUEST_URI") or environ.get("PATH_INFO", "")
    path = target.partition("?")[0]
    if not path.startswith("/"):
        path = _ORIGIN.sub("", path, count=1)
    return _ODD.search(path) is not None


def read_host(environ: WSGIEnvironment) -> str:
    """Return the host that the request names, in lower case; empty without one.

    RFC 9112, 3.2.2: that of an absolute target counts.
    """
    target = environ.get("RAW_URI") or environ.get("REQUEST_URI") or ""
    found = None if target.startswith("/") else _ORIGIN.match(target)
    host: str = found[0].partition("//")[2] if found else environ.get("HTTP_HOST", "")
    return host.lower()


def prepare(environ: WSGIEnvironment) -> None:
    """Note in the environment of a WSGI server why ``serve`` would refuse the header, if it would.

    A protocol endpoint refuses such a request in its own form; others read no body.
    """
    if "REQUEST_METHOD" not in environ:
        # uWSGI passes messages without a request line on.
        environ |= {"REQUEST_METHOD": "", "PATH_INFO": NOWHERE}
        return
    try:
        _require_host(environ)
        _is_chunked(environ)
    except OAuthError as fault:
        environ[FAULT] = fault


def _require_host(environ: WSGIEnvironment) -> None:
    """Raise OAuthError for a host that is malformed, or missing in HTTP/1.1 (RFC 9112, 3.2).

    Some servers pass an absolute target on, whose host counts.
    """
    host = environ.get("HTTP_HOST")
    if not (environ.get("SERVER_PROTOCOL") != "HTTP/1.1" if host is None else is_host(host)):
        raise OAuthError("host_malformed")
    target = environ.get("RAW_URI") or environ.get("REQUEST_URI") or ""
    if target.startswith("/") or not _ORIGIN.match(target):
        return
    absolute = ABSOLUTE.fullmatch(target)
    if absolute is None:
        raise OAuthError("message_malformed", "an absolute target")
    if not is_host(absolute[1]):
        raise OAuthError("host_malformed")


def _read_body(environ: WSGIEnvironment, limit: int) -> bytes:
    declared = environ.get("CONTENT_LENGTH") or ""
    is_chunked = _is_chunked(environ)
    if not declared and not is_chunked:
        return b""
    if declared:
        # RFC 9110, 8.6: only digits.
        if not (declared.isascii() and declared.isdigit()):
            raise OAuthError("parameter_malformed", "content length")
        declared = declared.lstrip("0") or "0"
        if len(declared) > len(str(limit)) or int(declared) > limit:
            raise OAuthError("body_too_large")
        limit = int(declared)
    try:
        body = _read_input(environ, limit if declared else limit + 1)
    except OAuthError:
        raise
    except Exception as error:  # servers raise exceptions of their own for a malformed body
        logger.info("the body of a request cannot be read: %s", type(error).__name__)
        raise OAuthError("parameter_malformed", "the body ended early") from error
    if declared and len(body) < limit:
        raise OAuthError("parameter_malformed", "the body ended early")
    if len(body) > limit:
        raise OAuthError("body_too_large")
    return body


def _is_chunked(environ: WSGIEnvironment) -> bool:
    """Return whether the body is chunked; raise OAuthError if another server may read it otherwise.

    Some servers pass a body with further codings, and a chunked one in HTTP/1.0.
    """
    coding: str | None = environ.get("HTTP_TRANSFER_ENCODING")
    if coding is None:
        return False
    if coding.strip(" \t").lower() != "chunked" or environ.get("SERVER_PROTOCOL") == "HTTP/1.0":
        raise OAuthError("message_malformed", "transfer coding")
    if environ.get("CONTENT_LENGTH"):
        raise OAuthError("message_malformed", "a length and a transfer coding")
    return True


def _read_input(environ: WSGIEnvironment, size: int) -> bytes:
    """Return the body, up to ``size`` bytes or a little more."""
    if environ.get("CONTENT_LENGTH") or environ.get("wsgi.input_terminated"):
        body: bytes = environ["wsgi.input"].read(size)
        return body
    # The stream of uWSGI does not end by itself. Its module exists only in its processes.
    read_chunk = getattr(sys.modules.get("uwsgi"), "chunked_read", None)
    if read_chunk is None:
        raise OAuthError("message_malformed", "transfer coding")
    chunks = b""
    while len(chunks) < size and (chunk := read_chunk()):
        chunks += chunk
    return chunks
