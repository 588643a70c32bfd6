"""Optional properties of clients and resource servers, stored together in one JSON column.

A property that is a client's metadata has the name that RFC 7591 and its extensions register.
A member of :class:`ClientProperties` and, beyond its type, a rule declare a property.
"""

from collections.abc import Callable, Mapping
from functools import partial
from types import MappingProxyType
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from authz_server.clients.certificate_names import NAME_RULES, require_one_name
from authz_server.clients.message_keys import MessageKey, check_message_key, check_sender_id
from authz_server.clients.networks import check_networks
from authz_server.clients.payment_windows import PaymentWindow, check_windows
from authz_server.clients.registered_keys import (
    check_assertion_algorithm,
    check_content_encryption,
    check_jwks,
    check_jwks_uri,
    check_key_management,
    require_encryption_key,
    require_one_key_source,
)
from authz_server.clients.token_budgets import TokenBudget, check_budgets
from authz_server.clients.token_exchange import Party, TokenExchangePolicy
from authz_server.clients.workload_identities import WorkloadIdentity, check_identities
from authz_server.errors import InvalidChangeError

Names = Annotated[
    tuple[Annotated[str, Meta(min_length=1, max_length=200)], ...], Meta(max_length=50)
]


class ClientProperties(
    msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True
):
    """The properties of a client; each has a default, which is not stored.

    Attributes:
        jwks: its public keys as a JWK set (RFC 7591, 2).
        jwks_uri: or the address of the set.
        token_endpoint_auth_signing_alg: the only algorithm of its assertions.
        introspection_encrypted_response_alg: the algorithm by which the keys of its signed
            introspection responses are encrypted (RFC 9701, 6); None: they are not encrypted.
        introspection_encrypted_response_enc: the algorithm of their content; None:
            ``A128CBC-HS256``.
        workload_identities: the workloads that authenticate as this client.
        jwt_bearer_subjects: the subjects of registered issuers whose assertions it may present as
            authorization (RFC 7523, 2.1).
        allowed_networks: the IP addresses and networks that its requests may come from.
        payment_windows: the times of the week at which it may obtain tokens.
        token_budget: the numbers of tokens that it may obtain within a period.
        sender_id: the ``sender_id`` of its G2P Connect messages.
        message_key_thumbprint: the key or certificate by which it signs them.
        dpop_bound_access_tokens: whether every token is bound to a key by DPoP (RFC 9449, 5.2).
        tls_client_auth_subject_dn: the subject of its certificate (RFC 4514; RFC 8705, 2.1.2).
        tls_client_auth_san_dns: or a DNS name in the subject alternative name.
        tls_client_auth_san_uri: or a URI in it.
        tls_client_auth_san_ip: or an IP address in it.
        tls_client_auth_san_email: or an email address in it.
        tls_client_certificate_bound_access_tokens: whether every token is bound to its certificate
            (RFC 8705, 3.4).
        authorization_details_types: the types of authorization details that it may use (RFC 9396,
            10); None: every type that it has grants for.
        authorization_details_grants: the limits of its authorization details, by type; a detail
            has to be within one grant of its type.
        authorization_details_required: whether the scopes of these types need such a detail.
        token_exchange: the tokens that it may exchange (RFC 8693); None: it exchanges none.
        admin_resource_servers: the ids of the resource servers that it administers; empty: all.
        admin_organisations: the organisations that it administers; empty: all.
        may_act: the party that may act for it, as its tokens name it (RFC 8693, 4.4).
        status_list: of a resource server: whether its JWTs have an entry in a status list.
    """

    jwks: dict[str, Any] | None = None
    jwks_uri: str | None = None
    token_endpoint_auth_signing_alg: str | None = None
    introspection_encrypted_response_alg: str | None = None
    introspection_encrypted_response_enc: str | None = None
    workload_identities: tuple[WorkloadIdentity, ...] = ()
    jwt_bearer_subjects: tuple[WorkloadIdentity, ...] = ()
    allowed_networks: tuple[str, ...] = ()
    payment_windows: tuple[PaymentWindow, ...] = ()
    token_budget: tuple[TokenBudget, ...] = ()
    sender_id: str = ""
    message_key_thumbprint: MessageKey | None = None
    dpop_bound_access_tokens: bool = False
    tls_client_auth_subject_dn: str = ""
    tls_client_auth_san_dns: str = ""
    tls_client_auth_san_uri: str = ""
    tls_client_auth_san_ip: str = ""
    tls_client_auth_san_email: str = ""
    tls_client_certificate_bound_access_tokens: bool = False
    authorization_details_types: Names | None = None
    authorization_details_grants: dict[str, tuple[dict[str, Any], ...]] = {}
    authorization_details_required: bool = True
    token_exchange: TokenExchangePolicy | None = None
    admin_resource_servers: Names = ()
    admin_organisations: Names = ()
    may_act: Party | None = None
    status_list: bool = False


NO_PROPERTIES = ClientProperties()
NO_CHANGES: Mapping[str, object] = MappingProxyType({})

#: Rules beyond the type. A rule takes a value and returns the one to store.
PROPERTY_RULES: Mapping[str, Callable[[Any], Any]] = {
    "jwks": check_jwks,
    "jwks_uri": check_jwks_uri,
    "token_endpoint_auth_signing_alg": check_assertion_algorithm,
    "introspection_encrypted_response_alg": check_key_management,
    "introspection_encrypted_response_enc": check_content_encryption,
    "workload_identities": partial(check_identities, "workload_identities"),
    "jwt_bearer_subjects": partial(check_identities, "jwt_bearer_subjects"),
    "allowed_networks": check_networks,
    "payment_windows": check_windows,
    "token_budget": check_budgets,
    "sender_id": check_sender_id,
    "message_key_thumbprint": check_message_key,
    **NAME_RULES,
}

PROPERTY_NAMES = tuple(field.name for field in msgspec.structs.fields(ClientProperties))


def read_properties(stored: Mapping[str, Any]) -> ClientProperties:
    """Return the properties of a row; a property of a newer release is ignored."""
    if not stored:
        return NO_PROPERTIES
    known = {name: stored[name] for name in PROPERTY_NAMES if name in stored}
    return msgspec.convert(known, ClientProperties)


def check_properties(changes: object) -> dict[str, Any]:
    """Return the values to store, by name; None stands for a property to remove.

    Raises:
        InvalidChangeError: there is no such property, or a value breaks its rule.
    """
    if not isinstance(changes, Mapping):
        raise InvalidChangeError("properties: use an object of names and values")
    checked: dict[str, Any] = {}
    for name, value in changes.items():
        if name not in PROPERTY_NAMES:
            known = ", ".join(PROPERTY_NAMES)
            raise InvalidChangeError(f"{name}: there is no such property; there are {known}")
        rule = PROPERTY_RULES.get(name)
        checked[name] = rule(value) if rule is not None and value is not None else value
    _convert({name: value for name, value in checked.items() if value is not None})
    return checked


def merge_properties(stored: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Return the stored properties with checked changes.

    Raises:
        InvalidChangeError: two properties contradict each other.
    """
    merged = {name: value for name, value in {**stored, **changes}.items() if value is not None}
    newer = {name: value for name, value in merged.items() if name not in PROPERTY_NAMES}
    known = {name: value for name, value in merged.items() if name in PROPERTY_NAMES}
    properties = _convert(known)
    require_consistent(properties)
    plain: dict[str, Any] = msgspec.to_builtins(properties)
    return newer | plain


def require_consistent(properties: ClientProperties) -> None:
    """Raise InvalidChangeError if two properties contradict each other."""
    require_one_name(properties)
    require_one_key_source(properties.jwks, properties.jwks_uri)
    require_encryption_key(
        properties.introspection_encrypted_response_alg,
        properties.introspection_encrypted_response_enc,
        properties.jwks,
        properties.jwks_uri,
    )


def _convert(values: Mapping[str, Any]) -> ClientProperties:
    try:
        return msgspec.convert(values, ClientProperties)
    except msgspec.ValidationError as error:
        text = str(error)
        path = text.partition("`$.")[2].partition("`")[0] or "properties"
        raise InvalidChangeError(f"{path}: {text.partition(' - at ')[0]}") from error
