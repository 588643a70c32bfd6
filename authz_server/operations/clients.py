"""Register, list, show, change, enable, disable and delete clients.

The functions with a ``kind`` are for resource servers too.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from authz_server.assembly import Services
from authz_server.audit.records import difference, record_difference
from authz_server.clients.models import Client, Kind
from authz_server.clients.secret_changes import PreparedSecret
from authz_server.operations.approvals import NotedAct, note_act
from authz_server.operations.client_acts import find_acts, find_organisation, find_owners
from authz_server.operations.client_secrets import NewSecret, add_initial_secret
from authz_server.operations.client_views import ClientView, describe_client
from authz_server.operations.revocation import note_revocation
from authz_server.operations.views import changed_fields, revision_of
from authz_server.scopes.models import Scope

_PAGE_ROWS = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class RegisteredClient:
    """A new client.

    Attributes:
        client: the stored client.
        secret: its first secret; None if none was requested.
        unowned_scopes: its scopes without a resource server; requests for them are refused.
    """

    client: ClientView
    secret: NewSecret | None
    unowned_scopes: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ChangedClient:
    """A client after a change.

    Attributes:
        client: the stored client.
        changed: the names of the fields whose values changed.
        unowned_scopes: its scopes without a resource server; requests for them are refused.
    """

    client: ClientView
    changed: tuple[str, ...]
    unowned_scopes: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Switched:
    """A client or resource server that was enabled or disabled.

    Attributes:
        id: its id.
        enabled: True if it is enabled now.
        changed: True if its state changed.
        tokens_revoked: True if the tokens issued before were revoked.
    """

    id: str
    enabled: bool
    changed: bool
    tokens_revoked: bool


def create_client(  # noqa: PLR0913 - the fields themselves, by name
    services: Services,
    /,
    *,
    actor: str,
    id: str | None = None,  # noqa: A002 - the field's name
    with_secret: bool = True,
    imported_secret: bytes | None = None,
    prepared: PreparedSecret | None = None,
    **fields: Any,  # noqa: ANN401 - those of the service
) -> RegisteredClient:
    """Register a client, with its first secret.

    Args:
        services: the parts of the server.
        actor: the recorded actor.
        id: the client's id; None: one is generated.
        with_secret: add a first secret.
        imported_secret: an existing secret to store as the first; None: one is generated.
        prepared: a secret that an approved change adds.
        fields: those of :meth:`ClientService.create_client`; in scopes, a trailing ``/*`` stands
            for all scopes below.

    Raises:
        InvalidChangeError: a value breaks a rule.
        NotFoundError: the catalogue has no scope below a ``/*``.
        ConflictError: the id is taken.
    """
    with services.transaction() as session:
        fields = _expand_scopes(services, session, fields)
        client = services.clients.create_client(session, actor=actor, id=id, **fields)
        secret = add_initial_secret(
            services,
            session,
            client.id,
            actor=actor,
            wanted=with_secret,
            imported=imported_secret,
            prepared=prepared,
        )
        registered = describe_client(client, services.corrected_clock())
        note_client(
            services,
            session,
            None,
            registered,
            actor=actor,
            operation="create_client",
            arguments={**fields, "id": client.id, "with_secret": secret is not None},
            secret=_first_secret(client),
        )
        return RegisteredClient(
            client=registered,
            secret=secret,
            unowned_scopes=tuple(find_unowned_scopes(session, client)),
        )


def get_client(services: Services, client_id: str) -> ClientView:
    """Return a client; NotFoundError if there is none of that id."""
    with services.transaction() as session:
        client = services.clients.get_client(session, client_id, kind="client")
        return describe_client(client, services.corrected_clock())


def update_client(
    services: Services,
    /,
    client_id: str,
    *,
    actor: str,
    **changes: Any,  # noqa: ANN401 - those of the service
) -> ChangedClient:
    """Change the named fields of a client; a list replaces the whole list.

    Args:
        services: the parts of the server.
        client_id: the client's id.
        actor: the recorded actor.
        changes: as the fields of :func:`create_client`.

    Raises:
        InvalidChangeError: a value breaks a rule.
        NotFoundError: there is no such client, or the catalogue has no scope below a ``/*``.
    """
    with services.transaction() as session:
        changes = _expand_scopes(services, session, changes)
        now = services.corrected_clock()
        before = describe_client(
            services.clients.get_client(session, client_id, kind="client"), now
        )
        client = services.clients.update_client(session, client_id, actor=actor, **changes)
        after = describe_client(client, now)
        note_client(
            services,
            session,
            before,
            after,
            actor=actor,
            operation="update_client",
            arguments={**changes, "client_id": client_id},
        )
        return ChangedClient(
            client=after,
            changed=changed_fields(before, after),
            unowned_scopes=tuple(find_unowned_scopes(session, client)),
        )


def set_enabled(  # noqa: PLR0913 - which, to what, by whom
    services: Services,
    client_id: str,
    *,
    kind: Kind,
    actor: str,
    enabled: bool,
    revoke_tokens: bool = False,
) -> Switched:
    """Enable or disable a client or resource server; effective on every node within a second.

    Args:
        services: the parts of the server.
        client_id: its id.
        kind: the kind that it must have.
        actor: the recorded actor.
        enabled: the new state.
        revoke_tokens: revoke the tokens that the client was issued until now.

    Raises:
        NotFoundError: there is none of that id.
    """
    with services.transaction() as session:
        row = services.clients.get_client(session, client_id, kind=kind)
        before, seen = row.enabled, describe_client(row, services.corrected_clock())
        services.clients.set_enabled(
            session, client_id, actor=actor, enabled=enabled, revoke_tokens=revoke_tokens
        )
        after = describe_client(row, services.corrected_clock())
        if kind == "client":
            note_client(
                services,
                session,
                seen,
                after,
                actor=actor,
                operation="set_enabled",
                arguments={
                    "client_id": client_id,
                    "kind": kind,
                    "enabled": enabled,
                    "revoke_tokens": revoke_tokens,
                },
            )
        record_difference(session, seen, after)
        if revoke_tokens:
            note_revocation(services, session, "client", client_id, actor=actor)
    return Switched(
        id=client_id, enabled=enabled, changed=before != enabled, tokens_revoked=revoke_tokens
    )


def delete_client(services: Services, client_id: str, *, kind: Kind, actor: str) -> None:
    """Delete a client or resource server with its secrets; its tokens are revoked.

    Args:
        services: the parts of the server.
        client_id: its id.
        kind: the kind that it must have.
        actor: the recorded actor.

    Raises:
        NotFoundError: there is none of that id.
        ConflictError: a stopped programme has this client; or clients are limited to this resource
            server, or it is stopped.
    """
    with services.transaction() as session:
        row = services.clients.get_client(session, client_id, kind=kind)
        before = describe_client(row, services.corrected_clock())
        services.clients.delete_client(session, client_id, actor=actor)
        record_difference(session, before, None)


def all_of_kind(services: Services, session: Session, kind: Kind) -> Iterator[Client]:
    """Yield every row of a kind, by id."""
    after = None
    while page := services.clients.list_clients(session, kind=kind, after=after, limit=_PAGE_ROWS):
        yield from page
        after = page[-1].id


def find_unowned_scopes(session: Session, client: Client | None = None) -> Sequence[str]:
    """Return the granted scopes without a resource server, sorted; requests for them are refused.

    Args:
        session: a database session.
        client: the client whose scopes are checked; None: every client.
    """
    if client is not None:
        granted = set(client.allowed_scopes)
    else:
        granted = {
            name for names in session.scalars(select(Client.allowed_scopes)) for name in names
        }
    unowned = select(Scope.name).where(Scope.resource_server_id.is_(None)).order_by(Scope.name)
    return [name for name in session.scalars(unowned) if name in granted]


def note_client(  # noqa: PLR0913 - the facts of an act, by name
    services: Services,
    session: Session,
    before: ClientView | None,
    after: ClientView,
    *,
    actor: str,
    operation: str,
    arguments: Mapping[str, Any],
    secret: PreparedSecret | None = None,
) -> None:
    """Record the diff of the registration or the change of a client; it may need a second person.

    Args:
        services: the parts of the server.
        session: the transaction.
        before: the client before; None: it is new.
        after: the client after.
        actor: the recorded actor.
        operation: the operation, with its ``arguments``.
        arguments: its arguments, without a secret.
        secret: the first secret of a new client.
    """
    record_difference(session, before, after, subject=after.id)
    if not services.settings.approvals.acts:
        return
    former = after if before is None else before
    scopes = {*former.allowed_scopes, *after.allowed_scopes}
    act = NotedAct(
        acts=find_acts(
            session,
            before,
            after,
            default_lifetime_seconds=services.settings.tokens.default_lifetime_seconds,
        ),
        actor=actor,
        operation=operation,
        arguments=arguments,
        subject=f"client:{after.id}",
        organisation=find_organisation(former.organisation, scopes),
        resource_servers=find_owners(session, scopes),
        basis="" if before is None else revision_of(before),
        diff=difference(before, after),
        secret=secret,
    )
    note_act(services, session, act)


def _first_secret(client: Client) -> PreparedSecret | None:
    return next((PreparedSecret(each.id, each.record) for each in client.secrets), None)


def _expand_scopes(services: Services, session: Session, fields: dict[str, Any]) -> dict[str, Any]:
    scopes = {
        name: services.scopes.expand(session, fields[name])
        for name in ("allowed_scopes", "default_scopes")
        if name in fields
    }
    return fields | scopes
