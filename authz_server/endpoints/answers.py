"""How answers leave: JSON, never cached, each with its request id."""

import os
from base64 import urlsafe_b64encode

import msgspec
from flask import Response

_encode = msgspec.json.Encoder().encode
_REQUEST_ID_BYTES = 12


def new_request_id() -> str:
    """Return an id of 16 characters for one request and its records."""
    return urlsafe_b64encode(os.urandom(_REQUEST_ID_BYTES)).decode()


def private_answer(
    body: object, request_id: str, *, status: int = 200, headers: dict[str, str] | None = None
) -> Response:
    """Return a JSON answer that nobody may keep (RFC 6749, 5.1).

    Args:
        body: encoded as JSON.
        request_id: sent as ``X-Request-Id``.
        status: the HTTP status.
        headers: further headers.
    """
    return private_bytes(_encode(body), "application/json", request_id, status, headers)


def private_bytes(
    body: bytes,
    content_type: str,
    request_id: str,
    status: int = 200,
    headers: dict[str, str] | None = None,
) -> Response:
    """Return an answer of any type that nobody may keep."""
    sent = {
        "Content-Type": content_type,
        "Cache-Control": "no-store",
        "Pragma": "no-cache",
        "X-Content-Type-Options": "nosniff",
        "X-Request-Id": request_id,
    }
    if headers:
        sent.update(headers)
    return Response(body, status, sent)
