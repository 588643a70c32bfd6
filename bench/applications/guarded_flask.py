"""A view of Flask without a guard, or with authz-verifier, or with Authlib's ResourceProtector."""

from typing import Any

import httpx
from authlib.integrations.flask_oauth2 import ResourceProtector, current_token
from authlib.oauth2.rfc9068 import JWTBearerTokenValidator
from flask import Flask
from joserfc.jwk import KeySet

import authz_verifier.flask as kit
from authz_verifier import Verifier
from bench.applications.guard import AUDIENCE, GUARD, ISSUER, SCOPE, SETTINGS

application = Flask(__name__)


class _Validator(JWTBearerTokenValidator):
    def __init__(self) -> None:
        super().__init__(ISSUER, AUDIENCE)
        metadata = httpx.get(f"{ISSUER}/.well-known/oauth-authorization-server").json()
        self._keys = KeySet.import_key_set(httpx.get(metadata["jwks_uri"]).json())

    def get_jwks(self) -> KeySet:
        return self._keys


if GUARD == "authz-verifier":
    kit.protect(application, Verifier(ISSUER, AUDIENCE, **SETTINGS))

    @application.post("/")
    @kit.requires(SCOPE)
    def answer() -> dict[str, Any]:
        """Name the client."""
        return {"client": kit.current_token().client_id}

elif GUARD == "Authlib":
    require = ResourceProtector()
    require.register_token_validator(_Validator())

    @application.post("/")
    @require([SCOPE])
    def answer() -> dict[str, Any]:
        """Name the client."""
        return {"client": current_token["client_id"]}

else:

    @application.post("/")
    def answer() -> dict[str, Any]:
        """Name a client."""
        return {"client": "ministry"}
