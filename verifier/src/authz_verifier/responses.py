"""Refusals as HTTP responses, and protected resource metadata (RFC 9728)."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal
from urllib.parse import urlsplit

from authz_verifier.dpop import PROOF_ALGORITHMS
from authz_verifier.errors import UNAVAILABLE, Refusal

RESOURCE_WELL_KNOWN = "/.well-known/oauth-protected-resource"
Envelope = Literal["oauth", "g2p"]


@dataclass(frozen=True, slots=True)
class Response:
    """A response to send instead of the application's.

    Attributes:
        status: the HTTP status.
        headers: its headers; `WWW-Authenticate` may occur twice.
        body: JSON.
    """

    status: int
    headers: tuple[tuple[str, str], ...]
    body: bytes


@dataclass(frozen=True, slots=True)
class Responses:
    """Renders refusals and the metadata of one API.

    Args:
        issuer: the authorization server.
        audience: the identifier of the API.
        envelope: `oauth` for RFC 6750 errors in JSON, `g2p` for the HTTP error of
            G2P Connect.
        bearer_allowed: whether tokens that are not bound to a key are accepted.
        certificates: whether the API knows its callers' certificates.
    """

    issuer: str
    audience: str
    envelope: Envelope = "oauth"
    bearer_allowed: bool = True
    certificates: bool = False

    def refuse(self, refusal: Refusal) -> Response:
        """Return the response for a refusal (RFC 6750, 3; RFC 9449, 7.1; RFC 9728, 5.1)."""
        headers = [("Content-Type", "application/json"), ("Cache-Control", "no-store")]
        if refusal.status != UNAVAILABLE:
            headers += [("WWW-Authenticate", each) for each in self.challenges(refusal)]
        if refusal.retry_after_seconds is not None:
            headers.append(("Retry-After", str(refusal.retry_after_seconds)))
        return Response(refusal.status, tuple(headers), json.dumps(self._body(refusal)).encode())

    def challenges(self, refusal: Refusal) -> list[str]:
        """Return the values of `WWW-Authenticate`, one for each accepted scheme."""
        shared = [("resource_metadata", self.resource_metadata_url)]
        if refusal.error:
            shared += [("error", refusal.error), ("error_description", refusal.description)]
        if refusal.scopes:
            shared.append(("scope", " ".join(refusal.scopes)))
        proof = [*shared, ("algs", " ".join(PROOF_ALGORITHMS))]
        if refusal.error == "invalid_dpop_proof" or not self.bearer_allowed:
            return [_challenge("DPoP", proof)]
        return [_challenge("Bearer", shared), _challenge("DPoP", proof)]

    @property
    def resource_metadata_path(self) -> str:
        """The path of the metadata document (RFC 9728, 3.1); empty if the API has no URL."""
        parts = urlsplit(self.audience)
        if parts.scheme not in ("http", "https") or not parts.netloc or parts.query:
            return ""
        # The slash after the host alone is removed.
        return f"{RESOURCE_WELL_KNOWN}{'' if parts.path == '/' else parts.path}"

    @property
    def resource_metadata_url(self) -> str:
        """The address of the metadata document; empty if the API has no URL."""
        path = self.resource_metadata_path
        parts = urlsplit(self.audience)
        return f"{parts.scheme}://{parts.netloc}{path}" if path else ""

    def resource_metadata(self, scopes: Sequence[str]) -> dict[str, Any]:
        """Return the protected resource metadata (RFC 9728, 2)."""
        members: dict[str, Any] = {
            "resource": self.audience,
            "authorization_servers": [self.issuer],
            "bearer_methods_supported": ["header"],
            "dpop_signing_alg_values_supported": list(PROOF_ALGORITHMS),
        }
        if scopes:
            members["scopes_supported"] = sorted(scopes)
        if not self.bearer_allowed:
            members["dpop_bound_access_tokens_required"] = True
        if self.certificates:
            members["tls_client_certificate_bound_access_tokens"] = True
        return members

    def metadata_response(self, scopes: Sequence[str]) -> Response:
        """Return the response of the metadata document."""
        headers = (("Content-Type", "application/json"), ("Cache-Control", "max-age=300"))
        return Response(200, headers, json.dumps(self.resource_metadata(scopes)).encode())

    def _body(self, refusal: Refusal) -> dict[str, Any]:
        code = refusal.error or "unauthorized"
        if self.envelope == "g2p":
            return {"errors": [{"code": code, "message": refusal.description}]}
        return {"error": code, "error_description": refusal.description}


def _challenge(scheme: str, parameters: list[tuple[str, str]]) -> str:
    written = ", ".join(f'{name}="{value}"' for name, value in parameters if value)
    return f"{scheme} {written}" if written else scheme
