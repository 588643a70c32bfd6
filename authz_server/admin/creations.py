"""The keys of requests that are not carried out twice (``Idempotency-Key``)."""

import hmac
from hashlib import sha256

import msgspec

from authz_server.admin.calls import Call
from authz_server.admin.problems import Problem
from authz_server.admin.route_kinds import Route
from authz_server.endpoints.request import Request

_MAXIMUM_KEY_CHARACTERS = 255

_encode = msgspec.json.Encoder(order="deterministic").encode


def creation_key(route: Route, call: Call, request: Request) -> tuple[bytes, bytes] | None:
    """Return the digests of a creation's key and of its request; None without a key.

    Raises:
        Problem: ``invalid-request``: the key is malformed.
    """
    key = _idempotency_key(request)
    if not key or route.repeat is None or call.dry_run:
        return None
    digest = sha256(_encode([call.caller.key, call.path, key])).digest()
    # Keyed: the body may hold a secret, which a reader of the database must not be able to try.
    pepper = call.services.settings.clients.secret_pepper.reveal()
    content = b"idempotency\0" + _encode(call.body)
    if call.control is not None and call.control.break_glass:
        # A repetition that is to be done at once is another request than one that waits.
        content += b"\0break_glass"
    return digest, hmac.digest(pepper, content, "sha256")


def _idempotency_key(request: Request) -> str:
    key = request.headers.get("idempotency-key", "")
    if not key.isprintable() or len(key) > _MAXIMUM_KEY_CHARACTERS:
        detail = f"Idempotency-Key: use at most {_MAXIMUM_KEY_CHARACTERS} printable characters."
        raise Problem("invalid-request", detail)
    return key
