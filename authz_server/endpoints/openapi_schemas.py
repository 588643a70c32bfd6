"""Schemas of requests and responses (JSON Schema 2020-12) for the OpenAPI document."""

from typing import Any

from authz_server.endpoints.discovery import Features
from authz_server.errors import REASONS
from authz_server.settings import G2PSettings
from authz_server.tokens.authorization import MAXIMUM_RESOURCES
from authz_server.tokens.binding import BEARER, DPOP
from keys.jose.algorithms import ALGORITHMS

Schema = dict[str, Any]

_BASE64URL = {"type": "string", "pattern": "^[A-Za-z0-9_-]+$"}
_URI = {"type": "string", "format": "uri"}
_SECONDS = {"type": "integer", "minimum": 0, "description": "Seconds since 1970 UTC."}
_NAMES = {"type": "array", "items": {"type": "string"}, "uniqueItems": True}


def reference(name: str) -> Schema:
    """Return a reference to the named schema."""
    return {"$ref": f"#/components/schemas/{name}"}


def schemas(features: Features, g2p: G2PSettings) -> dict[str, Schema]:
    """Return every named schema of the enabled features."""
    found = {
        "Error": _error(),
        "TokenRequest": _token_request(features),
        "TokenAnswer": _token_answer(BEARER, {"type": "integer", "minimum": 1}),
        "Metadata": _metadata(features),
        "OpenIDMetadata": _openid_metadata(),
        "JWK": _jwk(),
        "JWKSet": _object({"keys": {"type": "array", "minItems": 1, "items": reference("JWK")}}),
        "Live": _object({"status": {"const": "live"}}),
        "Ready": _readiness("ready", {"maxItems": 0}),
        "NotReady": _readiness("not ready", {"minItems": 1}),
    }
    if features.g2p:
        found["G2PTokenAnswer"] = _token_answer(g2p.token_type, _g2p_lifetime(g2p))
        found["G2PError"] = _g2p_error()
    if features.introspection:
        found["InactiveToken"] = _object({"active": {"const": False}})
        found["ActiveToken"] = _active_token()
        found["IntrospectionAnswer"] = {
            "oneOf": [reference("InactiveToken"), reference("ActiveToken")]
        }
    if features.introspection or features.revocation:
        found["TokenPresented"] = _token_presented()
    return found


def _object(properties: Schema, *, optional: Schema | None = None, more: bool = False) -> Schema:
    found: Schema = {
        "type": "object",
        "properties": properties | (optional or {}),
        "required": list(properties),
    }
    return found if more else found | {"additionalProperties": False}


def _error_members() -> Schema:
    return {
        "error": {
            "type": "string",
            "enum": list(dict.fromkeys(reason.error for reason in REASONS.values())),
        },
        "error_description": {
            "type": "string",
            "description": "English, for developers; never an echo of the request.",
            "pattern": r"^[\x20-\x21\x23-\x5B\x5D-\x7E]+$",
        },
    }


def _error() -> Schema:
    return _object(_error_members()) | {"description": "RFC 6749, 5.2."}


def _g2p_error() -> Schema:
    code = {"type": "string", "description": "The same as `error`."}
    message = {"type": "string", "description": "In the language that Content-Language names."}
    errors = {
        "type": "array",
        "minItems": 1,
        "maxItems": 1,
        "items": _object({"code": code, "message": message}),
    }
    return _object(_error_members() | {"errors": errors}) | {
        "description": "The members of RFC 6749, 5.2 and those of the G2P Connect interface."
    }


def _secret_in_form() -> Schema:
    return {
        "client_id": {
            "type": "string",
            "description": "With a Basic header, only the same value.",
        },
        "client_secret": {"type": "string", "description": "Only without a Basic header."},
    }


def _token_request(features: Features) -> Schema:
    resource = {
        "type": "array",
        # Identifiers are compared as text, so that any text is valid here.
        "items": {"type": "string"},
        "description": (
            "Resource servers' identifiers, one parameter each (RFC 8707), "
            f"at most {MAXIMUM_RESOURCES}; an empty one counts as absent."
        ),
    }
    scope = {
        "type": "string",
        "description": "Names of the catalogue or their aliases, separated by blanks; without "
        "it the client's default scopes.",
    }
    grant_type = {"type": "string", "enum": list(features.grant_types)}
    return _object(
        {"grant_type": grant_type},
        optional=_secret_in_form() | {"scope": scope, "resource": resource},
        more=True,
    )


def _token_answer(token_type: str, expires_in: Schema) -> Schema:
    return _object(
        {
            "access_token": {"type": "string", "pattern": r"^[A-Za-z0-9._-]+$"},
            "token_type": {"enum": list(dict.fromkeys([token_type, BEARER, DPOP]))},
            "expires_in": expires_in | {"description": "Seconds."},
            "scope": {"type": "string", "minLength": 1},
        }
    )


def _g2p_lifetime(g2p: G2PSettings) -> Schema:
    if g2p.expires_in == "string":
        return {"type": "string", "pattern": "^[1-9][0-9]*$"}
    return {"type": "integer", "minimum": 1}


def _token_presented() -> Schema:
    hint = {"type": "string", "description": "Ignored, as RFC 7009, 2.2.1 allows."}
    return _object(
        {"token": {"type": "string", "minLength": 1}},
        optional=_secret_in_form() | {"token_type_hint": hint},
        more=True,
    )


def _active_token() -> Schema:
    audience = {
        "oneOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}, "minItems": 2}]
    }
    members = {
        "active": {"const": True},
        "scope": {"type": "string", "description": "The scopes that the caller may see."},
        "client_id": {"type": "string"},
        "sub": {"type": "string"},
        "aud": audience,
        "iss": _URI,
        "exp": _SECONDS,
        "iat": _SECONDS,
        "jti": {"type": "string"},
        "token_type": {"enum": [BEARER, DPOP]},
    }
    confirmation = {"cnf": {"type": "object", "description": "RFC 7800."}}
    return _object(members, optional=confirmation, more=True) | {
        "description": "RFC 7662, 2.2; plugins may add members of other names."
    }


def _metadata(features: Features) -> Schema:
    methods = {"const": list(features.authentication_methods)}
    members: Schema = {
        "issuer": {"const": features.issuer},
        "token_endpoint": _URI,
        "token_endpoint_auth_methods_supported": methods,
        "jwks_uri": _URI,
        "grant_types_supported": {"const": list(features.grant_types)},
        "response_types_supported": {"type": "array", "maxItems": 0},
    }
    switched = {
        "g2p_connect_token_endpoint": features.g2p,
        "introspection_endpoint": features.introspection,
        "revocation_endpoint": features.revocation,
    }
    for name, is_on in switched.items():
        if is_on:
            members[name] = _URI
            if name != "g2p_connect_token_endpoint":
                members[f"{name}_auth_methods_supported"] = methods
    # Left out where it would be empty (RFC 8414, 3.2).
    optional: Schema = {"scopes_supported": _NAMES}
    if features.introspection and features.signed_introspection:
        optional["introspection_signing_alg_values_supported"] = _NAMES
    return _object(members, optional=optional, more=True) | {"description": "RFC 8414, 2."}


def _openid_metadata() -> Schema:
    further = _object(
        {
            "subject_types_supported": {"const": ["public"]},
            "id_token_signing_alg_values_supported": _NAMES,
        },
        more=True,
    )
    return {
        "description": "The metadata of RFC 8414 with the members that OpenID Connect Discovery "
        "1.0, 3 requires; the server issues no ID tokens.",
        "allOf": [reference("Metadata"), further],
    }


def _jwk() -> Schema:
    members = {
        "kty": {"enum": sorted({each.kty for each in ALGORITHMS.values()})},
        "kid": {"type": "string", "description": "The thumbprint (RFC 7638)."},
        "use": {"const": "sig"},
        "alg": {"enum": list(ALGORITHMS)},
    }
    curves = {"enum": sorted({each.crv for each in ALGORITHMS.values() if each.crv})}
    further = dict.fromkeys(("x", "y", "n", "e", "pub"), _BASE64URL)
    return _object(members, optional={"crv": curves} | further) | {
        "description": "A public key (RFC 7517); never a private member."
    }


def _readiness(status: str, failed: Schema) -> Schema:
    reasons: Schema = {"type": "object", "additionalProperties": {"type": "string"}}
    return _object(
        {"status": {"const": status}, "failed": _NAMES | failed}, optional={"reasons": reasons}
    )
