"""The acts on clients that may need a second person."""

from collections.abc import Iterable
from collections.abc import Set as AbstractSet
from typing import TYPE_CHECKING, get_args

from sqlalchemy import select
from sqlalchemy.orm import Session

from authz_server.audit.models import AuditRecord
from authz_server.clients.models import Client
from authz_server.clients.properties import read_properties
from authz_server.clients.validation import DEFAULT_GRANT_TYPES
from authz_server.operations.client_power import (
    KEY_PROPERTIES,
    OF_PAYMENTS,
    WIDER,
    find_widened,
)
from authz_server.operations.permissions import limits_of
from authz_server.scopes.models import Scope
from authz_server.settings.admin import PERMISSIONS
from authz_server.settings.approvals import (
    ADD_CREDENTIAL,
    CHANGE_KEYS,
    CHANGE_ROLE,
    FIRST_CREDENTIAL,
    GRANT,
    GRANT_MONEY,
    WIDEN_LIMITS,
    ApprovedAct,
)

if TYPE_CHECKING:
    from authz_server.operations.client_views import ClientView

#: Those by which a client authenticates.
_CREDENTIALS = frozenset(KEY_PROPERTIES) - {
    "token_endpoint_auth_signing_alg",
    "message_key_thumbprint",
}


def find_acts(
    session: Session,
    before: "ClientView | None",
    after: "ClientView",
    *,
    default_lifetime_seconds: int,
) -> tuple[str, ...]:
    """Return the acts that the registration or the change of a client is.

    Args:
        session: the transaction.
        before: the client before; None: it is new.
        after: the client after.
        default_lifetime_seconds: the lifetime of tokens of a client without its own.
    """
    held = set(after.allowed_scopes)
    granted = held.difference(before.allowed_scopes if before else ())
    acts = set(find_grants(session, granted))
    widened = find_widened(before, after, default_lifetime_seconds)
    if widened or (before is not None and before.state == "disabled" != after.state):
        acts.add(WIDEN_LIMITS)
    if before is None:
        if after.secrets or not _CREDENTIALS.isdisjoint(after.properties):
            acts.add(FIRST_CREDENTIAL)
        if _was_deleted(session, after.id):
            acts.add(ADD_CREDENTIAL)
        return _in_order(acts)
    if not widened.isdisjoint(OF_PAYMENTS) and not held.isdisjoint(_find_money(session)):
        acts.add(GRANT_MONEY)
    if _administers_more(before, after):
        acts.add(CHANGE_ROLE)
    if _keys_of(before) != _keys_of(after):
        acts.add(CHANGE_KEYS)
    return _in_order(acts)


def find_grants(session: Session, scopes: AbstractSet[str]) -> tuple[str, ...]:
    """Return the acts that a new grant of scopes is.

    Args:
        session: the transaction.
        scopes: the canonical names of the scopes.
    """
    acts: set[str] = set()
    if scopes:
        acts.add(GRANT)
    if not scopes.isdisjoint(_find_money(session)):
        acts.add(GRANT_MONEY)
    # Otherwise a caller could give itself an approver.
    if not scopes.isdisjoint(PERMISSIONS):
        acts.add(CHANGE_ROLE)
    return _in_order(acts)


def find_registration_acts(
    session: Session, scopes: AbstractSet[str], grant_types: Iterable[str]
) -> tuple[str, ...]:
    """Return the acts that an initial access token amounts to.

    Args:
        session: the transaction.
        scopes: the canonical names of the scopes that it may give.
        grant_types: the grant types that it may give.
    """
    # Each of the clients gets a secret or brings a key.
    acts = {*find_grants(session, scopes), FIRST_CREDENTIAL}
    if WIDER["grant_types"](DEFAULT_GRANT_TYPES, grant_types):
        acts.add(WIDEN_LIMITS)
    return _in_order(acts)


def find_secret_acts(client: Client) -> tuple[str, ...]:
    """Return the acts that the addition of a secret to a client amounts to.

    A secret that has ended counts: otherwise a caller could end the only one, and add its own.
    """
    if client.kind != "client":
        return ()
    had_one = client.secrets or not _CREDENTIALS.isdisjoint(client.properties)
    return (ADD_CREDENTIAL if had_one else FIRST_CREDENTIAL,)


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
    """Return the ids of the resource servers that own the scopes, sorted.

    For scopes that belong to none there is an empty id, which lies within no limits by resource
    servers.
    """
    query = select(Scope.resource_server_id).where(Scope.name.in_(tuple(scopes))).distinct()
    return tuple(sorted(owner or "" for owner in session.scalars(query)))


def _in_order(acts: AbstractSet[str]) -> tuple[str, ...]:
    return tuple(name for name in get_args(ApprovedAct) if name in acts)


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


def _keys_of(client: "ClientView") -> dict[str, object]:
    keys = {name: client.properties.get(name) for name in KEY_PROPERTIES}
    return {"authentication_method": client.authentication_method, **keys}
