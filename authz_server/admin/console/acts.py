"""The acts that the console offers: for each its request to the admin API and its form."""

import shlex
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from authz_server.admin.console.act_kinds import Act, Field, Values
from authz_server.admin.console.rendering import as_utc, link

_DAY_SECONDS = 86_400
#: More of them are no number of seconds that the API takes.
_MAXIMUM_DIGITS = 12
#: The fields that are sent as they are entered.
_TEXTS = (
    *("name", "organisation", "identifier"),
    *("token_format", "token_type", "introspection_audience"),
)
#: The reason in a plan, which records nothing.
PLANNED = "-"
#: The times without a use after which the old secrets of a rotation end.
_UNUSED = {"1": _DAY_SECONDS, "7": 7 * _DAY_SECONDS, "30": 30 * _DAY_SECONDS}


def _client(values: Values) -> str:
    return link("/clients/client", id=values.get("id"))


def _keys(_: Values) -> str:
    return "/keys"


def _apis(_: Values) -> str:
    return "/apis"


def _api(values: Values) -> str:
    """Return the page of an API; the list before it is registered."""
    return link("/apis/api", id=values["id"]) if values.get("id") else "/apis"


def _stop(values: Values) -> str:
    """Return the page of what a stop concerns."""
    subject = values.get("subject")
    return {
        "client": link("/clients/client", id=subject),
        "resource-server": link("/apis/api", id=subject),
    }.get(values.get("kind", ""), "/apis")


def _changes(_: Values) -> str:
    return "/changes"


def _operators(_: Values) -> str:
    return "/operators"


def _operator(values: Values) -> str:
    return link("/operators/operator", name=values.get("operator"))


def _reason(values: Values) -> str:
    return values.get("reason", "").strip() or PLANNED


def _lines(values: Values, name: str) -> list[str]:
    return [line.strip() for line in values.get(name, "").splitlines() if line.strip()]


def _edited(values: Values) -> dict[str, Any]:
    """Return the fields that the form has; another keeps its value."""
    edited: dict[str, Any] = {name: values[name] for name in _TEXTS if name in values}
    for name in ("allowed_scopes", "default_scopes"):
        if name in values:
            edited[name] = _lines(values, name)
    if "signing_ring" in values:
        edited["signing_ring"] = values["signing_ring"].strip() or None
    return edited


def _new(values: Values) -> dict[str, Any]:
    """Return the fields of a new client or API; without an id, one is generated."""
    named = {"id": values["new_id"].strip()} if values.get("new_id", "").strip() else {}
    return {**_edited(values), **named}


def _new_api(values: Values) -> dict[str, Any]:
    return {
        **_new(values),
        "scopes": _lines(values, "scopes"),
        "take_over": values.get("take_over") == "yes",
        "with_secret": values.get("without_secret") != "yes",
    }


def _new_scope(values: Values) -> dict[str, Any]:
    return {
        "name": values.get("name", "").strip(),
        "description": values.get("description", ""),
        "resource_server": values["id"],
        "risk": values.get("risk") or _RISKS[0],
        "lifetime_cap_seconds": _number(values.get("lifetime_cap_seconds", "").strip()),
        "aliases": _lines(values, "aliases"),
        "callback_partner": values.get("callback_partner", "").strip() or None,
    }


def _number(text: str) -> int | str | None:
    """Return a number as entered; the API refuses another text."""
    is_number = text.isdecimal() and len(text) <= _MAXIMUM_DIGITS
    return int(text) if is_number else text or None


def _new_secret(values: Values) -> dict[str, Any]:
    return {
        "description": values.get("description", ""),
        "expires_at": as_utc(values.get("expires_at", "")) or None,
    }


def _rotated(values: Values) -> dict[str, Any]:
    seconds = _UNUSED.get(values.get("unused_days", ""), _UNUSED["7"])
    return {**_new_secret(values), "end_old_when_unused_seconds": seconds}


def _reason_only(values: Values) -> dict[str, Any]:
    return {"reason": _reason(values)}


def _succession(values: Values) -> dict[str, Any]:
    return {
        "reason": _reason(values),
        "successor": values.get("successor", "").strip(),
        "at": as_utc(values.get("at", "")) or None,
    }


def _stopped(values: Values) -> dict[str, Any]:
    return {"kind": values["kind"], "subject": values["subject"], "reason": _reason(values)}


def _programme(values: Values) -> dict[str, Any]:
    return {
        "name": values.get("name", ""),
        "scopes": _lines(values, "scopes"),
        "clients": _lines(values, "clients"),
    }


def _assigned(values: Values) -> dict[str, Any]:
    return {
        "resource_server": values.get("resource_server") or None,
        "take_over": values.get("take_over") == "yes",
    }


def _assigned_several(values: Values) -> dict[str, Any]:
    owner = {**values, "resource_server": values["id"]}
    return {**_assigned(owner), "scopes": _lines(values, "scopes")}


def read_roles(text: str) -> list[dict[str, Any]]:
    """Return the roles of a form: one a line, with its limits after it.

    A line is ``api-owner resource_server=mapper``, or ``auditor "organisation=Relief fund"``. Any
    other line becomes the name of a role, which the API refuses.
    """
    roles = []
    for line in filter(None, map(str.strip, text.splitlines())):
        try:
            name, *limits = shlex.split(line)
        except ValueError:
            name, limits = line, []
        pairs = [each.partition("=") for each in limits]
        if {kind for kind, _, _ in pairs} <= {"resource_server", "organisation"}:
            servers = [value for kind, _, value in pairs if kind == "resource_server"]
            named = [value for kind, _, value in pairs if kind == "organisation"]
            roles.append({"role": name, "resource_servers": servers, "organisations": named})
        else:
            roles.append({"role": line})
    return roles


def write_roles(roles: Iterable[Mapping[str, Any]]) -> str:
    """Return the text from which :func:`read_roles` reads the roles."""
    return "\n".join(
        shlex.join(
            (
                each["role"],
                *(f"resource_server={name}" for name in each["resource_servers"]),
                *(f"organisation={name}" for name in each["organisations"]),
            )
        )
        for each in roles
    )


def _new_operator(values: Values) -> dict[str, Any]:
    return {"name": values.get("name", "").strip(), "roles": read_roles(values.get("roles", ""))}


def _changed_operator(values: Values) -> dict[str, Any]:
    """Return the roles; a form without the field does not take them all away."""
    return {"roles": read_roles(values["roles"])} if "roles" in values else {}


_NAMES = (
    Field(name="name", required=True, member="name"),
    Field(name="organisation", member="organisation"),
    Field(name="allowed_scopes", kind="lines", required=True, member="allowed_scopes"),
    Field(name="default_scopes", kind="lines", member="default_scopes"),
)
#: The first one is the risk of a scope for which none is chosen.
_RISKS = ("write", "read", "money")
_API_FIELDS = (
    Field(name="name", required=True, member="name"),
    Field(name="organisation", member="organisation"),
    *(
        Field(name=name, kind="choice", choices=choices, member=name)
        for name, choices in (
            ("token_format", ("jwt", "reference")),
            ("token_type", ("at+jwt", "JWT")),
            ("introspection_audience", ("identifier", "id")),
        )
    ),
    Field(name="signing_ring", member="signing_ring"),
)
_IDENTIFIER = Field(name="identifier", required=True, member="identifier")
_TAKE_OVER = Field(name="take_over", kind="checkbox")
_SCOPE_FIELDS = (
    Field(name="name", required=True),
    Field(name="description"),
    Field(name="risk", kind="choice", choices=_RISKS),
    Field(name="lifetime_cap_seconds"),
    Field(name="aliases", kind="lines"),
    Field(name="callback_partner"),
)
_SECRET = (Field(name="description"), Field(name="expires_at", kind="time"))
_API_WRITE = "resource-servers:write"
_CLIENT, _API = "/clients/{}", "/resource-servers/{}"
_RING, _KEY, _STOP = "/rings/{}", "/rings/{}/keys/{}", "/stops/{}/{}"
_CHANGE, _OPERATOR, _PROGRAMME = "/changes/{}", "/operators/{}", "/programmes/{}"
_PASSKEY = f"{_OPERATOR}/passkeys/{{}}"
_ROLES = Field(name="roles", kind="lines", required=True, member="roles")


def _of_key(name: str, permission: str = "keys:rotate", **options: Any) -> Act:  # noqa: ANN401
    """Return an order on a key, or on a ring if it has no key."""
    return Act(
        name=name,
        permission=permission,
        back=_keys,
        asks_reason=True,
        is_shown=True,
        **({"body": _reason_only} | options),
    )


# fmt: off
def _of_secrets(prefix: str, owner: str, **options: Any) -> tuple[Act, ...]:  # noqa: ANN401
    """Return the acts on the secrets of a client, or of an API in the same words."""
    path, permission = f"{owner}/secrets", "secrets:write"
    unused = Field(name="unused_days", kind="choice", choices=("7", "1", "30"))
    acts = (
        Act(name="secret-add", permission=permission, path=path, names=("id",), fields=_SECRET,
            body=_new_secret, is_shown=True, **options),
        Act(name="secret-rotate", permission=permission, path=f"{path}/rotate", names=("id",),
            fields=(*_SECRET, unused), body=_rotated, is_shown=True, **options),
        Act(name="secret-end", permission=permission, method="DELETE", path=f"{path}/{{}}",
            item=f"{path}/{{}}", names=("id", "secret"), body=lambda _: None, is_grave=True,
            **options),
    )
    return tuple(replace(act, name=f"{prefix}{act.name}", words=act.name) for act in acts)


ACTS: Mapping[str, Act] = {act.name: act for act in (
    Act(name="client-create", permission="clients:write", path="/clients", names=(),
        back=lambda _: "/clients", fields=(Field(name="new_id"), *_NAMES), body=_new,
        is_shown=True),
    Act(name="client-edit", permission="clients:write", method="PATCH", path=_CLIENT, item=_CLIENT,
        names=("id",), back=_client, fields=_NAMES, body=_edited),
    Act(name="client-enable", permission="clients:write", path=f"{_CLIENT}/enable", item=_CLIENT,
        names=("id",), back=_client),
    Act(name="client-disable", permission="clients:write", path=f"{_CLIENT}/disable", item=_CLIENT,
        names=("id",), back=_client, fields=(Field(name="revoke_tokens", kind="checkbox"),),
        body=lambda values: {"revoke_tokens": values.get("revoke_tokens") == "yes"},
        is_grave=True),
    Act(name="client-revoke", permission="tokens:revoke", path="/revocations", names=("id",),
        back=_client, asks_reason=True, is_grave=True,
        body=lambda values: {"client": values["id"], "reason": _reason(values)}),
    *_of_secrets("", _CLIENT, back=_client),
    Act(name="api-create", permission=_API_WRITE, path="/resource-servers", names=(), back=_api,
        body=_new_api,
        fields=(Field(name="new_id"), *_API_FIELDS[:1], _IDENTIFIER, *_API_FIELDS[1:],
                Field(name="scopes", kind="lines"), _TAKE_OVER,
                Field(name="without_secret", kind="checkbox")), is_shown=True),
    Act(name="api-edit", permission=_API_WRITE, method="PATCH", path=_API, item=_API,
        names=("id",), back=_api, fields=_API_FIELDS, body=_edited),
    Act(name="api-identifier", permission=_API_WRITE, method="PATCH", path=_API, item=_API,
        names=("id",), back=_api, fields=(_IDENTIFIER,), body=_edited, is_grave=True),
    *(Act(name=f"api-{verb}", permission=_API_WRITE, path=f"{_API}/{verb}", item=_API,
          names=("id",), back=_api, is_grave=verb == "disable")
      for verb in ("enable", "disable")),
    Act(name="api-delete", permission=_API_WRITE, method="DELETE", path=_API, item=_API,
        names=("id",), back=_apis, body=lambda _: None, is_grave=True),
    Act(name="scope-add", permission="scopes:write", path="/scopes", names=("id",), back=_api,
        fields=_SCOPE_FIELDS, body=_new_scope),
    Act(name="scope-assign-several", permission="scopes:write", path="/scopes/assignments",
        names=("id",), back=_api, body=_assigned_several,
        fields=(Field(name="scopes", kind="lines", required=True), _TAKE_OVER)),
    *_of_secrets("api-", _API, back=_api, instead=(_API_WRITE,)),
    Act(name="stop-set", permission="tokens:revoke", path="/stops", names=("kind", "subject"),
        back=_stop, asks_reason=True, body=_stopped, is_grave=True),
    Act(name="stop-lift", permission="tokens:revoke", path=f"{_STOP}/lift", item=_STOP,
        names=("kind", "subject"), back=_stop, asks_reason=True, body=_reason_only),
    Act(name="programme-define", permission="scopes:write", path="/programmes", names=(),
        back=_apis, body=_programme,
        fields=(Field(name="name", required=True), Field(name="scopes", kind="lines"),
                Field(name="clients", kind="lines"))),
    Act(name="programme-delete", permission="scopes:write", method="DELETE", path=_PROGRAMME,
        item=_PROGRAMME, names=("name",), back=_apis, body=lambda _: None, is_grave=True),
    Act(name="scope-assign", permission="scopes:write", path="/scopes/{}/assign",
        item="/scopes/{}", names=("scope",), back=_apis, body=_assigned,
        fields=(Field(name="resource_server", member="resource_server"), _TAKE_OVER)),
    _of_key("ring-rotate", path=f"{_RING}/rotate", item=_RING, names=("ring",)),
    _of_key("ring-freeze", path=f"{_RING}/freeze", item=_RING, names=("ring",)),
    _of_key("ring-unfreeze", path=f"{_RING}/unfreeze", item=_RING, names=("ring",)),
    _of_key("ring-move", path=f"{_RING}/move", item=_RING, names=("ring",), body=_succession,
            fields=(Field(name="successor", required=True), Field(name="at", kind="time"))),
    _of_key("ring-destroy", "keys:revoke", path=f"{_RING}/destroy", item=_RING, names=("ring",),
            is_grave=True),
    _of_key("key-activate", path=f"{_KEY}/activate", item=_KEY, names=("ring", "kid"),
            fields=(Field(name="emergency", kind="checkbox"),),
            body=lambda values: {"reason": _reason(values),
                                 "emergency": values.get("emergency") == "yes"}),
    _of_key("key-taint", path=f"{_KEY}/taint", item=_KEY, names=("ring", "kid"), is_grave=True),
    _of_key("key-revoke", "keys:revoke", path=f"{_KEY}/revoke", item=_KEY, names=("ring", "kid"),
            fields=(Field(name="all_versions", kind="checkbox"),), is_grave=True,
            body=lambda values: {"reason": _reason(values),
                                 "all_versions": values.get("all_versions") == "yes"}),
    Act(name="token-revoke", permission="tokens:revoke", path="/revocations", names=("jti",),
        back=lambda _: "/tokens", asks_reason=True, is_grave=True,
        body=lambda values: {"jti": values["jti"], "reason": _reason(values)}),
    Act(name="operator-create", permission="operators:write", path="/operators", names=(),
        back=_operators, fields=(Field(name="name", required=True), _ROLES), body=_new_operator,
        is_shown=True),
    Act(name="operator-edit", permission="operators:write", method="PATCH", path=_OPERATOR,
        item=_OPERATOR, names=("operator",), back=_operator, fields=(_ROLES,),
        body=_changed_operator),
    Act(name="operator-enrol", permission="operators:write", path=f"{_OPERATOR}/enrolments",
        names=("operator",), back=_operator, is_shown=True),
    Act(name="operator-log-out", permission="operators:write", path=f"{_OPERATOR}/log-out",
        names=("operator",), back=_operator),
    *(Act(name=f"operator-{verb}", permission="operators:write", path=f"{_OPERATOR}/{verb}",
          item=_OPERATOR, names=("operator",), back=_operator, is_grave=verb == "disable")
      for verb in ("enable", "disable")),
    Act(name="operator-delete", permission="operators:write", method="DELETE", path=_OPERATOR,
        item=_OPERATOR, names=("operator",), back=_operators, body=lambda _: None, is_grave=True),
    Act(name="passkey-remove", permission="operators:write", method="DELETE",
        path=_PASSKEY, item=_PASSKEY, names=("operator", "passkey"), back=_operator,
        body=lambda _: None, is_grave=True),
    *(Act(name=f"change-{verb}", permission=permission, path=f"{_CHANGE}/{verb}", item=_CHANGE,
          names=("id",), back=_changes, asks_reason=True, body=_reason_only,
          is_grave=verb == "break-glass")
      for verb, permission in (("approve", "changes:approve"), ("reject", "changes:approve"),
                               ("confirm", "changes:approve"), ("withdraw", "changes:read"),
                               ("break-glass", "changes:read"))),
)}
# fmt: on
