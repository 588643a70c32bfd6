"""The acts on clients that may need a second person."""

from collections.abc import Iterable
from collections.abc import Set as AbstractSet
from typing import TYPE_CHECKING

from sqlalchemy import select
from sqlalchemy.orm import Session

from authz_server.audit.sink import AuditRecord
from authz_server.clients.models import Client
from authz_server.clients.properties import read_properties
from authz_server.operations.permissions import limits_of
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
    held = set(after.allowed_scopes)
    granted = held.difference(before.allowed_scopes if before else ())
    acts = list(find_grants(session, granted))
    pays_more = before is not None and _pays_more(before, after)
    if pays_more and GRANT_MONEY not in acts and not held.isdisjoint(_find_money(session)):
        acts.append(GRANT_MONEY)
    if before is not None and CHANGE_ROLE not in acts and _administers_more(before, after):
        acts.append(CHANGE_ROLE)
    if before is not None and _keys_of(before) != _keys_of(after):
        acts.append(CHANGE_KEYS)
    if before is None and _was_deleted(session, after.id):
        acts.append(ADD_CREDENTIAL)
    return tuple(acts)


def find_grants(session: Session, scopes: AbstractSet[str]) -> tuple[str, ...]:
    """Return the acts that a new grant of scopes is.

    Args:
        session: the transaction.
        scopes: the canonical names of the scopes.
    """
    acts = []
    if not scopes.isdisjoint(_find_money(session)):
        acts.append(GRANT_MONEY)
    # Otherwise a caller could give itself an approver.
    if not scopes.isdisjoint(PERMISSIONS):
        acts.append(CHANGE_ROLE)
    return tuple(acts)


def find_secret_acts(client: Client) -> tuple[str, ...]:
    """Return the acts that a further secret of a client is, before it is added.

    A secret that has ended counts: otherwise a caller could end the only one, and add its own.
    """
    if client.kind != "client":
        return ()
    had_one = client.secrets or not _CREDENTIALS.isdisjoint(client.properties)
    return (ADD_CREDENTIAL,) if had_one else ()


def find_organisation(organisation: str, scopes: Iterable[str]) -> str | None:
    """Return the organisation whose approvers decide on an act on a client.

    Args:
        organisation: that of the client.
        scopes: its scopes, before the act and after it.

    Returns:
        the organisation; None for a client of the admin API, on which an approver without limits
        decides.
    """
    return organisation if set(scopes).isdisjoint(PERMISSIONS) else None


def find_owners(session: Session, scopes: Iterable[str]) -> tuple[str, ...]:
    """Return the ids of the resource servers that own the scopes, sorted."""
    query = select(Scope.resource_server_id).where(Scope.name.in_(tuple(scopes))).distinct()
    return tuple(sorted(owner for owner in session.scalars(query) if owner is not None))


def _find_money(session: Session) -> frozenset[str]:
    """Return the names of the scopes of risk ``money``."""
    # Of the table itself: a token for registrations may have scopes that its creator does not see.
    scopes = Scope.__table__.c
    return frozenset(session.scalars(select(scopes.name).where(scopes.risk == "money")))


def _was_deleted(session: Session, client_id: str) -> bool:
    """Return whether there was a client of this id, whose work a new one may take over."""
    # Of the table itself: the record is not within the limits of a caller.
    records = AuditRecord.__table__.c
    deleted = select(records.id).where(
        records.subject == client_id, records.action == "client.deleted"
    )
    return session.scalar(deleted.limit(1)) is not None


def _administers_more(before: "ClientView", after: "ClientView") -> bool:
    """Return whether the limits of a client that administers became wider."""
    if set(after.allowed_scopes).isdisjoint(PERMISSIONS):
        return False
    limits = [limits_of(read_properties(each.properties)) for each in (after, before)]
    return not limits[0].is_within(limits[1])


def _pays_more(before: "ClientView", after: "ClientView") -> bool:
    """Return whether limits of authorization details were taken off, or may have become wider.

    A type without grants limits nothing, and one with an empty list admits nothing.
    """
    old, new = read_properties(before.properties), read_properties(after.properties)
    if old.authorization_details_required and not new.authorization_details_required:
        return True
    types, old_types = new.authorization_details_types, old.authorization_details_types
    if old_types is not None and (types is None or not set(types) <= set(old_types)):
        return True
    grants, former = new.authorization_details_grants, old.authorization_details_grants
    return not former.keys() <= grants.keys() or any(
        grant not in former.get(name, ()) for name, each in grants.items() for grant in each
    )


def _keys_of(client: "ClientView") -> dict[str, object]:
    keys = {name: client.properties.get(name) for name in KEY_PROPERTIES}
    return {"authentication_method": client.authentication_method, **keys}
