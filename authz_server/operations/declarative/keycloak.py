"""Import the confidential clients of a Keycloak realm, as its export writes them.

A client of this server has a service account in Keycloak. The report names every client, member
and mapper that has no counterpart.
"""

from base64 import b64decode
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import msgspec
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.x509 import InvalidVersion, load_der_x509_certificate
from msgspec import Meta

from authz_server.clients.registered_keys import (
    check_assertion_algorithm,
    check_jwks,
    require_fitting_algorithm,
)
from authz_server.errors import InvalidChangeError
from authz_server.operations.declarative.imported import Draft, Imported
from authz_server.operations.declarative.parsing import parse_json, read_bounded
from authz_server.settings import LONGEST_LIFETIME_SECONDS
from keys.errors import KeysError
from keys.jose.jwk import public_jwk
from keys.jose.signatures import PublicKey

#: Clients that every realm has.
_OF_KEYCLOAK = frozenset(
    {
        "account",
        "account-console",
        "admin-cli",
        "broker",
        "realm-management",
        "security-admin-console",
    }
)
#: Client scopes that every realm has: OpenID Connect for people, and SAML.
_SCOPES_OF_KEYCLOAK = frozenset(
    {
        "acr",
        "address",
        "basic",
        "email",
        "microprofile-jwt",
        "offline_access",
        "organization",
        "phone",
        "profile",
        "roles",
        "service_account",
        "web-origins",
    }
)
#: Realm roles that every user has.
_ROLES_OF_KEYCLOAK = frozenset({"offline_access", "uma_authorization"})
_ADD_KEYS = "add jwks or jwks_uri"
_METHODS = {
    "client-secret": "client_secret",
    "client-jwt": "private_key_jwt",
    "client-secret-jwt": "client_secret_jwt",
    "client-x509": "tls_client_auth",
}
#: Attributes that carry over, or whose effect is that of the entry itself.
_KNOWN_ATTRIBUTES = frozenset(
    {
        "access.token.lifespan",
        "client.secret.creation.time",
        "dpop.bound.access.tokens",
        "jwks.string",
        "jwks.url",
        "jwt.credential.certificate",
        "realm_client",
        "tls.client.certificate.bound.access.tokens",
        "token.endpoint.auth.signing.alg",
        "use.jwks.string",
        "use.jwks.url",
        "x509.subjectdn",
    }
)
_MASKED = "**********"

_Texts = tuple[str, ...]
_Objects = tuple[dict[str, Any], ...]


class _Scope(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """A client scope."""

    name: str
    description: str | None = None
    protocol: str = "openid-connect"
    protocol_mappers: _Objects | None = ()


class _Client(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """A client; members without an effect here are not listed."""

    client_id: Annotated[str, Meta(max_length=1_000)]
    name: str | None = None
    description: str | None = None
    enabled: bool | None = True
    protocol: str | None = "openid-connect"
    client_authenticator_type: str | None = "client-secret"
    secret: str | None = None
    bearer_only: bool | None = False
    public_client: bool | None = False
    service_accounts_enabled: bool | None = False
    standard_flow_enabled: bool | None = False
    implicit_flow_enabled: bool | None = False
    direct_access_grants_enabled: bool | None = False
    full_scope_allowed: bool | None = False
    redirect_uris: _Texts | None = ()
    web_origins: _Texts | None = ()
    attributes: dict[str, Any] | None = {}
    protocol_mappers: _Objects | None = ()
    default_client_scopes: _Texts | None = ()
    optional_client_scopes: _Texts | None = ()
    authorization_services_enabled: bool | None = False


class _User(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """A user: the one of a service account has the roles of its client."""

    service_account_client_id: str | None = None
    realm_roles: _Texts | None = ()
    client_roles: dict[str, _Texts] | None = {}


class _Realm(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """A realm."""

    clients: tuple[_Client, ...]
    client_scopes: tuple[_Scope, ...] | None = ()
    users: tuple[_User, ...] | None = ()


def import_keycloak(path: Path) -> Imported:
    """Return the confidential clients of a realm's export, and the scopes that they name.

    Args:
        path: the export of a realm, or of one client.

    Raises:
        InvalidChangeError: the file is neither.
        OSError: it cannot be read.
    """
    value = parse_json(read_bounded(path), str(path))
    if isinstance(value, list):
        problem = "it is a list, as of several realms: export each to a file"
        raise InvalidChangeError(f"{path}: it is not a realm of Keycloak: {problem}")
    if isinstance(value, dict) and "clientId" in value:
        value = {"clients": [value]}
    try:
        realm = msgspec.convert(value, _Realm)
    except msgspec.ValidationError as error:
        raise InvalidChangeError(f"{path}: it is not a realm of Keycloak: {error}") from error
    draft = Draft()
    scopes = {scope.name: scope for scope in realm.client_scopes or ()}
    for client in realm.clients:
        if client.client_id not in _OF_KEYCLOAK:
            _add_client(draft, client, scopes)
    for user in realm.users or ():
        client_id, roles = user.service_account_client_id or "", _own_roles(user)
        if roles and client_id in draft.clients:
            lost = f"the roles of its service account do not carry over: {', '.join(roles)}"
            draft.note(client_id, lost)
    return draft.finish()


def _own_roles(user: _User) -> list[str]:
    """Return the roles beside those that every user has, with the clients that they belong to."""
    roles = [
        role
        for role in user.realm_roles or ()
        if role not in _ROLES_OF_KEYCLOAK and not role.startswith("default-roles-")
    ]
    for client_id, names in (user.client_roles or {}).items():
        roles += [f"{client_id}/{name}" for name in names if client_id != "account"]
    return sorted(roles)


def _add_client(draft: Draft, client: _Client, scopes: Mapping[str, _Scope]) -> None:
    reason = _why_left_out(client)
    if reason:
        draft.note(client.client_id, f"left out: {reason}")
        return
    if not draft.usable_id(client.client_id, client.client_id):
        return
    attributes = client.attributes or {}
    method = _METHODS.get(client.client_authenticator_type or "client-secret")
    if method is None:
        draft.note(
            client.client_id,
            f"left out: it authenticates by {client.client_authenticator_type!r}",
        )
        return
    default = _scope_names(draft, client, client.default_client_scopes or (), scopes)
    optional = _scope_names(draft, client, client.optional_client_scopes or (), scopes)
    members: dict[str, Any] = {
        "name": draft.usable_name(client.client_id, client.name or ""),
        "authentication_method": method,
        "allowed_scopes": [*default, *optional],
        "default_scopes": default,
    }
    if client.enabled is False:
        members["enabled"] = False
    members |= _lifetime(draft, client.client_id, attributes)
    if properties := _properties(draft, client.client_id, attributes, method):
        members["properties"] = properties
    if method == "client_secret":
        _keep_secret(draft, client)
    elif method == "client_secret_jwt":
        draft.note(client.client_id, "a secret that signs assertions cannot be imported")
    for lost in _losses(client, attributes):
        draft.note(client.client_id, lost)
    draft.clients[client.client_id] = {
        name: value for name, value in members.items() if value != [] or name == "allowed_scopes"
    }


def _why_left_out(client: _Client) -> str:
    if client.protocol not in {None, "openid-connect"}:
        return f"it is a client of {client.protocol}"
    if client.bearer_only:
        return "it only verifies tokens; register it with `authz-server resource-server create`"
    if client.public_client:
        return "it is public: it has no credential"
    if not client.service_accounts_enabled:
        return "it has no service account: it acts for people alone"
    return ""


def _scope_names(
    draft: Draft, client: _Client, spellings: Sequence[str], scopes: Mapping[str, _Scope]
) -> list[str]:
    """Return the canonical names of client scopes, and declare those that are not shipped."""
    found = []
    for spelling in spellings:
        scope = scopes.get(spelling)
        if spelling in _SCOPES_OF_KEYCLOAK or (scope and scope.protocol != "openid-connect"):
            continue
        name = draft.scope_name(client.client_id, spelling)
        if name is None:
            continue
        found.append(name)
        if not draft.is_shipped(name) and name not in draft.scopes:
            draft.scopes[name] = _scope_members(draft, name, scope)
    return found


def _scope_members(draft: Draft, name: str, scope: _Scope | None) -> dict[str, Any]:
    draft.note(name, "Keycloak has no risk of a scope: it is 'write'; review it")
    if scope is None:
        return {}
    for mapper in scope.protocol_mappers or ():
        draft.note(name, _lost_mapper(mapper))
    description = scope.description or ""
    if not description.isprintable() or len(description) > 500:  # noqa: PLR2004 - the rule of scopes
        draft.note(name, "its description is not one line of up to 500 characters")
        return {}
    return {"description": description} if description else {}


def _lifetime(draft: Draft, client_id: str, attributes: Mapping[str, Any]) -> dict[str, int]:
    lifetime = str(attributes.get("access.token.lifespan") or "")
    is_number = lifetime.isascii() and lifetime.isdigit() and len(lifetime) <= 9  # noqa: PLR2004 - enough
    if is_number and 1 <= int(lifetime) <= LONGEST_LIFETIME_SECONDS:
        return {"token_lifetime_seconds": int(lifetime)}
    if lifetime:
        draft.note(client_id, f"its lifetime of tokens does not carry over: {lifetime:.50}")
    return {}


def _properties(
    draft: Draft, client_id: str, attributes: Mapping[str, Any], method: str
) -> dict[str, Any]:
    properties: dict[str, Any] = {}
    if attributes.get("use.jwks.url") == "true" and attributes.get("jwks.url"):
        properties["jwks_uri"] = attributes["jwks.url"]
    elif attributes.get("use.jwks.string") == "true" and attributes.get("jwks.string"):
        properties["jwks"] = _keys(draft, client_id, attributes["jwks.string"])
    elif method == "private_key_jwt" and attributes.get("jwt.credential.certificate"):
        properties["jwks"] = _certified_key(
            draft, client_id, attributes["jwt.credential.certificate"]
        )
    elif method == "private_key_jwt":
        draft.note(client_id, f"its key is not in the export as a JWK set: {_ADD_KEYS}")
    if algorithm := attributes.get("token.endpoint.auth.signing.alg"):
        properties |= _algorithm(draft, client_id, algorithm, method, properties)
    if method == "tls_client_auth":
        if attributes.get("x509.subjectdn"):
            properties["tls_client_auth_subject_dn"] = attributes["x509.subjectdn"]
            draft.note(client_id, "the subject of its certificate may be a regular expression")
        else:
            draft.note(client_id, "it has no subject: add tls_client_auth_subject_dn")
    for attribute, name in (
        ("dpop.bound.access.tokens", "dpop_bound_access_tokens"),
        (
            "tls.client.certificate.bound.access.tokens",
            "tls_client_certificate_bound_access_tokens",
        ),
    ):
        if attributes.get(attribute) == "true":
            properties[name] = True
    return {name: value for name, value in properties.items() if value is not None}


def _algorithm(
    draft: Draft, client_id: str, algorithm: object, method: str, properties: Mapping[str, Any]
) -> dict[str, Any]:
    """Return the one algorithm of its assertions, unless a rule for all clients refuses it."""
    try:
        found = {"token_endpoint_auth_signing_alg": check_assertion_algorithm(algorithm)}
        require_fitting_algorithm(method, {**properties, **found})
    except InvalidChangeError as error:
        draft.note(client_id, f"its algorithm does not carry over: {error}")
        return {}
    return found


def _keys(draft: Draft, client_id: str, text: object) -> Any:  # noqa: ANN401 - any JSON
    try:
        jwks = parse_json(str(text), "jwks.string")
    except InvalidChangeError:
        draft.note(client_id, f"its jwks.string is not JSON: {_ADD_KEYS}")
        return None
    return _usable(draft, client_id, "jwks.string", jwks)


def _certified_key(draft: Draft, client_id: str, text: object) -> Any:  # noqa: ANN401 - any JSON
    """Return the key of a certificate, without an id: Keycloak's is not in the export."""
    try:
        key = load_der_x509_certificate(b64decode("".join(str(text).split()))).public_key()
        jwk = dict(public_jwk(key)) if isinstance(key, PublicKey) else {}
    except (ValueError, TypeError, KeysError, UnsupportedAlgorithm, InvalidVersion):
        draft.note(client_id, f"its certificate cannot be read: {_ADD_KEYS}")
        return None
    return _usable(draft, client_id, "certificate", {"keys": [jwk]})


def _usable(draft: Draft, client_id: str, source: str, jwks: object) -> Any:  # noqa: ANN401 - any JSON
    """Return a JWK set; None if it breaks a rule, for which all clients of the file are refused."""
    try:
        check_jwks(jwks)
    except InvalidChangeError as error:
        draft.note(client_id, f"its {source} does not carry over: {error}: {_ADD_KEYS}")
        return None
    return jwks


def _keep_secret(draft: Draft, client: _Client) -> None:
    if not client.secret or client.secret == _MASKED:
        draft.note(client.client_id, "its secret is not in the export: it gets a new one")
    else:
        draft.secrets[client.client_id] = client.secret


def _losses(client: _Client, attributes: Mapping[str, Any]) -> Iterator[str]:
    """Yield what the client has and this server does not."""
    flows = {
        "the authorization code flow": client.standard_flow_enabled,
        "the implicit flow": client.implicit_flow_enabled,
        "the password grant": client.direct_access_grants_enabled,
        "authorization services": bool(client.authorization_services_enabled),
        "the roles of its full scope": client.full_scope_allowed,
    }
    for flow, enabled in flows.items():
        if enabled:
            yield f"{flow} does not carry over" if "roles" not in flow else f"{flow} are left out"
    if client.redirect_uris:
        yield f"{len(client.redirect_uris)} redirect URIs do not carry over"
    if client.web_origins:
        yield f"{len(client.web_origins)} web origins do not carry over"
    for mapper in client.protocol_mappers or ():
        yield _lost_mapper(mapper)
    unknown = sorted(
        name
        for name, value in attributes.items()
        if name not in _KNOWN_ATTRIBUTES and str(value or "").lower() not in {"", "false"}
    )
    if unknown:
        yield f"attributes do not carry over: {', '.join(unknown)}"


def _lost_mapper(mapper: Mapping[str, Any]) -> str:
    if mapper.get("protocolMapper") == "oidc-audience-mapper":
        return (
            f"the audience mapper {mapper.get('name')!r} does not carry over: the resource server "
            "that owns a scope is the audience"
        )
    return f"the mapper {mapper.get('name')!r} does not carry over"
