"""The clients and scopes that name a scope, which is not deleted as long as one does."""

from collections.abc import Set as AbstractSet
from typing import Literal, NamedTuple

from sqlalchemy import select
from sqlalchemy.orm import Session

from authz_server.clients.models import CLIENT_GRANT, Client
from authz_server.scopes.models import Scope


class Holder(NamedTuple):
    """A client that may ask for a scope, or another scope whose callback it is."""

    scope: str
    noun: Literal["client", "scope"]
    name: str


def find_holder(session: Session, scopes: AbstractSet[str]) -> Holder | None:
    """Return the first client, or else the first other scope, that names one of some scopes."""
    # Of the tables themselves: what lies outside the limits of the caller counts too.
    grant, scope = CLIENT_GRANT.c, Scope.__table__.c
    granted = select(grant.name, grant.client_id).where(
        grant.kind == "scope", grant.name.in_(sorted(scopes))
    )
    found = session.execute(granted.order_by(grant.client_id, grant.name).limit(1)).first()
    if found is not None:
        return Holder(found.name, "client", found.client_id)
    partners = select(scope.name, scope.callback_partner).order_by(scope.name)
    for name, partner in session.execute(partners):
        if name not in scopes and partner in scopes:
            return Holder(partner, "scope", name)
    return None


def name_holder(session: Session, holder: Holder, *, is_limited: bool) -> str:
    """Return the name of a holder as the caller may learn of it.

    Args:
        session: a session that sees what the caller sees.
        holder: the holder.
        is_limited: whether the caller has limits.
    """
    model = Client if holder.noun == "client" else Scope
    if not is_limited or session.get(model, holder.name) is not None:
        return f"the {holder.noun} {holder.name!r}"
    return f"a {holder.noun} outside your limits"
