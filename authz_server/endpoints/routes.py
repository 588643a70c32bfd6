"""Flask routes of the protocol and discovery endpoints."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from urllib.parse import urlsplit

from flask import Flask

from authz_server.endpoints.discovery import DiscoveryEndpoints
from authz_server.endpoints.protocol import ProtocolEndpoint
from authz_server.endpoints.responses import Answer
from authz_server.errors import OAuthError

#: The name of a resource; generated ids need no other characters.
_NAME = re.compile(r"[A-Za-z0-9_-]{1,128}")
METADATA = "/.well-known/oauth-authorization-server"
OPENID_METADATA = "/.well-known/openid-configuration"


@dataclass(frozen=True, slots=True)
class Resources:
    """The resources below a path, which have methods other than POST.

    Attributes:
        path: the path, with a slash at its end.
        methods: the methods.
        endpoint: answers them; None: there are no resources.
    """

    path: str = ""
    methods: frozenset[str] = frozenset()
    endpoint: ProtocolEndpoint | None = None

    def find(self, method: str, path: str) -> ProtocolEndpoint | None:
        """Return the endpoint if ``path`` is a resource and ``method`` one of the methods."""
        if method not in self.methods or not path.startswith(self.path):
            return None
        return self.endpoint if _NAME.fullmatch(path, len(self.path)) else None


NO_RESOURCES = Resources()


def add_resource_routes(app: Flask, resources: Resources) -> None:
    """Register the resources with Flask, so that it answers other methods with 405."""
    if resources.endpoint is not None:
        app.add_url_rule(
            f"{resources.path}<client_id>",
            endpoint=resources.path,
            view_func=_answered_before,
            methods=sorted(resources.methods),
        )


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


def _answered_before(client_id: str = "") -> Answer:
    # The application answers these requests before Flask sees them, except for a name that no
    # resource has.
    raise OAuthError("not_found" if client_id else "method_not_allowed")
