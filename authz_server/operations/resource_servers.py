"""Register, list, show and change resource servers.

:mod:`authz_server.operations.clients` enables, disables and deletes them.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from authz_server.assembly import Services
from authz_server.audit.records import record_difference
from authz_server.clients.models import Client, Kind
from authz_server.operations.client_secrets import NewSecret, add_initial_secret
from authz_server.operations.client_views import SecretView, describe_secret, state_of
from authz_server.operations.clients import all_of_kind
from authz_server.operations.views import changed_fields
from authz_server.scopes.models import Scope

_KIND: Kind = "resource_server"


@dataclass(frozen=True, slots=True, kw_only=True)
class ResourceServerView:
    """A resource server as operators see it.

    Attributes:
        identifier: its URI, the audience of its tokens.
        organisation: the organisation that runs it; empty: it serves all.
        state: ``enabled`` or ``disabled``.
        signing_ring: the key ring that signs its tokens; None: the default ring.
        scopes: the canonical names of the scopes that it owns.
        properties: the optional properties that it has, by name.
        secrets: all secrets without their values, including ended ones.
    """

    id: str
    name: str
    identifier: str | None
    organisation: str
    state: str
    token_format: str | None
    signing_ring: str | None
    token_type: str | None
    introspection_audience: str | None
    authentication_method: str
    permissions: tuple[str, ...]
    scopes: tuple[str, ...]
    created_at: datetime
    updated_at: datetime
    properties: Mapping[str, Any]
    secrets: tuple[SecretView, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class RegisteredResourceServer:
    """A new resource server.

    Attributes:
        resource_server: the stored resource server.
        assigned_scopes: the canonical names of the assigned scopes, in the given order.
        secret: its first secret; None if none was requested.
    """

    resource_server: ResourceServerView
    assigned_scopes: tuple[str, ...]
    secret: NewSecret | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ChangedResourceServer:
    """A resource server after a change.

    Attributes:
        resource_server: the stored resource server.
        changed: the names of the fields whose values changed.
    """

    resource_server: ResourceServerView
    changed: tuple[str, ...]


def create_resource_server(  # noqa: PLR0913 - the fields themselves, by name
    services: Services,
    /,
    *,
    actor: str,
    id: str | None = None,  # noqa: A002 - the field's name
    scopes: Sequence[str] = (),
    take_over: bool = False,
    with_secret: bool = True,
    imported_secret: bytes | None = None,
    **fields: Any,  # noqa: ANN401 - those of the service
) -> RegisteredResourceServer:
    """Register a resource server, with its scopes and its first secret.

    Args:
        services: the parts of the server.
        actor: the recorded actor.
        id: its id; None: one is generated.
        scopes: scopes that it owns, in any spelling; a trailing ``/*`` stands for all below.
        take_over: allow a scope to be taken from another owner.
        with_secret: add a first secret.
        imported_secret: an existing secret to store as the first; None: one is generated.
        fields: those of :meth:`ClientService.create_resource_server`.

    Raises:
        InvalidChangeError: a value breaks a rule.
        NotFoundError: there is no such scope.
        ConflictError: the id or the identifier is taken, or a scope has another owner.
    """
    with services.transaction() as session:
        server = services.clients.create_resource_server(session, actor=actor, id=id, **fields)
        assigned = services.scopes.assign(
            session, scopes, server.id, actor=actor, take_over=take_over
        )
        secret = add_initial_secret(
            services, session, server.id, actor=actor, wanted=with_secret, imported=imported_secret
        )
        registered = _describe_one(services, session, server)
        record_difference(session, None, registered)
        return RegisteredResourceServer(
            resource_server=registered,
            assigned_scopes=assigned,
            secret=secret,
        )


def list_resource_servers(services: Services) -> tuple[ResourceServerView, ...]:
    """Return every resource server, by id."""
    with services.transaction() as session:
        found = all_of_kind(services, session, _KIND)
        return _describe_all(session, found, services.corrected_clock())


def page_resource_servers(
    services: Services, *, after: str | None, limit: int
) -> tuple[ResourceServerView, ...]:
    """Return a page of the resource servers by id, in the order of the database.

    Args:
        services: the parts of the server.
        after: the id after which the page begins; None: the first page.
        limit: the largest number of resource servers.
    """
    with services.database.reading() as session:
        found = services.clients.list_clients(session, kind=_KIND, after=after, limit=limit)
        return _describe_all(session, found, services.corrected_clock())


def _describe_all(
    session: Session, servers: Iterable[Client], now: datetime
) -> tuple[ResourceServerView, ...]:
    owned: dict[str | None, list[str]] = {}
    named = select(Scope.name, Scope.resource_server_id).order_by(Scope.name)
    for name, owner in session.execute(named):
        owned.setdefault(owner, []).append(name)
    return tuple(_describe(server, now, owned.get(server.id, ())) for server in servers)


def get_resource_server(services: Services, server_id: str) -> ResourceServerView:
    """Return a resource server; NotFoundError if there is none of that id."""
    with services.transaction() as session:
        server = services.clients.get_client(session, server_id, kind=_KIND)
        return _describe_one(services, session, server)


def update_resource_server(
    services: Services,
    /,
    server_id: str,
    *,
    actor: str,
    **changes: Any,  # noqa: ANN401 - those of the service
) -> ChangedResourceServer:
    """Change the named fields of a resource server.

    Args:
        services: the parts of the server.
        server_id: its id.
        actor: the recorded actor.
        changes: as the fields of :meth:`ClientService.create_resource_server`.

    Raises:
        NotFoundError: there is none of that id.
        InvalidChangeError: a value breaks a rule.
        ConflictError: the identifier is taken.
    """
    with services.transaction() as session:
        server = services.clients.get_client(session, server_id, kind=_KIND)
        before = _describe_one(services, session, server)
        services.clients.update_resource_server(session, server_id, actor=actor, **changes)
        after = _describe_one(services, session, server)
        record_difference(session, before, after)
        return ChangedResourceServer(resource_server=after, changed=changed_fields(before, after))


def _describe_one(services: Services, session: Session, client: Client) -> ResourceServerView:
    scopes = services.scopes.list_scopes(session, resource_server_id=client.id)
    return _describe(client, services.corrected_clock(), [scope.name for scope in scopes])


def _describe(client: Client, now: datetime, scopes: Sequence[str]) -> ResourceServerView:
    resource = client.resource_server
    return ResourceServerView(
        id=client.id,
        name=client.name,
        identifier=resource.identifier if resource else None,
        organisation=client.organisation,
        state=state_of(client, now),
        token_format=resource.token_format if resource else None,
        signing_ring=resource.signing_ring if resource else None,
        token_type=resource.token_type if resource else None,
        introspection_audience=resource.introspection_audience if resource else None,
        authentication_method=client.authentication_method,
        permissions=tuple(client.permissions),
        scopes=tuple(scopes),
        created_at=client.created_at,
        updated_at=client.updated_at,
        properties=dict(client.properties),
        secrets=tuple(describe_secret(secret, now) for secret in client.secrets),
    )
