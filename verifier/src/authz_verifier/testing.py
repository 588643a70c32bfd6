"""An authorization server for tests: on loopback, in a thread, with tokens on demand."""

import hashlib
import json
import secrets
import ssl
import threading
import time
import zlib
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import islice
from typing import Any, Self
from urllib.parse import parse_qs

from authz_verifier.compact import encode_segment
from authz_verifier.introspection import MAXIMUM_INTROSPECTED_CHARACTERS
from authz_verifier.signing import SigningKey

DEFAULT_AUDIENCE = "https://api.example"
#: The number of tokens in the status list.
LIST_SIZE = 65_536


class LocalIssuer:
    """An issuer whose keys, tokens and failures a test decides. A context manager.

    Args:
        algorithm: of its first key.
        audience: the `aud` of its tokens.

    Attributes:
        url: its identifier, an address on loopback.
        keys: the published keys; the last one signs.
        is_down: whether it answers 503 to everything.
        fetches: how many times its keys were fetched.
        introspections: how many tokens were introspected.
        introspection_refusal: the status and the body that introspection answers instead.
        maximum_age_seconds: `max-age` of its documents.
        age_seconds: `Age` of its documents, as of a cache in front.
        status_list: the claims of its status list; a test may bend them.
        list_fetches: how many times the status list was fetched.
        polls: the polls that it received.
        poll_languages: the `Content-Language` of each, or None.
        events: security event tokens to poll, by `jti`, until they are acknowledged.
    """

    def __init__(self, algorithm: str = "ES256", audience: str = DEFAULT_AUDIENCE) -> None:
        self.audience = audience
        self.keys = [SigningKey(algorithm)]
        self.is_down = False
        self.fetches = 0
        self.introspections = 0
        self.introspection_refusal: tuple[int, bytes] | None = None
        self.maximum_age_seconds = 300
        self.age_seconds = 0
        self.status_list: dict[str, Any] = {"ttl": 60}
        self.list_fetches = 0
        self.events: dict[str, str] = {}
        self.polls: list[dict[str, Any]] = []
        self.poll_languages: list[str | None] = []
        self._statuses = bytearray(LIST_SIZE // 4)
        self._indexes: dict[str, int] = {}
        self._revoked: set[str] = set()
        self._issued: dict[str, Mapping[str, Any]] = {}
        self._lock = threading.Lock()
        self._server = _Server(("127.0.0.1", 0), _handler(self))
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(0.01,), daemon=True
        )

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def serve_tls(self, context: ssl.SSLContext) -> None:
        """Serve https with a certificate in place of http."""
        self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        self.url = self.url.replace("http:", "https:")

    def claims(self, scope: str = "", **changes: Any) -> dict[str, Any]:  # noqa: ANN401
        """Return the claims of a token; a change to None takes a claim away."""
        return make_claims(self.url, self.audience, scope, **changes)

    def token(
        self,
        scope: str = "",
        *,
        key: SigningKey | None = None,
        header: Mapping[str, Any] | None = None,
        proof_key: SigningKey | None = None,
        **changes: Any,  # noqa: ANN401
    ) -> str:
        """Return an access token.

        Args:
            scope: its scopes, separated by spaces.
            key: the key that signs; None: the last published one.
            header: changed members of the header; None takes one away.
            proof_key: the DPoP key that it is bound to.
            changes: changed claims; None takes one away.
        """
        if proof_key is not None:
            changes.setdefault("cnf", {"jkt": proof_key.thumbprint})
        index = len(self._indexes)
        place = {"idx": index, "uri": f"{self.url}/status-lists/1"}
        claims = self.claims(scope, **{"status": {"status_list": place}, **changes})
        token = (key or self.keys[-1]).sign(claims, {"typ": "at+jwt"} | dict(header or {}))
        self._issued[token] = claims
        self._indexes[token] = index
        return token

    def authorization(self, scope: str = "", **changes: Any) -> dict[str, str]:  # noqa: ANN401
        """Return the headers of a request with a bearer token."""
        return {"Authorization": f"Bearer {self.token(scope, **changes)}"}

    def rotate(self, algorithm: str = "ES256", *, keep: bool = True) -> SigningKey:
        """Publish a new key that signs; without `keep`, withdraw the earlier ones."""
        self.keys = [*(self.keys if keep else []), SigningKey(algorithm)]
        return self.keys[-1]

    def revoke(self, token: str) -> None:
        """Make introspection answer that a token is inactive, and its status list too."""
        self._revoked.add(token)
        self.set_status(token, 1)

    def set_status(self, token: str, status: int) -> None:
        """Set the status of a token: 0 valid, 1 invalid, 2 suspended, 3 of the application."""
        index = self._indexes[token]
        shift = index % 4 * 2
        self._statuses[index // 4] = self._statuses[index // 4] & ~(3 << shift) | status << shift

    def signed_list(self) -> str:
        """Return the status list token, with the changes of `status_list`."""
        now = int(time.time())
        packed = encode_segment(zlib.compress(bytes(self._statuses), 9)).decode()
        usual = {
            "sub": f"{self.url}/status-lists/1",
            "iat": now,
            "exp": now + 600,
            "status_list": {"bits": 2, "lst": packed},
        }
        claims = {name: value for name, value in (usual | self.status_list).items() if value}
        return self.keys[-1].sign(claims, {"typ": "statuslist+jwt"})

    def event(
        self,
        *,
        key: SigningKey | None = None,
        typ: str = "secevent+jwt",
        **changes: Any,  # noqa: ANN401
    ) -> str:
        """Return a security event token; a change to None takes a claim away."""
        usual = {
            "iss": self.url,
            "aud": [self.audience],
            "iat": int(time.time()),
            "jti": secrets.token_urlsafe(16),
            "events": {"https://schemas.openid.net/secevent/oauth/event-type/token-revoked": {}},
        }
        claims = {name: value for name, value in (usual | changes).items() if value is not None}
        return (key or self.keys[-1]).sign(claims, {"typ": typ})

    def announce(self, token: str) -> None:
        """Let recipients poll an event."""
        self.events[secrets.token_urlsafe(8)] = token

    def document(self, path: str) -> dict[str, Any] | None:
        """Return the document at a path, or None."""
        if path == "/.well-known/oauth-authorization-server":
            return {
                "issuer": self.url,
                "token_endpoint": f"{self.url}/token",
                "jwks_uri": f"{self.url}/jwks",
                "introspection_endpoint": f"{self.url}/introspect",
                "security_event_endpoint": f"{self.url}/security-events",
            }
        if path == "/jwks":
            with self._lock:
                self.fetches += 1
            return {"keys": [key.public_jwk for key in self.keys]}
        return None

    def poll(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """Return the response to a poll (RFC 8936, 2.3)."""
        for jti in [*request.get("ack", []), *request.get("setErrs", {})]:
            self.events.pop(jti, None)
        self.polls.append(dict(request))
        shown = dict(islice(self.events.items(), request.get("maxEvents")))
        return {"sets": shown, "moreAvailable": len(shown) < len(self.events)}

    def introspect(self, token: str) -> dict[str, Any]:
        """Return the introspection response for a token (RFC 7662, 2.2)."""
        with self._lock:
            self.introspections += 1
        claims = self._issued.get(token)
        if claims is None or token in self._revoked or claims.get("exp", 0) < time.time():
            return {"active": False}
        return {"active": True, **claims}


def make_claims(issuer: str, audience: str, scope: str, **changes: Any) -> dict[str, Any]:  # noqa: ANN401
    """Return the claims of a token for 15 minutes; a change to None takes a claim away."""
    now = int(time.time())
    usual = {
        "iss": issuer,
        "sub": "test-client",
        "client_id": "test-client",
        "aud": audience,
        "iat": now,
        "exp": now + 900,
        "jti": secrets.token_urlsafe(16),
        "scope": scope,
    }
    return {name: value for name, value in (usual | changes).items() if value is not None}


def proof(
    key: SigningKey,
    method: str,
    url: str,
    token: str,
    *,
    header: Mapping[str, Any] | None = None,
    **changes: Any,  # noqa: ANN401
) -> str:
    """Return a DPoP proof for a request to an API (RFC 9449, 4.2).

    Args:
        key: the client's key.
        method: of the request.
        url: of the request, without query.
        token: the access token.
        header: changed members of the header; None takes one away.
        changes: changed claims; None takes one away.
    """
    usual = {
        "jti": secrets.token_urlsafe(16),
        "htm": method,
        "htu": url,
        "iat": int(time.time()),
        "ath": encode_segment(hashlib.sha256(token.encode()).digest()).decode(),
    }
    claims = {name: value for name, value in (usual | changes).items() if value is not None}
    members = {"typ": "dpop+jwt", "jwk": key.bare_jwk, "kid": None} | dict(header or {})
    return key.sign(claims, members)


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    #: Connections that wait while many requests begin at once.
    request_queue_size = 128


def _handler(issuer: LocalIssuer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        # Head and body in one packet.
        wbufsize = -1
        timeout = 10

        def do_GET(self) -> None:
            if self.path == "/status-lists/1" and not issuer.is_down:
                issuer.list_fetches += 1
                self._send_bytes(200, issuer.signed_list().encode(), "application/statuslist+jwt")
                return
            self._send(None if issuer.is_down else issuer.document(self.path))

        def do_POST(self) -> None:
            form = self.rfile.read(int(self.headers.get("Content-Length", "0")))
            if self.path == "/security-events" and not issuer.is_down:
                issuer.poll_languages.append(self.headers["Content-Language"])
                self._send(issuer.poll(json.loads(form)))
                return
            token = parse_qs(form.decode()).get("token", [""])[0]
            known = self.path == "/introspect" and not issuer.is_down
            if known and len(token) > MAXIMUM_INTROSPECTED_CHARACTERS:
                self._send_bytes(400, b'{"error": "invalid_request"}', "application/json")
                return
            if known and issuer.introspection_refusal is not None:
                self._send_bytes(*issuer.introspection_refusal, "application/json")
                return
            self._send(issuer.introspect(token) if known else None)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            """Print nothing: the signature is the library's."""

        def _send(self, document: dict[str, Any] | None) -> None:
            missing = 503 if issuer.is_down else 404
            status = 200 if document is not None else missing
            self._send_bytes(status, json.dumps(document).encode(), "application/json")

        def _send_bytes(self, status: int, body: bytes, content_type: str) -> None:
            self.send_response(status)
            self.send_header("Content-Type", content_type)
            self.send_header("Content-Length", str(len(body)))
            self.send_header("Cache-Control", f"max-age={issuer.maximum_age_seconds}")
            self.send_header("Age", str(issuer.age_seconds))
            self.end_headers()
            self.wfile.write(body)

    return Handler
