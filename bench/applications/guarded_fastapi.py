"""An endpoint of FastAPI without a guard, or with authz-verifier."""

from typing import Any

from fastapi import FastAPI

from authz_verifier import AsyncVerifier
from authz_verifier.starlette import current_token, protect, requires
from bench.applications.guard import AUDIENCE, GUARD, ISSUER, SCOPE, SETTINGS

application = FastAPI()

if GUARD:
    protect(application, AsyncVerifier(ISSUER, AUDIENCE, **SETTINGS))

    @application.post("/")
    @requires(SCOPE)
    async def answer() -> dict[str, Any]:
        """Name the client."""
        return {"client": current_token().client_id}

else:

    @application.post("/")
    async def answer() -> dict[str, Any]:
        """Name a client."""
        return {"client": "ministry"}
