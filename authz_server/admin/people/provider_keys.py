"""Credentials of this server at the provider: a secret, or a signed JWT (RFC 7523)."""

import json
import secrets
import time
from base64 import b64encode
from collections.abc import Callable
from typing import Any
from urllib.parse import quote_plus, urlencode

from authz_server.operations.provider_key import load_provider_key
from authz_server.settings.operators import OpenIDSettings
from keys.jose.algorithms import get_algorithm
from keys.jose.compact import encode_segment
from keys.jose.signatures import make_signer

_ASSERTION_TYPE = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
_ASSERTION_SECONDS = 60

#: Adds the credentials of a client to a request of Authlib: client, method, URL, headers, body.
Authenticate = Callable[[Any, str, str, dict[str, str], str], tuple[str, dict[str, str], str]]


def make_authentication(settings: OpenIDSettings) -> Authenticate:
    """Return the function that authenticates a token request.

    Raises:
        SettingsError: the private key cannot be used.
    """
    if settings.private_key is not None:
        return _private_key_jwt(settings.private_key.reveal())
    secret = settings.client_secret.reveal() if settings.client_secret is not None else b""
    return _client_secret_basic(secret)


def _client_secret_basic(secret: bytes) -> Authenticate:
    def authenticate(
        client: Any,  # noqa: ANN401 - one of the library's
        _method: str,
        uri: str,
        headers: dict[str, str],
        body: str,
    ) -> tuple[str, dict[str, str], str]:
        # RFC 6749, 2.3.1: both are encoded as in a form.
        pair = f"{quote_plus(client.client_id)}:{quote_plus(secret)}"
        headers["Authorization"] = f"Basic {b64encode(pair.encode()).decode()}"
        return uri, headers, body

    return authenticate


def _private_key_jwt(pem: bytes) -> Authenticate:
    key, alg = load_provider_key(pem)
    sign = make_signer(key, get_algorithm(alg))
    # Without a kid: each provider names the registered key in its own way, and there is one.
    head = encode_segment(json.dumps({"alg": alg, "typ": "JWT"}).encode()) + b"."

    def authenticate(
        client: Any,  # noqa: ANN401 - one of the library's
        _method: str,
        uri: str,
        headers: dict[str, str],
        body: str,
    ) -> tuple[str, dict[str, str], str]:
        now = int(time.time())
        claims = {
            "iss": client.client_id,
            "sub": client.client_id,
            "aud": uri,
            "jti": secrets.token_urlsafe(16),
            "iat": now,
            "exp": now + _ASSERTION_SECONDS,
        }
        signed = head + encode_segment(json.dumps(claims).encode())
        assertion = (signed + b"." + encode_segment(sign(signed))).decode()
        added = urlencode(
            {
                "client_id": client.client_id,
                "client_assertion_type": _ASSERTION_TYPE,
                "client_assertion": assertion,
            }
        )
        body = f"{body}&{added}" if body else added
        headers.pop("Content-Length", None)
        return uri, headers, body

    return authenticate
