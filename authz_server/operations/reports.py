"""Report the scopes and callbacks without an owner."""

from collections.abc import Mapping
from dataclasses import dataclass

from sqlalchemy import exists, select
from sqlalchemy.orm import Session

from authz_server.assembly import Services
from authz_server.clients.models import CLIENT_GRANT, Client
from authz_server.operations.limited_services import reach_of
from authz_server.scopes.models import Scope


@dataclass(frozen=True, slots=True, kw_only=True)
class MissingPartner:
    """A client that may call an operation, and not the scope of the operation that answers it.

    Attributes:
        client_id: the client.
        scope: the scope that it has.
        partner: the scope of the callback.
        missing: ``grant`` if no client has the partner, ``scope`` if the catalogue lacks it.
    """

    client_id: str
    scope: str
    partner: str
    missing: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Owners:
    """Scopes and callbacks without an owner.

    Attributes:
        scopes_without_server: the scopes that no resource server owns, with the first clients that
            have them; requests for them are refused.
        callbacks_without_partner: grants whose callback no client may make.
    """

    scopes_without_server: Mapping[str, tuple[str, ...]]
    callbacks_without_partner: tuple[MissingPartner, ...]


#: How many clients of a scope, and how many callbacks, the report has unless asked for more.
NAMED_CLIENTS = 20


def report_owners(services: Services, *, limit: int = NAMED_CLIENTS) -> Owners:
    """Return the scopes without a resource server, and the callbacks that no client may make.

    A limited caller gets those of which it sees the scope of the callback.

    Args:
        services: the parts of the server.
        limit: the largest number of clients of each scope, and of callbacks.
    """
    is_limited = reach_of(services) is not None
    with services.database.reading() as session:
        scopes = {scope.name: scope for scope in session.scalars(select(Scope))}
        granted = exists().where(CLIENT_GRANT.c.kind == "scope", CLIENT_GRANT.c.name == Scope.name)
        held = set(session.scalars(select(Scope.name).where(granted)))
        unowned = {
            name: _holders(session, name, limit) if name in held else ()
            for name, scope in sorted(scopes.items())
            if scope.resource_server_id is None
        }
        missing: list[MissingPartner] = []
        for name, scope in sorted(scopes.items()):
            partner = scope.callback_partner
            if partner is None or (is_limited and partner not in scopes):
                continue
            if name not in held or (partner in held and _holders(session, partner, 1)):
                continue
            lacking = "grant" if partner in scopes else "scope"
            missing += [
                MissingPartner(client_id=each, scope=name, partner=partner, missing=lacking)
                for each in _holders(session, name, limit)
            ]
    return Owners(scopes_without_server=unowned, callbacks_without_partner=tuple(missing[:limit]))


def _holders(session: Session, scope: str, limit: int) -> tuple[str, ...]:
    """Return the ids of the clients that may ask for a scope, up to a number."""
    # Joined, as the caller sees the clients.
    query = select(Client.id).join(CLIENT_GRANT, CLIENT_GRANT.c.client_id == Client.id)
    query = query.where(CLIENT_GRANT.c.kind == "scope", CLIENT_GRANT.c.name == scope)
    return tuple(session.scalars(query.order_by(CLIENT_GRANT.c.client_id).limit(limit)))
