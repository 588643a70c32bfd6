"""Scopes that clients were granted though no resource server owns them."""

from collections.abc import Sequence

from sqlalchemy import select
from sqlalchemy.orm import Session

from authz_server.clients.models import Client
from authz_server.scopes.models import Scope


def find_unowned_scopes(session: Session, client: Client | None = None) -> Sequence[str]:
    """Return the names of such scopes, sorted: requests for them are refused.

    Args:
        session: on the database.
        client: whose grants are looked at; None: every client's.
    """
    if client is not None:
        granted = set(client.allowed_scopes)
    else:
        granted = {
            name for names in session.scalars(select(Client.allowed_scopes)) for name in names
        }
    unowned = select(Scope.name).where(Scope.resource_server_id.is_(None)).order_by(Scope.name)
    return [name for name in session.scalars(unowned) if name in granted]
