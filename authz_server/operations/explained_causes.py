"""The change that helps against each cause of a refusal, for explanations."""

from authz_server.assembly import Services
from authz_server.operations.limited_services import reach_of
from authz_server.tokens.models import Stop

_SHOW = "`authz-server client show {client}` has the registration."

#: By the reason in the audit record; `{client}` and `{detail}` are those of the refusal.
REMEDIES = {
    "client_unknown": "Register the client: `authz-server client create {client}`.",
    "refused_by_policy": "The detail names the plugin and its reason; see its settings.",
    "client_disabled": "Enable the client: `authz-server client enable {client}`.",
    "client_not_yet_valid": "Change its start: `authz-server client update {client} --starts`.",
    "client_expired": "Change its end: `authz-server client update {client} --expires`.",
    "network_not_allowed": "Add the network of the address to its `allowed_networks`. " + _SHOW,
    "secret_expired": "Add a secret by `authz-server client secret add {client}`.",
    "method_not_registered": "Use the registered method, or register this one. " + _SHOW,
    "grant_type_not_allowed": "Register the client for the grant type. " + _SHOW,
    "outside_payment_window": "Wait for the next of its `payment_windows`, or add one. " + _SHOW,
    "scope_not_granted": (
        "Grant the scope beside those that the client has: `authz-server client update {client}"
        " --scope`. `authz-server scope list` has the known ones. Name no resource of another"
        " resource server."
    ),
    "scope_without_resource_server": (
        "Assign the scope to a resource server that is enabled: `authz-server scope assign`; or"
        " enable the one that it has: `authz-server resource-server enable`."
    ),
    "scope_missing": (
        "Request a scope, or give the client one by default:"
        " `authz-server client update {client} --default-scope`."
    ),
    "scope_too_long": "Request fewer scopes, or raise `tokens.maximum_scope_bytes`.",
    "scope_several_resource_servers": (
        "Request one token for each resource server, or change `tokens.several_resource_servers`."
    ),
    "resource_invalid": (
        "Name the identifier of one resource server that the client may reach:"
        " `authz-server resource-server list`."
    ),
    "authorization_details_missing": "Request the scope with `authorization_details`.",
    "client_stopped": "Lift the stop: `authz-server stop lift {detail}`.",
    "scope_stopped": "Lift the stop of the scope: `authz-server stop list`.",
    "resource_server_stopped": "Lift the stop of the resource server: `authz-server stop list`.",
    "programme_stopped": "Lift the stop of the programme: `authz-server stop list`.",
}


#: By the cause of an inactive token; `{client}` and `{detail}` are those of the token.
TOKEN_REMEDIES = {
    "signature": "Request a new token. This one was altered, or another server issued it.",
    "key": "Request a new token. `authz-server keys list` has the state of the key.",
    "expired": "Request a new token.",
    "not_yet_valid": "Wait, and compare the clocks of the nodes.",
    "token_revoked": "Request a new token. A revocation is final.",
    "cut_off": "Request a new token. A revocation is final.",
    "origin_revoked": "Request a new subject token, and exchange it.",
    "client_deleted": "Register the client, and request a new token.",
    "client_replaced": "Request a new token. The client was deleted and registered again since.",
    "scopes_withdrawn": (
        "Grant the client one of the scopes: `authz-server client update {client} --scope`."
    ),
    "details_withdrawn": "Grant the details: `authorization_details_grants` of the client.",
    "audience": (
        "Ask as a resource server of the audience, as the client itself, or with the permission"
        " `introspect:any`."
    ),
    "scopes_of_others": "Assign a scope of the token to the resource server that asks.",
}


def is_stop_seen(services: Services, stop: str) -> bool:
    """Return whether the caller sees a stop in lists, so that an explanation may name it.

    Args:
        services: the parts of the server, as the caller sees them.
        stop: the kind and the subject of the stop, such as ``programme cash``.
    """
    if reach_of(services) is None:
        return True
    kind, _, subject = stop.partition(" ")
    with services.database.reading() as session:
        return session.get(Stop, (kind, subject)) is not None
