"""The acts that the console offers: for each its request to the admin API and its form."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from authz_server.admin.console import act_bodies as bodies
from authz_server.admin.console.act_kinds import Act, Field, FieldKind, Values
from authz_server.admin.console.rendering import link


def _client(values: Values) -> str:
    """Return the page of a client; the list if it has no id."""
    return link("/clients/client", id=values["id"]) if values.get("id") else "/clients"


def _clients(_: Values) -> str:
    return "/clients"


def _registrations(_: Values) -> str:
    return "/clients/registration"


def _keys(_: Values) -> str:
    return "/keys"


def _tokens(_: Values) -> str:
    return "/tokens"


def _apis(_: Values) -> str:
    return "/apis"


def _api(values: Values) -> str:
    """Return the page of an API; the list before it is registered."""
    return link("/apis/api", id=values["id"]) if values.get("id") else "/apis"


def _scope(values: Values) -> str:
    return link("/apis/scope", name=values.get("scope"))


def _stop(values: Values) -> str:
    """Return the page of what a stop concerns."""
    subject = values.get("subject")
    return {
        "client": link("/clients/client", id=subject),
        "resource-server": link("/apis/api", id=subject),
        "scope": link("/apis/scope", name=subject),
    }.get(values.get("kind", ""), "/apis")


def _changes(_: Values) -> str:
    return "/changes"


def _operators(_: Values) -> str:
    return "/operators"


def _operator(values: Values) -> str:
    return link("/operators/operator", name=values.get("operator"))


def _of_members(*names: str, kind: FieldKind = "text") -> tuple[Field, ...]:
    """Return the fields of members of the same names."""
    return tuple(Field(name=name, kind=kind, member=name) for name in names)


def _choice(name: str, *choices: str) -> Field:
    return Field(name=name, kind="choice", choices=choices, member=name)


_ID, _IDENTIFIER = (
    Field(name="new_id"),
    Field(name="identifier", required=True, member="identifier"),
)
_NAME = Field(name="name", required=True, member="name")
_METHOD = _choice(
    "authentication_method",
    *("client_secret", "client_secret_basic", "client_secret_post", "client_secret_jwt"),
    *("private_key_jwt", "tls_client_auth", "self_signed_tls_client_auth"),
)
_JWKS = (
    Field(name="jwks", kind="json", member="properties.jwks"),
    Field(name="jwks_uri", member="properties.jwks_uri"),
)
_CERTIFICATE = tuple(
    Field(name=name, member=f"properties.{name}")
    for name in ("tls_client_auth_subject_dn", "tls_client_auth_san_dns")
)
_AUTHENTICATION = (_METHOD, *_JWKS, *_CERTIFICATE)
_NAMES = (
    _NAME,
    *_of_members("organisation"),
    Field(name="allowed_scopes", kind="lines", required=True, member="allowed_scopes"),
    *_of_members("default_scopes", kind="lines"),
)
_CLIENT_LIMITS = (
    *_of_members("token_lifetime_seconds"),
    *_of_members("starts_at", kind="time"),
    Field(name="expires_at", kind="time", member="expires_at", words="client_expires_at"),
    *_of_members("grant_types", "allowed_resource_servers", kind="lines"),
    Field(name="allowed_networks", kind="lines", member="properties.allowed_networks"),
    _choice("g2p_answer", "document", "oauth"),
)
_API_FIELDS = (
    _NAME,
    *_of_members("organisation"),
    _choice("token_format", "jwt", "reference"),
    _choice("token_type", "at+jwt", "JWT"),
    _choice("introspection_audience", "identifier", "id"),
    *_of_members("signing_ring"),
)
_TAKE_OVER = Field(name="take_over", kind="checkbox")
_SCOPE_FACTS = (
    Field(name="description", member="description", words="scope_description"),
    _choice("risk", *bodies.RISKS),
    *_of_members("lifetime_cap_seconds"),
    *_of_members("aliases", kind="lines"),
    *_of_members("callback_partner"),
)
_STREAM = (
    _choice("delivery", "push", "poll"),
    *_of_members("endpoint_url"),
    *_of_members("events", kind="lines"),
)
_SECRET = (Field(name="description"), Field(name="expires_at", kind="time"))
_API_WRITE = "resource-servers:write"
_CLIENT, _API, _STREAMS = "/clients/{}", "/resource-servers/{}", "/event-streams/{}"
_RING, _KEY, _STOP = "/rings/{}", "/rings/{}/keys/{}", "/stops/{}/{}"
_CHANGE, _OPERATOR, _PROGRAMME = "/changes/{}", "/operators/{}", "/programmes/{}"
_PASSKEY, _SCOPE = f"{_OPERATOR}/passkeys/{{}}", "/scopes/{}"
_REGISTRATION = "/registration-tokens/{}"
_ROLES = Field(name="roles", kind="lines", required=True, member="roles")


def _nothing(_: Values) -> None:
    """Return no body, as of a request that deletes."""


def _of_key(name: str, permission: str = "keys:rotate", **options: Any) -> Act:  # noqa: ANN401
    """Return an order on a key, or on a ring if it has no key."""
    usual: dict[str, Any] = {"body": bodies.reason_only, "asks_reason": True}
    return Act(name=name, permission=permission, back=_keys, is_shown=True, **(usual | options))


def _revocation(name: str, member: str, **options: Any) -> Act:  # noqa: ANN401
    """Return a revocation of the tokens of what its only parameter names."""
    (parameter,) = options["names"]
    return Act(
        name=name,
        permission="tokens:revoke",
        path="/revocations",
        asks_reason=True,
        is_grave=True,
        body=lambda values: {member: values[parameter], "reason": bodies.reason_of(values)},
        **options,
    )


# fmt: off
def _of_secrets(prefix: str, owner: str, **options: Any) -> tuple[Act, ...]:  # noqa: ANN401
    """Return the acts on the secrets of a client, or of an API in the same words."""
    path, permission = f"{owner}/secrets", "secrets:write"
    unused = Field(name="unused_days", kind="choice", choices=("7", "1", "30"))
    acts = (
        Act(name="secret-add", permission=permission, path=path, names=("id",), fields=_SECRET,
            body=bodies.new_secret, is_shown=True, **options),
        Act(name="secret-rotate", permission=permission, path=f"{path}/rotate", names=("id",),
            fields=(*_SECRET, unused), body=bodies.rotated, is_shown=True, **options),
        Act(name="secret-end", permission=permission, method="DELETE", path=f"{path}/{{}}",
            item=f"{path}/{{}}", names=("id", "secret"), body=_nothing, is_grave=True,
            **options),
    )
    return tuple(replace(act, name=f"{prefix}{act.name}", words=act.name) for act in acts)


ACTS: Mapping[str, Act] = {act.name: act for act in (
    Act(name="client-create", permission="clients:write", path="/clients", names=(),
        back=_client, fields=(_ID, *_NAMES, *_AUTHENTICATION), body=bodies.new, is_shown=True),
    Act(name="client-edit", permission="clients:write", method="PATCH", path=_CLIENT, item=_CLIENT,
        names=("id",), back=_client, fields=_NAMES, body=bodies.edited),
    Act(name="client-limits", permission="clients:write", method="PATCH", path=_CLIENT,
        item=_CLIENT, names=("id",), back=_client, fields=_CLIENT_LIMITS, body=bodies.edited),
    Act(name="client-keys", permission="clients:write", method="PATCH", path=_CLIENT, item=_CLIENT,
        names=("id",), back=_client, fields=_AUTHENTICATION, body=bodies.edited),
    Act(name="client-enable", permission="clients:write", path=f"{_CLIENT}/enable", item=_CLIENT,
        names=("id",), back=_client),
    Act(name="client-disable", permission="clients:write", path=f"{_CLIENT}/disable", item=_CLIENT,
        names=("id",), back=_client, fields=(Field(name="revoke_tokens", kind="checkbox"),),
        body=lambda values: {"revoke_tokens": values.get("revoke_tokens") == "yes"},
        is_grave=True),
    Act(name="client-delete", permission="clients:write", method="DELETE", path=_CLIENT,
        item=_CLIENT, names=("id",), back=_clients, body=_nothing, is_grave=True),
    _revocation("client-revoke", "client", names=("id",), back=_client),
    *_of_secrets("", _CLIENT, back=_client),
    Act(name="registration-create", permission="clients:write", path="/registration-tokens",
        names=(), back=_registrations, body=bodies.new_registration_token, is_shown=True,
        fields=(Field(name="description"), Field(name="organisation"),
                Field(name="scopes", kind="lines"), Field(name="uses"),
                Field(name="until", kind="time", required=True))),
    Act(name="registration-end", permission="clients:write", method="DELETE", path=_REGISTRATION,
        item=_REGISTRATION, names=("token",), back=_registrations, body=_nothing, is_grave=True),
    Act(name="api-create", permission=_API_WRITE, path="/resource-servers", names=(), back=_api,
        body=bodies.new_api,
        fields=(_ID, _NAME, _IDENTIFIER, *_API_FIELDS[1:], Field(name="scopes", kind="lines"),
                _TAKE_OVER, *_AUTHENTICATION, Field(name="without_secret", kind="checkbox")),
        is_shown=True),
    Act(name="api-edit", permission=_API_WRITE, method="PATCH", path=_API, item=_API,
        names=("id",), back=_api, fields=_API_FIELDS, body=bodies.edited),
    Act(name="api-keys", words="client-keys", permission=_API_WRITE, method="PATCH", path=_API,
        item=_API, names=("id",), back=_api, fields=_AUTHENTICATION, body=bodies.edited),
    Act(name="api-identifier", permission=_API_WRITE, method="PATCH", path=_API, item=_API,
        names=("id",), back=_api, fields=(_IDENTIFIER,), body=bodies.edited, is_grave=True),
    *(Act(name=f"api-{verb}", permission=_API_WRITE, path=f"{_API}/{verb}", item=_API,
          names=("id",), back=_api, is_grave=verb == "disable")
      for verb in ("enable", "disable")),
    Act(name="api-delete", permission=_API_WRITE, method="DELETE", path=_API, item=_API,
        names=("id",), back=_apis, body=_nothing, is_grave=True),
    Act(name="stream-set", permission=_API_WRITE, path="/event-streams", names=("id",), back=_api,
        fields=_STREAM, body=bodies.new_stream),
    Act(name="stream-edit", permission=_API_WRITE, method="PATCH", path=_STREAMS, item=_STREAMS,
        names=("id",), back=_api, fields=_STREAM, body=bodies.edited),
    Act(name="stream-retry", permission=_API_WRITE, path=f"{_STREAMS}/retry", item=_STREAMS,
        names=("id",), back=_api),
    Act(name="stream-delete", permission=_API_WRITE, method="DELETE", path=_STREAMS,
        item=_STREAMS, names=("id",), back=_api, body=_nothing, is_grave=True),
    *_of_secrets("api-", _API, back=_api, instead=(_API_WRITE,)),
    Act(name="scope-add", permission="scopes:write", path="/scopes", names=("id",), back=_api,
        fields=(Field(name="name", required=True), *_SCOPE_FACTS), body=bodies.new_scope),
    Act(name="scope-assign-several", permission="scopes:write", path="/scopes/assignments",
        names=("id",), back=_api, body=bodies.assigned_several,
        fields=(Field(name="scopes", kind="lines", required=True), _TAKE_OVER)),
    Act(name="scope-edit", permission="scopes:write", method="PATCH", path=_SCOPE, item=_SCOPE,
        names=("scope",), back=_scope, fields=_SCOPE_FACTS, body=bodies.edited),
    Act(name="scope-assign", permission="scopes:write", path=f"{_SCOPE}/assign", item=_SCOPE,
        names=("scope",), back=_scope, body=bodies.assigned,
        fields=(*_of_members("resource_server"), _TAKE_OVER)),
    Act(name="scope-delete", permission="scopes:write", method="DELETE", path=_SCOPE, item=_SCOPE,
        names=("scope",), back=_apis, body=_nothing, is_grave=True),
    Act(name="scope-import", permission="scopes:write", path="/scopes/imports", names=(),
        back=_apis, body=lambda _: {"catalogue": "g2p-connect"}),
    _revocation("scope-revoke", "scope", names=("scope",), back=_scope),
    Act(name="stop-set", permission="tokens:revoke", path="/stops", names=("kind", "subject"),
        back=_stop, asks_reason=True, body=bodies.stopped, is_grave=True),
    Act(name="stop-lift", permission="tokens:revoke", path=f"{_STOP}/lift", item=_STOP,
        names=("kind", "subject"), back=_stop, asks_reason=True, body=bodies.reason_only),
    Act(name="programme-define", permission="scopes:write", path="/programmes", names=(),
        back=_apis, body=bodies.programme,
        fields=(Field(name="name", required=True), Field(name="scopes", kind="lines"),
                Field(name="clients", kind="lines"))),
    Act(name="programme-delete", permission="scopes:write", method="DELETE", path=_PROGRAMME,
        item=_PROGRAMME, names=("name",), back=_apis, body=_nothing, is_grave=True),
    *(_of_key(f"ring-{verb}", path=f"{_RING}/{verb}", item=_RING, names=("ring",))
      for verb in ("rotate", "freeze", "unfreeze")),
    *(_of_key(f"ring-{verb}", path=f"{_RING}/{verb}", item=_RING, names=("ring",),
              asks_reason=False, body=lambda _: {})
      for verb in ("tick", "prune")),
    _of_key("ring-move", path=f"{_RING}/move", item=_RING, names=("ring",), body=bodies.succession,
            fields=(Field(name="successor", required=True), Field(name="at", kind="time"))),
    _of_key("ring-destroy", "keys:revoke", path=f"{_RING}/destroy", item=_RING, names=("ring",),
            is_grave=True),
    _of_key("key-activate", path=f"{_KEY}/activate", item=_KEY, names=("ring", "kid"),
            fields=(Field(name="at", kind="time", words="activate_at"),
                    Field(name="emergency", kind="checkbox")), body=bodies.activation),
    _of_key("key-taint", path=f"{_KEY}/taint", item=_KEY, names=("ring", "kid"), is_grave=True),
    _of_key("key-revoke", "keys:revoke", path=f"{_KEY}/revoke", item=_KEY, names=("ring", "kid"),
            fields=(Field(name="all_versions", kind="checkbox"),), is_grave=True,
            body=lambda values: {**bodies.reason_only(values),
                                 "all_versions": values.get("all_versions") == "yes"}),
    _revocation("token-revoke", "jti", names=("jti",), back=_tokens),
    Act(name="token-revoke-all", permission="tokens:revoke", path="/revocations", names=(),
        back=_tokens, asks_reason=True, is_grave=True,
        body=lambda values: {"all": True, **bodies.reason_only(values)}),
    Act(name="operator-create", permission="operators:write", path="/operators", names=(),
        back=_operators, fields=(Field(name="name", required=True), _ROLES),
        body=bodies.new_operator, is_shown=True),
    Act(name="operator-edit", permission="operators:write", method="PATCH", path=_OPERATOR,
        item=_OPERATOR, names=("operator",), back=_operator, fields=(_ROLES,),
        body=bodies.changed_operator),
    Act(name="operator-enrol", permission="operators:write", path=f"{_OPERATOR}/enrolments",
        names=("operator",), back=_operator, is_shown=True),
    Act(name="operator-log-out", permission="operators:write", path=f"{_OPERATOR}/log-out",
        names=("operator",), back=_operator),
    *(Act(name=f"operator-{verb}", permission="operators:write", path=f"{_OPERATOR}/{verb}",
          item=_OPERATOR, names=("operator",), back=_operator, is_grave=verb == "disable")
      for verb in ("enable", "disable")),
    Act(name="operator-delete", permission="operators:write", method="DELETE", path=_OPERATOR,
        item=_OPERATOR, names=("operator",), back=_operators, body=_nothing, is_grave=True),
    Act(name="passkey-remove", permission="operators:write", method="DELETE",
        path=_PASSKEY, item=_PASSKEY, names=("operator", "passkey"), back=_operator,
        body=_nothing, is_grave=True),
    *(Act(name=f"change-{verb}", permission=permission, path=f"{_CHANGE}/{verb}", item=_CHANGE,
          names=("id",), back=_changes, asks_reason=True, body=bodies.reason_only,
          is_grave=verb == "break-glass")
      for verb, permission in (("approve", "changes:approve"), ("reject", "changes:approve"),
                               ("confirm", "changes:approve"), ("withdraw", "changes:read"),
                               ("break-glass", "changes:read"))),
)}
# fmt: on
