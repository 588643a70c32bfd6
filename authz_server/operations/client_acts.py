"""The acts on clients that may need a second person."""

from typing import TYPE_CHECKING

from sqlalchemy import select
from sqlalchemy.orm import Session

from authz_server.assembly import Services
from authz_server.clients.models import Client
from authz_server.clients.secret_changes import is_live
from authz_server.scopes.models import Scope
from authz_server.settings.admin import PERMISSIONS
from authz_server.settings.approvals import ADD_CREDENTIAL, CHANGE_KEYS, CHANGE_ROLE, GRANT_MONEY

if TYPE_CHECKING:
    from authz_server.operations.clients import ClientView

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
#: Those by which a client authenticates.
_CREDENTIALS = frozenset(KEY_PROPERTIES) - {
    "token_endpoint_auth_signing_alg",
    "message_key_thumbprint",
}


def find_acts(
    session: Session, before: "ClientView | None", after: "ClientView"
) -> tuple[str, ...]:
    """Return the acts that the registration or the change of a client is.

    Args:
        session: the transaction.
        before: the client before; None: it is new.
        after: the client after.
    """
    granted = set(after.allowed_scopes).difference(before.allowed_scopes if before else ())
    acts = []
    if granted:
        money = select(Scope.name).where(Scope.risk == "money")
        if not granted.isdisjoint(session.scalars(money)):
            acts.append(GRANT_MONEY)
    # Otherwise a caller could give itself an approver.
    if not granted.isdisjoint(PERMISSIONS):
        acts.append(CHANGE_ROLE)
    if before is not None and _keys_of(before) != _keys_of(after):
        acts.append(CHANGE_KEYS)
    return tuple(acts)


def find_secret_acts(services: Services, client: Client) -> tuple[str, ...]:
    """Return the acts that a further secret of a client is, before it is added."""
    if client.kind != "client":
        return ()
    now = services.clock()
    has_secret = any(is_live(secret, now) for secret in client.secrets)
    return (ADD_CREDENTIAL,) if has_secret or not _CREDENTIALS.isdisjoint(client.properties) else ()


def find_owners(session: Session, scopes: tuple[str, ...]) -> tuple[str, ...]:
    """Return the ids of the resource servers that own the scopes, sorted."""
    query = select(Scope.resource_server_id).where(Scope.name.in_(scopes)).distinct()
    return tuple(sorted(owner for owner in session.scalars(query) if owner is not None))


def _keys_of(client: "ClientView") -> dict[str, object]:
    keys = {name: client.properties.get(name) for name in KEY_PROPERTIES}
    return {"authentication_method": client.authentication_method, **keys}
