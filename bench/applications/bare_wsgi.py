"""The lower floor: a WSGI application that reads the body and answers fixed bytes of JSON."""

import json
from collections.abc import Iterable
from wsgiref.types import StartResponse, WSGIEnvironment

from bench.applications.answers import INTROSPECTION, TOKEN

_BODIES = {
    "/token": json.dumps(TOKEN | {"scope": "mapper/link"}, separators=(",", ":")).encode(),
    "/introspect": json.dumps(INTROSPECTION, separators=(",", ":")).encode(),
}


def application(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """Answer as a token endpoint or an introspection endpoint does."""
    form = environ["wsgi.input"].read(int(environ["CONTENT_LENGTH"]))
    assert form
    body = _BODIES[environ["PATH_INFO"]]
    headers = [
        ("Content-Type", "application/json"),
        ("Content-Length", str(len(body))),
        ("Cache-Control", "no-store"),
    ]
    start_response("200 OK", headers)
    return [body]
