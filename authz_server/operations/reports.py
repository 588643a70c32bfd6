"""Reports of least privilege, and of scopes and callbacks without an owner."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import and_, exists, func, or_, select
from sqlalchemy.orm import Session

from authz_server.assembly import Services
from authz_server.clients.models import CLIENT_GRANT, Client, ClientSecret
from authz_server.operations.client_conditions import in_state, is_active, is_unused_since
from authz_server.operations.client_search import LISTS_CLIENTS
from authz_server.operations.limited_services import reach_of
from authz_server.operations.reach import Reach
from authz_server.scopes.models import Scope
from authz_server.scopes.service import find_canonical_names
from authz_server.scopes.uses import ScopeUse


@dataclass(frozen=True, slots=True, kw_only=True)
class UnusedScopes:
    """A client with scopes that it does not use.

    Attributes:
        client_id: the client.
        organisation: its organisation.
        never_asked: allowed scopes that no token was issued with in the period.
        never_seen: allowed scopes that were issued, and that no resource server introspected a
            token with.
    """

    client_id: str
    organisation: str
    never_asked: tuple[str, ...]
    never_seen: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class DormantClient:
    """A client that obtained no token in the period.

    Attributes:
        client_id: the client.
        organisation: its organisation.
        scopes: the number of its allowed scopes.
        last_used_at: when it last obtained a token; None: never, as far as is known.
    """

    client_id: str
    organisation: str
    scopes: int
    last_used_at: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class DueSecret:
    """A secret that ends soon, or does not end.

    Attributes:
        client_id: the client or resource server.
        secret_id: the secret.
        created_at: when it was made.
        expires_at: when it ends; None: it does not end.
        last_used_at: when it was last used.
    """

    client_id: str
    secret_id: str
    created_at: datetime
    expires_at: datetime | None
    last_used_at: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class LeastPrivilege:
    """Permissions of clients that they do not use.

    Attributes:
        since: the beginning of the period.
        observed_since: when the use of scopes was first stored; None: it never was. A scope that
            was used only before then counts as unused.
        unused_scopes: the clients with scopes that they do not use.
        dormant_clients: the clients that obtained no token.
        secrets_due: the secrets that end within the period of warning, or are older than a year
            and have no end.
    """

    since: datetime
    observed_since: datetime | None
    unused_scopes: tuple[UnusedScopes, ...]
    dormant_clients: tuple[DormantClient, ...]
    secrets_due: tuple[DueSecret, ...]


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
        scopes_without_server: the scopes that no resource server owns, with the clients that have
            them; requests for them are refused.
        callbacks_without_partner: grants whose callback no client may make.
    """

    scopes_without_server: Mapping[str, tuple[str, ...]]
    callbacks_without_partner: tuple[MissingPartner, ...]


_OLD_SECRET = timedelta(days=366)


def report_least_privilege(services: Services, *, days: int = 90) -> LeastPrivilege:
    """Return what clients were permitted and did not use.

    A limited caller gets this of the scopes that it sees, and the secrets that it may change.

    Args:
        services: the parts of the server.
        days: the length of the period until now.
    """
    now = services.clock()
    since = now - timedelta(days=days)
    warning = now + timedelta(days=services.settings.clients.secret_warning_days)
    reach = reach_of(services)
    with services.database.reading() as session:
        return LeastPrivilege(
            since=since,
            observed_since=session.scalar(select(func.min(ScopeUse.first_at))),
            unused_scopes=_find_unused(session, since, reach),
            dormant_clients=_find_dormant(session, since, services.corrected_clock(), reach),
            secrets_due=_find_due(session, now, warning),
        )


def report_owners(services: Services, *, limit: int | None = None) -> Owners:
    """Return the scopes without a resource server, and the callbacks that no client may make.

    A limited caller gets those of which it sees the scope of the callback.

    Args:
        services: the parts of the server.
        limit: the largest number of clients of each scope, and of callbacks; None: all.
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


def _find_dormant(
    session: Session, since: datetime, now: datetime, reach: Reach | None
) -> tuple[DormantClient, ...]:
    """Return the clients, by id; columns alone: the rows of 100,000 clients take seconds."""
    if reach is not None and reach.limits.resource_servers is None:
        reach = None  # It sees the whole of each client.
    columns = (Client.allowed_resource_servers, Client.properties) if reach is not None else ()
    query = select(Client.id, Client.organisation, Client.allowed_scopes, *columns)
    is_dormant = (Client.created_at < since, *is_unused_since(since), in_state("enabled", now))
    query = query.where(Client.kind == "client", *is_dormant).order_by(Client.id)
    query = query.execution_options(**{LISTS_CLIENTS: True})
    used = _find_last_uses(session)
    found = []
    for each in session.execute(query):
        scopes, last_used_at = each.allowed_scopes, used.get(each.id)
        if reach is not None and not reach.owns_client(each):
            scopes, last_used_at = [name for name in scopes if name in reach.seen_scopes], None
        found.append(
            DormantClient(
                client_id=each.id,
                organisation=each.organisation,
                scopes=len(scopes),
                last_used_at=last_used_at,
            )
        )
    return tuple(found)


def _find_last_uses(session: Session) -> dict[str, datetime]:
    """Return when each client that was used was last seen to obtain a token."""
    of_secret = select(ClientSecret.client_id, func.max(ClientSecret.last_used_at))
    of_token = select(ScopeUse.client_id, func.max(ScopeUse.last_at)).where(
        ScopeUse.kind == "asked"
    )
    found: dict[str, datetime] = {}
    for query, client_id in ((of_secret, ClientSecret.client_id), (of_token, ScopeUse.client_id)):
        listed = query.group_by(client_id).execution_options(**{LISTS_CLIENTS: True})
        for each, at in session.execute(listed):
            if at is not None:
                found[each] = max(at, found.get(each, at))
    return found


def _find_unused(
    session: Session, since: datetime, reach: Reach | None
) -> tuple[UnusedScopes, ...]:
    used: dict[str, dict[str, set[str]]] = {}
    query = select(ScopeUse.client_id, ScopeUse.kind, ScopeUse.scope)
    uses = session.execute(query.where(ScopeUse.last_at >= since)).all()
    # Tokens may have other spellings.
    names = find_canonical_names(session, {scope for _, _, scope in uses})
    for client_id, kind, scope in uses:
        used.setdefault(client_id, {}).setdefault(kind, set()).add(names.get(scope, scope))
    rows = session.execute(
        select(Client.id, Client.organisation, Client.allowed_scopes)
        .where(Client.kind == "client", Client.created_at < since)
        .order_by(Client.id)
    )
    found = []
    for client_id, organisation, scopes in rows:
        allowed = [each for each in scopes if reach is None or each in reach.seen_scopes]
        kinds = used.get(client_id, {})
        asked, seen = kinds.get("asked", set()), kinds.get("seen", set())
        never_asked = _without(allowed, asked)
        never_seen = _without([each for each in allowed if each in asked], seen)
        if never_asked or never_seen:
            found.append(
                UnusedScopes(
                    client_id=client_id,
                    organisation=organisation,
                    never_asked=never_asked,
                    never_seen=never_seen,
                )
            )
    return tuple(found)


def _without(allowed: Iterable[str], used: set[str]) -> tuple[str, ...]:
    return tuple(each for each in allowed if each not in used)


def _find_due(session: Session, now: datetime, warning: datetime) -> tuple[DueSecret, ...]:
    is_old = and_(ClientSecret.expires_at.is_(None), ClientSecret.created_at < now - _OLD_SECRET)
    ends_soon = and_(ClientSecret.expires_at > now, ClientSecret.expires_at <= warning)
    rows = session.execute(
        select(
            ClientSecret.client_id,
            ClientSecret.id,
            ClientSecret.created_at,
            ClientSecret.expires_at,
            ClientSecret.last_used_at,
        )
        .where(is_active(now), or_(is_old, ends_soon))
        .order_by(ClientSecret.expires_at, ClientSecret.created_at, ClientSecret.id)
    )
    return tuple(
        DueSecret(
            client_id=client_id,
            secret_id=secret_id,
            created_at=created_at,
            expires_at=expires_at,
            last_used_at=last_used_at,
        )
        for client_id, secret_id, created_at, expires_at, last_used_at in rows
    )


def _holders(session: Session, scope: str, limit: int | None) -> tuple[str, ...]:
    """Return the ids of the clients that may ask for a scope, up to a number."""
    # Joined, as the caller sees the clients.
    query = select(Client.id).join(CLIENT_GRANT, CLIENT_GRANT.c.client_id == Client.id)
    query = query.where(CLIENT_GRANT.c.kind == "scope", CLIENT_GRANT.c.name == scope)
    return tuple(session.scalars(query.order_by(CLIENT_GRANT.c.client_id).limit(limit)))
