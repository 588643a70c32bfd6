"""An OpenID Connect provider in this process, which tells the truth or lies as a test wants."""

import base64
import json
import secrets
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self
from urllib.parse import parse_qs, urlsplit

import jwt
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key

CLIENT_ID = "console"
CLIENT_SECRET = "a secret with + and % in it"


class LyingProvider:
    """A context manager.

    Attributes:
        claims: replace claims of the ID token; None takes one away.
        metadata: replace members of the metadata, likewise.
        userinfo: the answer of the UserInfo endpoint.
        sign: makes the ID token of some claims.
        further_keys: what its key set has beside its key.
        replies: raw bodies with their status by path, instead of the proper answers.
        delay_seconds: how long the token endpoint waits, after the first byte.
        token_requests: the forms that reached the token endpoint.
    """

    def __init__(self) -> None:
        self.key = generate_private_key(SECP256R1())
        provider = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                provider.answer(self)

            def do_POST(self) -> None:
                provider.answer(self)

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.issuer = f"http://localhost:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))
        self.reset()

    def reset(self) -> None:
        """Tell the truth."""
        self.claims: dict[str, Any] = {}
        self.metadata: dict[str, Any] = {}
        self.userinfo: dict[str, Any] = {}
        self.replies: dict[str, tuple[int, bytes]] = {}
        self.further_keys: list[object] = []
        self.delay_seconds = 0.0
        self.token_requests: list[dict[str, list[str]]] = []
        self.sign = self._sign
        self._codes: dict[str, dict[str, str]] = {}

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def authorise(self, url: str) -> dict[str, str]:
        """Return the parameters with which the browser comes back from the authorization URL."""
        asked = {name: values[0] for name, values in parse_qs(urlsplit(url).query).items()}
        code = secrets.token_urlsafe(8)
        self._codes[code] = asked
        return {"code": code, "state": asked["state"], "iss": self.issuer}

    def answer(self, handler: BaseHTTPRequestHandler) -> None:
        """Answer a request."""
        path = urlsplit(handler.path).path
        sent = handler.rfile.read(int(handler.headers.get("Content-Length", 0)))
        if path in self.replies:
            status, body = self.replies[path]
        else:
            status, members = self._members(path, sent, handler.headers.get("Authorization", ""))
            body = json.dumps(members).encode()
        handler.send_response(status)
        handler.send_header("Content-Type", "application/json")
        handler.send_header("Cache-Control", "no-store")
        handler.send_header("Content-Length", str(len(body)))
        handler.end_headers()
        try:
            if path == "/token" and self.delay_seconds:
                self._drip(handler, body)
            else:
                handler.wfile.write(body)
        except OSError:
            pass

    def _drip(self, handler: BaseHTTPRequestHandler, body: bytes) -> None:
        end = time.monotonic() + self.delay_seconds
        for position in range(len(body)):
            handler.wfile.write(body[position : position + 1])
            handler.wfile.flush()
            if time.monotonic() > end:
                break
            time.sleep(0.2)

    def _members(self, path: str, sent: bytes, authorization: str) -> tuple[int, Any]:
        if path == "/.well-known/openid-configuration":
            return 200, self._described()
        if path == "/jwks":
            key = json.loads(jwt.algorithms.ECAlgorithm.to_jwk(self.key.public_key()))
            own = {**key, "kid": "1", "use": "sig", "alg": "ES256"}
            return 200, {"keys": [*self.further_keys, own]}
        if path == "/userinfo":
            return 200, self.userinfo
        if path == "/token":
            form = parse_qs(sent.decode())
            self.token_requests.append(form)
            return self._token(form, authorization)
        return 404, {}

    def _described(self) -> dict[str, Any]:
        usual = {
            "issuer": self.issuer,
            "authorization_endpoint": f"{self.issuer}/authorize",
            "token_endpoint": f"{self.issuer}/token",
            "jwks_uri": f"{self.issuer}/jwks",
            "userinfo_endpoint": f"{self.issuer}/userinfo",
            "id_token_signing_alg_values_supported": ["ES256", "HS256", "none"],
            "authorization_response_iss_parameter_supported": True,
        }
        return {name: each for name, each in (usual | self.metadata).items() if each is not None}

    def _token(self, form: dict[str, list[str]], authorization: str) -> tuple[int, Any]:
        asked = self._codes.pop(form.get("code", [""])[0], None)
        expected = f"{CLIENT_ID}:a+secret+with+%2B+and+%25+in+it".encode()
        if base64.b64decode(authorization.removeprefix("Basic ")) != expected:
            return 401, {"error": "invalid_client"}
        if asked is None:
            return 400, {"error": "invalid_grant"}
        now = int(time.time())
        usual = {
            "iss": self.issuer,
            "sub": "person-1",
            "aud": CLIENT_ID,
            "iat": now,
            "exp": now + 300,
            "auth_time": now,
            "nonce": asked["nonce"],
            "preferred_username": "ada",
            "groups": ["security"],
            "amr": ["pwd", "otp"],
        }
        claims = {name: each for name, each in (usual | self.claims).items() if each is not None}
        token = {"access_token": "an-access-token", "token_type": "Bearer", "expires_in": 300}
        return 200, {**token, "id_token": self.sign(claims)}

    def _sign(self, claims: dict[str, Any]) -> str:
        return jwt.encode(claims, self.key, algorithm="ES256", headers={"kid": "1"})
