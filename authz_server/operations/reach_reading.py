"""Read what is within limits."""

from sqlalchemy import func, select, union_all
from sqlalchemy.orm import Session

from authz_server.audit.pending_changes import PendingChange
from authz_server.clients.models import CLIENT_GRANT, Client, ResourceServer
from authz_server.operations.id_lists import is_sqlite
from authz_server.operations.permissions import Limits
from authz_server.operations.reach import Reach
from authz_server.operations.seen_records import find_foreign_until
from authz_server.scopes.models import Scope


def load_reach(session: Session, limits: Limits) -> Reach:
    """Return what is within limits.

    Args:
        session: a session that is not narrowed.
        limits: the limits of a caller.
    """
    servers, organisations = limits.resource_servers, limits.organisations
    found = session.execute(select(Client.id, Client.organisation).join(ResourceServer))
    named = {
        each: organisation for each, organisation in found if servers is None or each in servers
    }
    own = {
        each
        for each, organisation in named.items()
        if organisations is None or organisation in organisations
    }
    seen = own | {each for each, organisation in named.items() if not organisation}
    owned = session.execute(select(Scope.name, Scope.resource_server_id))
    owners = {name: owner for name, owner in owned}  # noqa: C416 - typed rows
    seen_scopes = {
        name
        for name, owner in owners.items()
        if owner in seen or (owner is None and servers is None)
    }
    if organisations is not None and servers is None:
        query = select(Client.allowed_scopes).where(
            Client.kind == "client", Client.organisation.in_(organisations)
        )
        seen_scopes |= {name for names in session.scalars(query) for name in names}
    own_scopes = {name: owner for name, owner in owners.items() if owner in own}
    return Reach(
        limits=limits,
        seen_servers=frozenset(seen),
        own_servers=frozenset(own),
        seen_scopes=frozenset(seen_scopes),
        own_scopes=frozenset(own_scopes),
        is_sqlite=is_sqlite(session),
        foreign_until=find_foreign_until(session, limits, own, own_scopes),
    )


def lies_within(session: Session, change: PendingChange, limits: Limits) -> bool:
    """Return whether everything that a change concerns lies within limits.

    Args:
        session: a session that is not narrowed.
        change: the stored change.
        limits: the limits.
    """
    if not limits:
        return True
    seen = load_reach(session, limits).conditions[PendingChange]
    found = select(PendingChange.id).where(PendingChange.id == change.id, seen)
    return session.scalar(found) is not None


def find_client_range(session: Session, reach: Reach) -> tuple[str, str] | None:
    """Return the first and the last id of the clients with a scope or resource server of a reach.

    Args:
        session: a session that is not narrowed.
        reach: what is within the limits of a caller.

    Returns:
        the ids; None: the clients are few, or not limited by resource servers.
    """
    if reach.seen_clients is not None or reach.limits.resource_servers is None:
        return None
    grant = CLIENT_GRANT.c
    ends = []
    for kind, name, seen in (
        ("scope", Scope.name, reach.seen_scopes),
        ("resource_server", ResourceServer.client_id, reach.seen_servers),
    ):
        # Of each name, the index has both ends.
        of_name = select(grant.client_id).where(grant.kind == kind, grant.name == name).limit(1)
        first = of_name.order_by(grant.client_id).scalar_subquery()
        last = of_name.order_by(grant.client_id.desc()).scalar_subquery()
        ends.append(select(first.label("lowest"), last.label("highest")).where(name.in_(seen)))
    # Compared by the database, in whose order of letters the ids are.
    each = union_all(*ends).subquery().c
    row = session.execute(select(func.min(each.lowest), func.max(each.highest))).one()
    return None if row[0] is None else (row[0], row[1])
