"""The fields of a client that decide what it may do, and when a new value permits more.

Each field of a client is in one of :data:`WIDER`, :data:`UNDER_OTHER_ACTS` and
:data:`WITHOUT_POWER`, so that a new field cannot widen what a client may do without an act.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import TYPE_CHECKING, Any

from authz_server.clients.properties import NO_PROPERTIES, read_properties
from authz_server.clients.token_budgets import TokenBudget
from authz_server.clients.token_exchange import ANY, TokenExchangePolicy
from authz_server.clients.validation import DEFAULT_GRANT_TYPES

if TYPE_CHECKING:
    from authz_server.operations.client_views import ClientView

_FIRST, _LAST = datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC)
_Network = IPv4Network | IPv6Network

#: The properties that are keys of a client, or name them.
KEY_PROPERTIES = (
    "jwks",
    "jwks_uri",
    "token_endpoint_auth_signing_alg",
    "workload_identities",
    "jwt_bearer_subjects",
    "message_key_thumbprint",
    "tls_client_auth_subject_dn",
    "tls_client_auth_san_dns",
    "tls_client_auth_san_uri",
    "tls_client_auth_san_ip",
    "tls_client_auth_san_email",
)
#: The fields whose changes are other acts: grants of scopes, and changes of keys.
UNDER_OTHER_ACTS = frozenset({"allowed_scopes", "authentication_method", *KEY_PROPERTIES})
#: The fields that permit nothing, and those of resource servers.
WITHOUT_POWER = frozenset(
    {
        "name",
        "organisation",
        "default_scopes",
        "g2p_answer",
        "introspection_encrypted_response_alg",
        "introspection_encrypted_response_enc",
        "status_list",
    }
)
#: Those of payments.
OF_PAYMENTS = frozenset(
    {
        "authorization_details_types",
        "authorization_details_grants",
        "authorization_details_required",
    }
)
_NEW: Mapping[str, Any] = {
    "grant_types": DEFAULT_GRANT_TYPES,
    "allowed_resource_servers": (),
    "permissions": (),
    "token_lifetime_seconds": None,
    "starts_at": None,
    "expires_at": None,
}


def find_widened(
    before: "ClientView | None", after: "ClientView", default_lifetime_seconds: int
) -> frozenset[str]:
    """Return the fields whose new values permit more, or may do so.

    Args:
        before: the client before; None: it is new, and compared with the default of each field.
        after: the client after.
        default_lifetime_seconds: the lifetime of tokens of a client without its own.
    """
    old, new = (_values(each, default_lifetime_seconds) for each in (before, after))
    return frozenset(name for name, is_wider in WIDER.items() if is_wider(old[name], new[name]))


def _values(client: "ClientView | None", default_lifetime_seconds: int) -> dict[str, Any]:
    columns = _NEW if client is None else {name: getattr(client, name) for name in _NEW}
    properties = NO_PROPERTIES if client is None else read_properties(client.properties)
    own = {name: getattr(properties, name) for name in WIDER if name not in _NEW}
    lifetime = columns["token_lifetime_seconds"] or default_lifetime_seconds
    return {**columns, **own, "token_lifetime_seconds": lifetime}


def _is_longer(old: Iterable[Any], new: Iterable[Any]) -> bool:
    """Return whether a list of what is permitted has a further member."""
    former = list(old)
    return any(each not in former for each in new)


def _limits_less(old: Sequence[Any], new: Sequence[Any]) -> bool:
    """Return whether a list that limits has a further member; an empty one limits nothing."""
    return bool(old) and (not new or _is_longer(old, new))


def _is_off(old: bool, new: bool) -> bool:  # noqa: FBT001 - the values of a field
    return old and not new


def _is_another(old: object, new: object) -> bool:
    return bool(new) and new != old


def _reaches_further(old: Sequence[str], new: Sequence[str]) -> bool:
    former = [ip_network(each, strict=False) for each in old]
    return bool(old) and (
        not new or not all(_is_within(ip_network(each, strict=False), former) for each in new)
    )


def _is_within(network: _Network, others: Iterable[_Network]) -> bool:
    # Of another version, a network is not comparable.
    return any(
        network.version == other.version and network.subnet_of(other)  # type: ignore[arg-type]
        for other in others
    )


def _spends_more(old: Iterable[TokenBudget], new: Iterable[TokenBudget]) -> bool:
    limits = {(each.per, each.scope): each.tokens for each in new}
    return any(
        (limit := limits.get((each.per, each.scope))) is None or limit > each.tokens for each in old
    )


def _names_more_types(old: Sequence[str] | None, new: Sequence[str] | None) -> bool:
    return old is not None and (new is None or _is_longer(old, new))


def _has_more_grants(old: Mapping[str, Sequence[Any]], new: Mapping[str, Sequence[Any]]) -> bool:
    # A type without grants limits nothing, and one with an empty list admits nothing.
    return not old.keys() <= new.keys() or any(
        _is_longer(old.get(name, ()), grants) for name, grants in new.items()
    )


def _exchanges_more(old: TokenExchangePolicy | None, new: TokenExchangePolicy | None) -> bool:
    if new is None:
        return False
    former = old or TokenExchangePolicy()
    lists = [(getattr(former, name), getattr(new, name)) for name in ("actors", "audiences")]
    subjects = [
        (former.subjects, new.subjects),
        *((former.issuers.get(name, ()), each) for name, each in new.issuers.items()),
    ]
    lists += [each for each in subjects if ANY not in each[0]]
    return any(_is_longer(*each) for each in lists) or _is_off(
        new.impersonation, former.impersonation
    )


#: For each field, whether a new value permits more than the one before.
WIDER: Mapping[str, Callable[[Any, Any], bool]] = {
    "grant_types": _is_longer,
    "allowed_resource_servers": _limits_less,
    "permissions": _is_longer,
    "token_lifetime_seconds": lambda old, new: new > old,
    "starts_at": lambda old, new: (new or _FIRST) < (old or _FIRST),
    "expires_at": lambda old, new: (new or _LAST) > (old or _LAST),
    "allowed_networks": _reaches_further,
    "payment_windows": _limits_less,
    "token_budget": _spends_more,
    "sender_id": _is_another,
    "dpop_bound_access_tokens": _is_off,
    "tls_client_certificate_bound_access_tokens": _is_off,
    "authorization_details_types": _names_more_types,
    "authorization_details_grants": _has_more_grants,
    "authorization_details_required": _is_off,
    "token_exchange": _exchanges_more,
    # Any exchange that its partners' own limits permit is possible without it.
    "may_act": lambda old, new: old is not None and new != old,
    "admin_resource_servers": _limits_less,
    "admin_organisations": _limits_less,
}
