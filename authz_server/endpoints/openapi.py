"""The OpenAPI 3.1 document, built from the enabled features."""

from typing import Any
from urllib.parse import urlsplit

from authz_server import __version__
from authz_server.endpoints.discovery import Features
from authz_server.endpoints.forms import FORM_TYPE
from authz_server.endpoints.introspection import JWT_TYPE
from authz_server.endpoints.openapi_answers import (
    document_refusals,
    form_refusals,
    headers,
    private_headers,
    public_headers,
    refusal_responses,
)
from authz_server.endpoints.openapi_schemas import reference, schemas
from authz_server.endpoints.routes import METADATA, OPENID_METADATA
from authz_server.settings import G2PSettings

Part = dict[str, Any]

_ABOUT = """\
Scoped access tokens for machines: issue, introspect, revoke.

Every answer has an `X-Request-Id`. Forms are read strictly: each parameter once (`resource` \
excepted), an empty one counts as absent, and a query string is refused where a form belongs. Any \
address that is not listed here answers 404 with the members of `Error`.\
"""
_HEALTH_SERVER = [{"url": "/", "description": "The health listener, which serves this document."}]


def describe_interface(features: Features, g2p: G2PSettings) -> Part:
    """Return the OpenAPI document, with the addresses that clients use.

    Args:
        features: the enabled features; the issuer is the server's address.
        g2p: the options of the G2P Connect profile.
    """
    return {
        "openapi": "3.1.0",
        "info": {"title": "authz-server", "version": __version__, "description": _ABOUT},
        "servers": [{"url": features.issuer}],
        "tags": [{"name": name} for name in ("tokens", "discovery", "health")],
        "paths": _form_paths(features, g2p) | _document_paths(features.issuer) | _health_paths(),
        "components": {
            "schemas": schemas(features, g2p),
            "headers": headers(),
            "responses": refusal_responses(g2p=features.g2p),
            "securitySchemes": {
                "client_secret_basic": {
                    "type": "http",
                    "scheme": "basic",
                    "description": "RFC 6749, 2.3.1; plain and form-encoded pairs are understood. "
                    "The other way is `client_secret_post`: `client_id` and `client_secret` in "
                    "the form. A client uses the method that it is registered for.",
                }
            },
        },
    }


def _form_paths(features: Features, g2p: G2PSettings) -> Part:
    paths = {"/oauth2/token": _token()}
    if features.g2p:
        paths["/oauth2/client/token"] = _g2p_token(g2p)
    if features.introspection:
        paths["/oauth2/introspect"] = _introspection(signed=features.signed_introspection)
    if features.revocation:
        paths["/oauth2/revoke"] = _revocation()
    return paths


def _post(summary: str, form: str, responses: Part, **further: object) -> Part:
    body = {"required": True, "content": {FORM_TYPE: {"schema": reference(form)}}}
    operation = {
        "tags": ["tokens"],
        "summary": summary,
        # The empty alternative: the secret may be in the form.
        "security": [{"client_secret_basic": []}, {}],
        "requestBody": body,
        "responses": responses,
    }
    return {"post": operation | further}


def _json_answer(description: str, schema: str, sent: Part) -> Part:
    content = {"application/json": {"schema": reference(schema)}}
    return {"description": description, "headers": sent, "content": content}


def _token() -> Part:
    issued = _json_answer("The token.", "TokenAnswer", private_headers())
    return _post(
        "Get an access token (RFC 6749, 4.4)",
        "TokenRequest",
        {"200": issued} | form_refusals(token=True),
        operationId="token",
    )


def _g2p_token(g2p: G2PSettings) -> Part:
    issued = _json_answer("The token.", "G2PTokenAnswer", private_headers("message_id"))
    return _post(
        "Get an access token (G2P Connect)",
        "TokenRequest",
        {"200": issued} | form_refusals(g2p=True, token=True),
        operationId="g2p_connect_token",
        parameters=_g2p_parameters(g2p),
    )


def _g2p_parameters(g2p: G2PSettings) -> list[Part]:
    return [
        {
            "name": "timestamp",
            "in": "header",
            "required": g2p.timestamp_required,
            "description": f"An HTTP date within {g2p.timestamp_window_seconds} seconds of now.",
            "schema": {"type": "string"},
        },
        {
            "name": "message_id",
            "in": "header",
            "description": "Comes back in the answer and is kept in records.",
            "schema": {
                "type": "string",
                "maxLength": g2p.maximum_message_id_bytes,
                "pattern": "^[A-Za-z0-9._:@/+=~-]*$",
            },
        },
        {
            "name": "Accept-Language",
            "in": "header",
            "description": f"Of `errors[].message`; {g2p.default_language} without it.",
            "schema": {"type": "string"},
        },
    ]


def _introspection(*, signed: bool) -> Part:
    answer = _json_answer(
        "The members that the caller may see.", "IntrospectionAnswer", private_headers()
    )
    if signed:
        answer["content"][JWT_TYPE] = {
            "schema": {
                "type": "string",
                "description": "The same in a signed JWT (RFC 9701), for callers whose Accept "
                "names this type.",
            }
        }
    return _post(
        "Introspect a token (RFC 7662)",
        "TokenPresented",
        {"200": answer} | form_refusals(),
        operationId="introspect",
    )


def _revocation() -> Part:
    revoked = {
        "description": "The token is revoked, expired or unknown.",
        "headers": private_headers(),
        "content": {"application/json": {"schema": {"type": "object", "maxProperties": 0}}},
    }
    return _post(
        "Revoke one of the client's own tokens (RFC 7009)",
        "TokenPresented",
        {"200": revoked} | form_refusals(),
        operationId="revoke",
    )


def _document_paths(issuer: str) -> Part:
    """Return the public documents, and the metadata also at the path of RFC 8414, 3.1."""
    paths = {
        "/.well-known/jwks.json": _document(
            "The public keys (RFC 7517)", "JWKSet", "jwks", "application/jwk-set+json"
        )
    }
    parts = urlsplit(issuer)
    origin = [{"url": f"{parts.scheme}://{parts.netloc}"}]
    for path, schema, name, summary in (
        (METADATA, "Metadata", "metadata", "Server metadata (RFC 8414)"),
        (
            OPENID_METADATA,
            "OpenIDMetadata",
            "openid_metadata",
            "Server metadata for OpenID clients",
        ),
    ):
        paths[path] = _document(summary, schema, name)
        if parts.path:
            inserted = _document(summary, schema, f"{name}_inserted")
            paths[f"{path}{parts.path}"] = inserted | {"servers": origin}
    return paths


def _document(summary: str, schema: str, name: str, content_type: str = "application/json") -> Part:
    validators = [
        {"name": "If-None-Match", "in": "header", "schema": {"type": "string"}},
        {"name": "If-Match", "in": "header", "schema": {"type": "string"}},
    ]
    answer = {
        "description": "The document.",
        "headers": public_headers(),
        "content": {content_type: {"schema": reference(schema)}},
    }
    unchanged = {"description": "It has not changed.", "headers": public_headers()}
    return {
        "get": {
            "tags": ["discovery"],
            "summary": summary,
            "operationId": name,
            "parameters": validators,
            "security": [],
            "responses": {"200": answer, "304": unchanged} | document_refusals(400, 405, 412, 503),
        }
    }


def _health_paths() -> Part:
    description = {
        "description": "OpenAPI 3.1.",
        "headers": private_headers(),
        "content": {"application/json": {"schema": {"type": "object"}}},
    }
    live = _json_answer("The process runs.", "Live", private_headers())
    ready = _json_answer("The server can answer requests.", "Ready", private_headers())
    not_ready = _json_answer(
        "Not ready; `failed` lists the failed checks.", "NotReady", private_headers()
    )
    return {
        "/health/live": _health("Liveness", "live", {"200": live}),
        "/health/ready": _health("Readiness", "ready", {"200": ready, "503": not_ready}),
        "/openapi.json": _health("This description", "describe", {"200": description}),
    }


def _health(summary: str, name: str, responses: Part) -> Part:
    return {
        "servers": _HEALTH_SERVER,
        "get": {
            "tags": ["health"],
            "summary": summary,
            "operationId": name,
            "security": [],
            "responses": responses | document_refusals(400, 405),
        },
    }
