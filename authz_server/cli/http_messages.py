"""What the WSGI server lets through and no endpoint must see: messages that can be read two ways.

Granian refuses most of them by itself. It does take a chunked body that breaks off, or whose chunks
are malformed, for a complete one; it hands on a request without a host or with several; and the
application would read ``post`` as POST. So bodies must say how long they are, the host must be one,
and methods are those that exist.
"""

import re
from collections.abc import Iterable, MutableMapping
from typing import NamedTuple
from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

from authz_server.endpoints.answers import new_request_id, private_answer

METHODS = frozenset({"DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT"})
# RFC 9112, 3.2: exactly one, a name or an address with perhaps a port.
_HOST = re.compile(r"(?:[A-Za-z0-9._~-]+|\[[0-9A-Fa-f:.]+\])(?::[0-9]{1,5})?", re.ASCII)


class Refusal(NamedTuple):
    """Why a message is refused: status, and the text for the sender."""

    status: int
    description: str


UNKNOWN_METHOD = Refusal(405, "This method is not allowed here.")
NO_LENGTH = Refusal(411, "Send the body with a Content-Length and without a transfer coding.")
BAD_HOST = Refusal(400, "The request must name exactly one host.")


class MessageRules:
    """A WSGI application in front of another: it answers what the other must not see.

    Args:
        application: gets everything else.
    """

    def __init__(self, application: WSGIApplication) -> None:
        self._application = application

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Pass the request on, or refuse it."""
        refusal = find_refusal(environ)
        if refusal is None:
            return self._application(environ, start_response)
        body = {"error": "invalid_request", "error_description": refusal.description}
        answer = private_answer(body, new_request_id(), status=refusal.status)
        return answer(environ, start_response)


def find_refusal(environ: WSGIEnvironment) -> Refusal | None:
    """Return why the request is refused, None when it is not."""
    if environ["REQUEST_METHOD"] not in METHODS:
        return UNKNOWN_METHOD
    if "HTTP_TRANSFER_ENCODING" in environ:
        return NO_LENGTH
    if not _HOST.fullmatch(environ.get("HTTP_HOST", "")):
        return BAD_HOST
    return None


def forget_headers_in_environment(variables: MutableMapping[str, str]) -> None:
    """Remove environment variables that the WSGI server would pass on as headers of each request.

    ``HTTP_PROXY`` stays: it is the one that has a meaning of its own, and no endpoint reads it.
    """
    for name in list(variables):
        if name.startswith(("HTTP_", "CONTENT_")) and name != "HTTP_PROXY":
            del variables[name]
