"""Flask routes of the protocol and discovery endpoints."""

from collections.abc import Iterable
from urllib.parse import urlsplit

from flask import Flask

from authz_server.endpoints.discovery import DiscoveryEndpoints
from authz_server.endpoints.responses import Answer
from authz_server.errors import OAuthError

METADATA = "/.well-known/oauth-authorization-server"
OPENID_METADATA = "/.well-known/openid-configuration"


def add_protocol_routes(app: Flask, prefix: str, paths: Iterable[str]) -> None:
    """Register the protocol endpoints with Flask, so that it answers other methods with 405."""
    for path in paths:
        app.add_url_rule(
            f"{prefix}{path}", endpoint=path, view_func=_answered_before, methods=["POST"]
        )


def add_discovery_routes(
    app: Flask, issuer: str, prefix: str, discovery: DiscoveryEndpoints
) -> None:
    """Serve the JWKS and the metadata.

    RFC 8414, 3.1 inserts the well-known part before the issuer's path, OpenID Connect Discovery
    1.0, 4 appends it. Clients use either form, so each document is served at both paths.
    """
    inserted = urlsplit(issuer).path
    app.add_url_rule(f"{prefix}/.well-known/jwks.json", endpoint="jwks", view_func=discovery.jwks)
    for name, path, view in (
        ("metadata", METADATA, discovery.metadata),
        ("openid_configuration", OPENID_METADATA, discovery.openid_configuration),
    ):
        for number, rule in enumerate(dict.fromkeys((f"{prefix}{path}", f"{path}{inserted}"))):
            app.add_url_rule(rule, endpoint=f"{name}_{number}", view_func=view)


def _answered_before() -> Answer:
    # The application answers these requests before Flask sees them.
    raise OAuthError("method_not_allowed")
