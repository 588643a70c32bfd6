"""The description of the interface (OpenAPI 3.1), made from what is switched on."""

from typing import Any

from authz_server.endpoints.discovery import Features


def describe_interface(features: Features, mount_prefix: str) -> dict[str, Any]:
    """Return the OpenAPI document."""
    return {
        "openapi": "3.1.0",
        "info": {"title": "authz-server", "version": "0.1.0"},
        "servers": [{"url": features.issuer}],
        "paths": {f"{mount_prefix}/oauth2/token": {}},
    }
