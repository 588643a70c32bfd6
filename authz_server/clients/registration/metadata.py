"""Client metadata of a registration (RFC 7591, 2): types, known members and languages.

Members without a meaning here are ignored, as section 2 requires. The values of the others are
checked by the rules for operators when the client is stored.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from authz_server.clients.properties import PROPERTY_NAMES
from authz_server.clients.validation import MAXIMUM_IDENTIFIER_CHARACTERS, require_text
from authz_server.errors import InvalidChangeError, OAuthError

#: RFC 7591, 2: the method of a client that names none.
DEFAULT_METHOD = "client_secret_basic"
#: Methods whose proof is a key of the client.
KEY_METHODS = frozenset({"private_key_jwt", "self_signed_tls_client_auth"})
#: Methods that need an operator's decision about each client.
OPERATORS_METHODS = frozenset({"workload_identity", "spiffe_jwt"})
#: The properties that a client may register for itself. Others are an operator's decision.
REGISTRABLE: tuple[str, ...] = tuple(
    name
    for name in (
        "jwks",
        "jwks_uri",
        "token_endpoint_auth_signing_alg",
        "tls_client_auth_subject_dn",
        "tls_client_auth_san_dns",
        "tls_client_auth_san_uri",
        "tls_client_auth_san_ip",
        "tls_client_auth_san_email",
        "tls_client_certificate_bound_access_tokens",
        "dpop_bound_access_tokens",
        "authorization_details_types",
    )
    if name in PROPERTY_NAMES
)
# RFC 7591, 2: ["code"] has the meaning of no list. Libraries send it for clients of every grant.
_RESPONSE_TYPES: tuple[list[str], ...] = ([], ["code"])
# RFC 6749, 3.3
_SCOPES = re.compile(r"[\x21\x23-\x5b\x5d-\x7e ]*")
MAXIMUM_SCOPE_CHARACTERS = 4_096
_CERTIFICATE_NAMES = frozenset(
    f"tls_client_auth_{kind}"
    for kind in ("subject_dn", "san_dns", "san_uri", "san_ip", "san_email")
)
MAXIMUM_CONTACTS = 10
MAXIMUM_TRANSLATIONS = 40
# RFC 7591, 2.2: a member in a language has its tag (BCP 47) after a number sign.
_TRANSLATED = re.compile(r"(?P<name>[a-z_]+)#(?P<tag>[A-Za-z]{2,8}(?:-[A-Za-z0-9]{1,8}){0,8})")
_TRANSLATABLE = frozenset({"client_name", "client_uri", "logo_uri", "tos_uri", "policy_uri"})


@dataclass(frozen=True, slots=True)
class ClientMetadata:
    """The known members of a registration.

    Attributes:
        scopes: the scopes in any spelling; None: those that the authority of the registration
            permits.
        grant_types: None: the default.
        method: a value of ``token_endpoint_auth_method``.
        properties: the value of each of :data:`REGISTRABLE`; None for one that is absent.
        members: members without an effect, which are stored and returned.
    """

    scopes: tuple[str, ...] | None
    grant_types: tuple[str, ...] | None
    method: str
    properties: Mapping[str, Any]
    members: Mapping[str, Any]

    @property
    def name(self) -> str:
        """The name under which operators see the client."""
        given = self.members.get("client_name") or self.members.get("software_id")
        return str(given or "Registered client")


def invalid_metadata(member: str, problem: str = "") -> OAuthError:
    """Return ``invalid_client_metadata``, whose description names a known member.

    Args:
        member: the member's name, which never comes from the request.
        problem: for the audit record; no value of the request.
    """
    error = OAuthError("client_metadata_invalid", f"{member}: {problem}" if problem else member)
    error.description = f"The member {member} is malformed or not permitted."
    return error


def read_metadata(document: Mapping[str, Any]) -> ClientMetadata:
    """Return the known members of a JSON object; a member that is null counts as absent.

    Raises:
        OAuthError: ``client_metadata_invalid`` or ``redirect_uri_refused``.
    """
    given = {name: value for name, value in document.items() if value is not None}
    if given.get("redirect_uris", []) != []:
        raise OAuthError("redirect_uri_refused")
    if given.get("response_types", []) not in _RESPONSE_TYPES:
        # RFC 7591, 2.1: a response type needs a grant that this server does not have.
        raise invalid_metadata("response_types", "there is no authorization endpoint")
    method = given.get("token_endpoint_auth_method", DEFAULT_METHOD)
    if not isinstance(method, str):
        raise invalid_metadata("token_endpoint_auth_method", "not a string")
    properties: dict[str, Any] = {name: given.get(name) for name in REGISTRABLE}
    _require_keys(method, given)
    return ClientMetadata(
        scopes=_read_scope(given.get("scope")),
        grant_types=_read_grant_types(given.get("grant_types")),
        method=method,
        properties=properties,
        members={**_read_members(given), **_read_translations(given)},
    )


def _require_keys(method: str, given: Mapping[str, Any]) -> None:
    if "jwks" in given and "jwks_uri" in given:
        # RFC 7591, 2
        raise invalid_metadata("jwks_uri", "jwks and jwks_uri exclude one another")
    if method in KEY_METHODS and not given.keys() & {"jwks", "jwks_uri"}:
        raise invalid_metadata("jwks", f"{method} needs jwks or jwks_uri")
    subjects = [name for name in REGISTRABLE if name in given and name in _CERTIFICATE_NAMES]
    if len(subjects) != (method == "tls_client_auth"):
        # RFC 8705, 2.1.2: a client of this method has exactly one of these names.
        raise invalid_metadata("tls_client_auth_subject_dn", "one name for tls_client_auth")


def _read_scope(scope: object) -> tuple[str, ...] | None:
    if scope is None:
        return None
    if (
        not isinstance(scope, str)
        or len(scope) > MAXIMUM_SCOPE_CHARACTERS
        or not _SCOPES.fullmatch(scope)
    ):
        raise invalid_metadata("scope", "not a list of scopes")
    return tuple(dict.fromkeys(filter(None, scope.split(" ")))) or None


def _read_grant_types(values: object) -> tuple[str, ...] | None:
    if values is None:
        return None
    if not isinstance(values, list) or not values or not all(isinstance(v, str) for v in values):
        raise invalid_metadata("grant_types", "not a list of strings")
    return tuple(dict.fromkeys(values))


def _read_members(given: Mapping[str, Any]) -> dict[str, Any]:
    return {name: check(name, given[name]) for name, check in _MEMBERS.items() if name in given}


def _read_translations(given: Mapping[str, Any]) -> dict[str, Any]:
    found = {}
    for key, value in given.items():
        parts = _TRANSLATED.fullmatch(key)
        if parts is not None and parts["name"] in _TRANSLATABLE:
            found[key] = _MEMBERS[parts["name"]](parts["name"], value)
    if len(found) > MAXIMUM_TRANSLATIONS:
        raise invalid_metadata("client_name", "too many translations")
    return found


def _text(name: str, value: object) -> str:
    try:
        return require_text(name, value)
    except InvalidChangeError:
        raise invalid_metadata(name, "not a line of text") from None


def _uri(name: str, value: object) -> str:
    usable = (
        isinstance(value, str)
        and len(value) <= MAXIMUM_IDENTIFIER_CHARACTERS
        and value.isascii()
        and value.isprintable()
        and " " not in value
    )
    try:
        parts = urlsplit(value if isinstance(value, str) and usable else "")
        usable = parts.scheme in {"https", "http"} and bool(parts.hostname)
    except ValueError:
        usable = False
    if not usable:
        raise invalid_metadata(name, "not a web address")
    return str(value)


def _contacts(name: str, value: object) -> list[str]:
    if not isinstance(value, list) or len(value) > MAXIMUM_CONTACTS:
        raise invalid_metadata(name, "not a short list")
    return [_text(name, contact) for contact in value]


#: Members without an effect, each with its check.
_MEMBERS: Mapping[str, Callable[[str, object], Any]] = {
    "client_name": _text,
    "client_uri": _uri,
    "logo_uri": _uri,
    "tos_uri": _uri,
    "policy_uri": _uri,
    "contacts": _contacts,
    "software_id": _text,
    "software_version": _text,
}

#: Every member with a meaning here.
MEMBER_NAMES: tuple[str, ...] = (
    *_MEMBERS,
    *REGISTRABLE,
    "grant_types",
    "redirect_uris",
    "response_types",
    "scope",
    "token_endpoint_auth_method",
)
