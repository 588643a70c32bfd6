"""Validate the fields of clients and resource servers.

A rule takes a value and returns the one to store. It raises :class:`InvalidChangeError`, which
begins with the field's name, for a value that breaks it.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from urllib.parse import urlsplit

from authz_server.clients.properties import check_properties
from authz_server.errors import InvalidChangeError

DEFAULT_GRANT_TYPES = ("client_credentials",)
PERMISSIONS = ("introspect:any",)
TOKEN_FORMATS = ("jwt", "reference")
#: RFC 9068, 2.1 requires the first; verifiers that implement only RFC 7519 refuse it.
TOKEN_TYPES = ("at+jwt", "JWT")
#: RFC 9701, 5 requires the resource server in ``aud``: its identifier URI or its client id.
INTROSPECTION_AUDIENCES = ("identifier", "id")
#: The response format: that of the G2P Connect interface, or that of RFC 6749.
G2P_ANSWERS = ("document", "oauth")
LOOPBACK_HOSTS = frozenset({"127.0.0.1", "::1", "localhost"})
#: The width of the columns for client ids.
MAXIMUM_ID_CHARACTERS = 128
MAXIMUM_NAME_CHARACTERS = 200
MAXIMUM_IDENTIFIER_CHARACTERS = 500

# Accepts the ids of other systems if they are unambiguous in a URL, a log and a Basic header: path
# segments, none of which is empty, "." or "..".
_ID = re.compile(
    rf"(?=.{{3,{MAXIMUM_ID_CHARACTERS}}}\Z)[A-Za-z0-9_-](?:[A-Za-z0-9._~@:-]*[A-Za-z0-9_-])?"
    r"(?:/[A-Za-z0-9_-](?:[A-Za-z0-9._~@:-]*[A-Za-z0-9_-])?)*"
)
#: Words with another meaning in commands and records, also before a colon.
RESERVED_IDS = frozenset({"all", "issuer", "none", "operator", "registration", "server"})
# RFC 3986, appendix A: the characters of a URI; anything else has to be percent-encoded.
_URI_CHARACTERS = re.compile(r"(?:[A-Za-z0-9\-._~:/?\[\]@!$&'()*+,;=]|%[0-9A-Fa-f]{2})+")


@dataclass(frozen=True, slots=True)
class ClientLimits:
    """The values that the settings, the grants and the authentication methods permit.

    Args:
        maximum_token_lifetime_seconds: the limit of a client's own token lifetime.
        ring_names: the key rings that a resource server may name.
        grant_types: the grant types that a client may have.
        authentication_methods: the values that ``authentication_method`` may have.
        issuer: the URL that no resource server may have as identifier; empty: unknown.
        maximum_live_secrets: the number of working secrets that a client may have.
        maximum_live_imported_secrets: the number of these that may be imported; each costs an
            argon2id computation per failed attempt.
        check_details_grant: raises InvalidChangeError for a grant of authorization details, by its
            type, that the type does not accept; None: there are no types.
    """

    maximum_token_lifetime_seconds: int
    ring_names: frozenset[str]
    grant_types: tuple[str, ...]
    authentication_methods: tuple[str, ...]
    issuer: str = ""
    maximum_live_secrets: int = 10
    maximum_live_imported_secrets: int = 2
    check_details_grant: Callable[[str, Mapping[str, Any]], None] | None = None


def require_id(value: str) -> str:
    """Require 3 to 128 of ``[A-Za-z0-9_.~@:/-]``; no segment begins or ends in one of ``.~@:``.

    RFC 6749, A.1 permits more, which are ambiguous in a URL, a log or a Basic header.
    """
    if not _ID.fullmatch(value):
        raise InvalidChangeError(
            "id: use 3 to 128 characters of A-Z, a-z, 0-9, _, -, and between them . @ : / ~"
        )
    if value.partition(":")[0].lower() in RESERVED_IDS:
        raise InvalidChangeError(f"id: {value!r} has a meaning of its own in commands or records")
    return value


def require_text(field: str, value: object, *, may_be_empty: bool = False) -> str:
    """Require one line of at most 200 printable characters."""
    if not isinstance(value, str) or len(value) > MAXIMUM_NAME_CHARACTERS:
        raise InvalidChangeError(f"{field}: use at most {MAXIMUM_NAME_CHARACTERS} characters")
    if not value.isprintable():
        raise InvalidChangeError(f"{field}: control and invisible characters are not allowed")
    if not may_be_empty and not value.strip():
        raise InvalidChangeError(f"{field}: it must not be empty")
    return value


def require_choice(field: str, value: object, choices: tuple[str, ...]) -> str:
    """Require one of ``choices``."""
    if not isinstance(value, str) or value not in choices:
        raise InvalidChangeError(f"{field}: use {' or '.join(choices)}")
    return value


def require_subset(field: str, values: Iterable[str], choices: tuple[str, ...]) -> list[str]:
    """Require values of ``choices``; return each once, in the given order."""
    chosen = require_list(field, values)
    for value in chosen:
        if value not in choices:
            raise InvalidChangeError(f"{field}: {value!r} is not one of {', '.join(choices)}")
    return chosen


def require_list(field: str, values: Iterable[str]) -> list[str]:
    """Require a list of strings; return each once."""
    listed = [values] if isinstance(values, str) else list(values)
    if not all(isinstance(value, str) for value in listed):
        raise InvalidChangeError(f"{field}: use a list of strings")
    return list(dict.fromkeys(listed))


def require_lifetime(value: object, limits: ClientLimits) -> int | None:
    """Require whole seconds from 1 to the maximum of the settings, or None for the default."""
    if value is None:
        return None
    maximum = limits.maximum_token_lifetime_seconds
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= maximum:
        raise InvalidChangeError(
            f"token_lifetime_seconds: use whole seconds from 1 to {maximum} "
            "(tokens.maximum_lifetime_seconds)"
        )
    return value


def require_instant(field: str, value: object) -> datetime | None:
    """Require a time with its zone, or None."""
    if value is None:
        return None
    if not isinstance(value, datetime) or value.tzinfo is None:
        raise InvalidChangeError(f"{field}: use a time with its zone, such as 2030-01-31T12:00:00Z")
    return value


def require_identifier(value: object) -> str:
    """Require an absolute URI without fragment (RFC 8707, 2): https, http on loopback, or urn."""
    field = "identifier"
    if not isinstance(value, str) or len(value) > MAXIMUM_IDENTIFIER_CHARACTERS:
        raise InvalidChangeError(f"{field}: use at most {MAXIMUM_IDENTIFIER_CHARACTERS} characters")
    if not _URI_CHARACTERS.fullmatch(value):
        raise InvalidChangeError(f"{field}: it is not an absolute URI without fragment")
    try:
        parts = urlsplit(value)
        usable = _is_usable_uri(parts.scheme, parts.hostname, parts.path)
        port_is_number = parts.port is None or parts.port > 0
    except ValueError:
        usable = port_is_number = False
    # A host of other characters has one form that is compared, in ASCII (``xn--``).
    if not usable or not port_is_number or "@" in parts.netloc or "%" in parts.netloc:
        raise InvalidChangeError(f"{field}: use an https URI, http on loopback only, or a urn")
    return value


def _is_usable_uri(scheme: str, host: str | None, path: str) -> bool:
    if scheme == "urn":
        namespace, _, rest = path.partition(":")
        return host is None and bool(namespace) and bool(rest)
    return (scheme == "https" and bool(host)) or (scheme == "http" and host in LOOPBACK_HOSTS)


Rule = Callable[[Any, ClientLimits], Any]

#: The fields that clients and resource servers share, each with its rule.
SHARED_RULES: Mapping[str, Rule] = {
    "name": lambda value, _: require_text("name", value),
    "organisation": lambda value, _: require_text("organisation", value, may_be_empty=True),
    "authentication_method": lambda value, limits: require_choice(
        "authentication_method", value, limits.authentication_methods
    ),
    "permissions": lambda value, _: require_subset("permissions", value, PERMISSIONS),
    "starts_at": lambda value, _: require_instant("starts_at", value),
    "expires_at": lambda value, _: require_instant("expires_at", value),
    "properties": lambda value, _: {} if value == {} else check_properties(value),
}
CLIENT_RULES: Mapping[str, Rule] = {
    **SHARED_RULES,
    "grant_types": lambda value, limits: require_subset("grant_types", value, limits.grant_types),
    "allowed_scopes": lambda value, _: require_list("allowed_scopes", value),
    "default_scopes": lambda value, _: require_list("default_scopes", value),
    "allowed_resource_servers": lambda value, _: require_list("allowed_resource_servers", value),
    "token_lifetime_seconds": require_lifetime,
    "g2p_answer": lambda value, _: require_choice("g2p_answer", value, G2P_ANSWERS),
}


def _require_ring(value: object, limits: ClientLimits) -> str | None:
    if value is None:
        return None
    return require_choice("signing_ring", value, tuple(sorted(limits.ring_names)))


RESOURCE_RULES: Mapping[str, Rule] = {
    "identifier": lambda value, _: require_identifier(value),
    "token_format": lambda value, _: require_choice("token_format", value, TOKEN_FORMATS),
    "signing_ring": _require_ring,
    "token_type": lambda value, _: require_choice("token_type", value, TOKEN_TYPES),
    "introspection_audience": lambda value, _: require_choice(
        "introspection_audience", value, INTROSPECTION_AUDIENCES
    ),
}


def checked_values(
    values: Mapping[str, Any], rules: Mapping[str, Rule], limits: ClientLimits
) -> dict[str, Any]:
    """Return the values to store; an unknown field raises InvalidChangeError."""
    for field in values:
        if field not in rules:
            raise InvalidChangeError(f"{field}: there is no such field to change")
    return {field: rules[field](value, limits) for field, value in values.items()}
