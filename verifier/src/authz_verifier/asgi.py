"""The skin for ASGI applications."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from typing import Any
from urllib.parse import quote

from authz_verifier.context import current_token, serving
from authz_verifier.errors import Refusal
from authz_verifier.events import MAXIMUM_EVENT_CHARACTERS
from authz_verifier.requests import Request
from authz_verifier.responses import Response
from authz_verifier.verifier import AsyncVerifier

__all__ = ["current_token", "event_receiver", "read_request", "requires"]

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]


def requires(*scopes: str, verifier: AsyncVerifier) -> Callable[[Application], Application]:
    """Return a decorator of an ASGI application that serves only requests with these scopes.

    Lifespan events pass. A websocket is guarded like a request: a refusal closes it (403).
    """
    verifier.scopes.update(scopes)

    def guard(application: Application) -> Application:
        async def guarded(scope: Scope, receive: Receive, send: Send) -> None:
            if scope["type"] == "lifespan":
                await application(scope, receive, send)
                return
            document = verifier.metadata_response(scope["path"])
            if document is not None and scope.get("method") in ("GET", "HEAD"):
                await _send(document, send)
                return
            try:
                token = await verifier.authenticate(read_request(scope, verifier), *scopes)
            except Refusal as refusal:
                if scope["type"] == "websocket":
                    await send({"type": "websocket.close", "code": 1008})
                else:
                    await _send(verifier.respond(refusal), send)
                return
            with serving(token):
                await application(scope, receive, send)

        return guarded

    return guard


def event_receiver(verifier: AsyncVerifier) -> Application:
    """Return an ASGI application that receives pushed security events (RFC 8935)."""

    async def receive_event(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] != "POST":
            await _send(Response(405, (("Allow", "POST"),), b""), send)
            return
        body, more = b"", True
        while more and len(body) <= MAXIMUM_EVENT_CHARACTERS:
            message = await receive()
            body += message.get("body", b"")
            more = message.get("more_body", False)
        types = [value for name, value in scope["headers"] if name.lower() == b"content-type"]
        content_type = types[0].decode("latin-1") if types else ""
        # It may wait for the keys.
        await _send(await asyncio.to_thread(verifier.receive_event, body, content_type), send)

    return receive_event


def read_request(scope: Mapping[str, Any], verifier: AsyncVerifier) -> Request:
    """Return what an ASGI scope states about a request."""
    headers = [(name.lower(), value.decode("latin-1")) for name, value in scope["headers"]]

    def values(wanted: bytes) -> tuple[str, ...]:
        return tuple(value for name, value in headers if name == wanted)

    header = verifier.settings.certificate_header.lower().encode()
    certificates = values(header) if header else ()
    return Request(
        method=scope.get("method", "GET"),
        url=_url(scope, values(b"host")),
        authorization=values(b"authorization"),
        proofs=values(b"dpop"),
        certificate=certificates[0] if len(certificates) == 1 else "",
    )


def _url(scope: Mapping[str, Any], hosts: tuple[str, ...]) -> str:
    # A server may leave the scheme out.
    scheme = scope.get("scheme", "http").replace("ws", "http")
    server = scope.get("server") or ("", None)
    host = hosts[0] if hosts else f"{server[0]}:{server[1]}"
    raw = scope.get("raw_path")
    path = raw.decode("latin-1") if raw else quote(scope["path"])
    return f"{scheme}://{host}{path}"


async def _send(response: Response, send: Send) -> None:
    headers = [(name.lower().encode(), value.encode()) for name, value in response.headers]
    headers.append((b"content-length", str(len(response.body)).encode()))
    await send({"type": "http.response.start", "status": response.status, "headers": headers})
    await send({"type": "http.response.body", "body": response.body})
