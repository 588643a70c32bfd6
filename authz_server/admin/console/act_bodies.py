"""The bodies of the requests that acts send, made from what was entered in their forms."""

import shlex
from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from authz_server.admin.console.act_kinds import Values
from authz_server.admin.console.rendering import as_utc

_DAY_SECONDS = 86_400
#: More of them are no number that the API takes.
_MAXIMUM_DIGITS = 12
#: The fields that are sent as they are entered.
_TEXTS = (
    *("name", "organisation", "identifier", "authentication_method", "g2p_answer"),
    *("token_format", "token_type", "introspection_audience"),
    *("description", "risk", "delivery", "endpoint_url"),
)
#: Those with one entry a line; a scope has the members of the API by the same names.
_LISTS = (
    *("allowed_scopes", "default_scopes", "grant_types", "allowed_resource_servers"),
    *("aliases", "events"),
)
#: Those that are nothing when they are empty.
_OPTIONAL = ("signing_ring", "callback_partner")
_NUMBERS = ("token_lifetime_seconds", "lifetime_cap_seconds")
_TIMES = ("starts_at", "expires_at")
#: Members of ``properties``: with a text, with one entry a line, and with JSON.
_TEXT_PROPERTIES = ("jwks_uri", "tls_client_auth_subject_dn", "tls_client_auth_san_dns")
_LIST_PROPERTIES = ("allowed_networks",)
_JSON_PROPERTIES = ("jwks",)
#: The reason in a plan, which records nothing.
PLANNED = "-"
#: The risks of a scope; the first one is that of a scope for which none is chosen.
RISKS = ("write", "read", "money")
#: The times without a use after which the old secrets of a rotation end.
_UNUSED = {"1": _DAY_SECONDS, "7": 7 * _DAY_SECONDS, "30": 30 * _DAY_SECONDS}


def reason_of(values: Values) -> str:
    """Return the reason; in a plan, a placeholder."""
    return values.get("reason", "").strip() or PLANNED


def lines_of(values: Values, name: str) -> list[str]:
    """Return the entries of a field that has one a line."""
    return [line.strip() for line in values.get(name, "").splitlines() if line.strip()]


def edited(values: Values) -> dict[str, Any]:
    """Return the fields that the form has; another keeps its value."""

    def those_of(names: Iterable[str]) -> Iterable[str]:
        return (name for name in names if name in values)

    body: dict[str, Any] = {name: values[name] for name in those_of(_TEXTS)}
    body |= {name: lines_of(values, name) for name in those_of(_LISTS)}
    body |= {name: _text(values, name) for name in those_of(_OPTIONAL)}
    body |= {name: number(values[name].strip()) for name in those_of(_NUMBERS)}
    body |= {name: as_utc(values[name]) or None for name in those_of(_TIMES)}
    properties: dict[str, Any] = {name: _text(values, name) for name in those_of(_TEXT_PROPERTIES)}
    properties |= {name: lines_of(values, name) or None for name in those_of(_LIST_PROPERTIES)}
    properties |= {name: _json(values[name]) for name in those_of(_JSON_PROPERTIES)}
    return body | ({"properties": properties} if properties else {})


def _text(values: Values, name: str) -> str | None:
    return values[name].strip() or None


def number(text: str) -> int | str | None:
    """Return a number as entered; the API refuses another text."""
    is_number = text.isdecimal() and len(text) <= _MAXIMUM_DIGITS
    return int(text) if is_number else text or None


def _json(text: str) -> Any:  # noqa: ANN401 - any JSON
    """Return the JSON in a text; the API refuses another text."""
    if not text.strip():
        return None
    try:
        return msgspec.json.decode(text)
    except (msgspec.DecodeError, RecursionError):
        return text


def new(values: Values) -> dict[str, Any]:
    """Return the fields of a new client or API; without an id, one is generated."""
    named = {"id": values["new_id"].strip()} if values.get("new_id", "").strip() else {}
    return {**edited(values), **named}


def new_api(values: Values) -> dict[str, Any]:
    """Return the fields of a new API."""
    return {
        **new(values),
        "scopes": lines_of(values, "scopes"),
        "take_over": values.get("take_over") == "yes",
        "with_secret": values.get("without_secret") != "yes",
    }


def new_scope(values: Values) -> dict[str, Any]:
    """Return the fields of a new scope of an API."""
    name = values.get("name", "").strip()
    return {"risk": RISKS[0], **edited(values), "name": name, "resource_server": values["id"]}


def new_secret(values: Values) -> dict[str, Any]:
    """Return the fields of a new secret."""
    return {
        "description": values.get("description", ""),
        "expires_at": as_utc(values.get("expires_at", "")) or None,
    }


def rotated(values: Values) -> dict[str, Any]:
    """Return the fields of a rotation."""
    seconds = _UNUSED.get(values.get("unused_days", ""), _UNUSED["7"])
    return {**new_secret(values), "end_old_when_unused_seconds": seconds}


def new_registration_token(values: Values) -> dict[str, Any]:
    """Return the fields of an initial access token."""
    uses = number(values.get("uses", "").strip())
    organisation = values.get("organisation", "").strip()
    return {
        "description": values.get("description", ""),
        "expires_at": as_utc(values.get("until", "")),
        "scopes": lines_of(values, "scopes"),
        # A caller of one organisation need not name it.
        **({"organisation": organisation} if organisation else {}),
        **({} if uses is None else {"uses": uses}),
    }


def new_stream(values: Values) -> dict[str, Any]:
    """Return the fields of the event stream of an API."""
    return {"delivery": "push", **edited(values), "resource_server": values["id"]}


def reason_only(values: Values) -> dict[str, Any]:
    """Return the reason."""
    return {"reason": reason_of(values)}


def activation(values: Values) -> dict[str, Any]:
    """Return the activation of a key."""
    return {
        "reason": reason_of(values),
        "at": as_utc(values.get("at", "")) or None,
        "emergency": values.get("emergency") == "yes",
    }


def succession(values: Values) -> dict[str, Any]:
    """Return the succession of a ring."""
    return {
        "reason": reason_of(values),
        "successor": values.get("successor", "").strip(),
        "at": as_utc(values.get("at", "")) or None,
    }


def stopped(values: Values) -> dict[str, Any]:
    """Return what is stopped."""
    return {"kind": values["kind"], "subject": values["subject"], "reason": reason_of(values)}


def programme(values: Values) -> dict[str, Any]:
    """Return the members of a programme."""
    return {
        "name": values.get("name", ""),
        "scopes": lines_of(values, "scopes"),
        "clients": lines_of(values, "clients"),
    }


def assigned(values: Values) -> dict[str, Any]:
    """Return the owner of a scope."""
    return {
        "resource_server": values.get("resource_server") or None,
        "take_over": values.get("take_over") == "yes",
    }


def assigned_several(values: Values) -> dict[str, Any]:
    """Return the owner of several scopes."""
    owner = {**values, "resource_server": values["id"]}
    return {**assigned(owner), "scopes": lines_of(values, "scopes")}


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


def new_operator(values: Values) -> dict[str, Any]:
    """Return the fields of a new operator."""
    return {"name": values.get("name", "").strip(), "roles": read_roles(values.get("roles", ""))}


def changed_operator(values: Values) -> dict[str, Any]:
    """Return the roles; a form without the field does not take them all away."""
    return {"roles": read_roles(values["roles"])} if "roles" in values else {}
