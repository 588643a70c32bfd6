"""Add, list and end the secrets of clients and resource servers."""

from dataclasses import dataclass, field
from datetime import datetime

from sqlalchemy.orm import Session

from authz_server.assembly import Services
from authz_server.audit.records import difference, record_difference
from authz_server.clients.models import Client, ClientSecret, Kind, is_live
from authz_server.clients.secret_changes import PreparedSecret
from authz_server.clients.secrets import is_secret_method
from authz_server.operations.approvals import NotedAct, note_act
from authz_server.operations.client_acts import find_organisation, find_owners, find_secret_acts
from authz_server.operations.client_views import SecretView, describe_secret
from authz_server.operations.views import revision_of


@dataclass(frozen=True, slots=True, kw_only=True)
class NewSecret:
    """A secret that was added.

    Attributes:
        id: its id.
        expires_at: the time at which it ends; None: it does not end.
        value: the generated secret, which cannot be read again; empty if it was imported.
    """

    id: str
    expires_at: datetime | None
    value: str = field(repr=False)


def new_secret(secret: ClientSecret, generated: str) -> NewSecret:
    """Return a stored secret with its generated value."""
    return NewSecret(id=secret.id, expires_at=secret.expires_at, value=generated)


def add_initial_secret(  # noqa: PLR0913 - which, for whom, by whom
    services: Services,
    session: Session,
    client_id: str,
    *,
    actor: str,
    wanted: bool,
    imported: bytes | None,
    prepared: PreparedSecret | None = None,
) -> NewSecret | None:
    """Add the first secret in the transaction of the registration.

    Returns:
        None if none is wanted, or none is imported and the client's method uses none.
    """
    client = services.clients.get_client(session, client_id)
    is_made = imported is not None or prepared is not None
    if not wanted or not (is_made or is_secret_method(client.authentication_method)):
        return None
    secret, generated = services.clients.add_secret(
        session, client_id, actor=actor, imported_secret=imported, prepared=prepared
    )
    return new_secret(secret, generated)


def add_secret(  # noqa: PLR0913 - the fields themselves, by name
    services: Services,
    client_id: str,
    *,
    kind: Kind,
    actor: str,
    description: str = "",
    expires_at: datetime | None = None,
    imported: bytes | None = None,
    prepared: PreparedSecret | None = None,
) -> NewSecret:
    """Add a secret to a client or resource server; the others keep working.

    Args:
        services: the parts of the server.
        client_id: the id of the client or resource server.
        kind: the kind that it must have.
        actor: the recorded actor.
        description: the purpose of the secret.
        expires_at: the time at which it ends; None: it does not end.
        imported: an existing secret to store; None: one is generated.
        prepared: a secret that an approved change adds.

    Raises:
        NotFoundError: there is none of that id.
        InvalidChangeError: a value breaks a rule.
        ConflictError: it has the maximum number of working secrets.
    """
    with services.transaction() as session:
        client = services.clients.get_client(session, client_id, kind=kind)
        watch = SecretWatch(services, session, client)
        secret, generated = services.clients.add_secret(
            session,
            client_id,
            actor=actor,
            description=description,
            expires_at=expires_at,
            imported_secret=imported,
            prepared=prepared,
        )
        watch.note(
            secret,
            actor=actor,
            operation="add_secret",
            description=description,
            expires_at=expires_at,
        )
        return new_secret(secret, generated)


def list_secrets(services: Services, client_id: str, *, kind: Kind) -> tuple[SecretView, ...]:
    """Return all secrets of a client or resource server, including ended ones.

    Raises:
        NotFoundError: there is none of that id.
    """
    with services.transaction() as session:
        client = services.clients.get_client(session, client_id, kind=kind)
        now = services.corrected_clock()
        return tuple(describe_secret(secret, now) for secret in client.secrets)


def is_last_secret(
    services: Services, client_id: str, secret_id: str, *, kind: Kind, at: datetime | None = None
) -> bool:
    """Return whether a secret is the last one that works at the time of its end.

    Args:
        services: the parts of the server.
        client_id: the id of the client or resource server.
        secret_id: the secret to end.
        kind: the kind that it must have.
        at: the time of the end; None: now.

    Raises:
        NotFoundError: there is no client or resource server of that id.
    """
    with services.transaction() as session:
        client = services.clients.get_client(session, client_id, kind=kind)
        now = services.corrected_clock()
        end = max(at or now, now)
        return not any(is_live(each, end) for each in client.secrets if each.id != secret_id)


def end_secret(  # noqa: PLR0913 - which, when, by whom
    services: Services,
    client_id: str,
    secret_id: str,
    *,
    kind: Kind,
    actor: str,
    at: datetime | None = None,
) -> SecretView:
    """End a secret permanently.

    Args:
        services: the parts of the server.
        client_id: the id of the client or resource server.
        secret_id: the secret.
        kind: the kind that it must have.
        actor: the recorded actor.
        at: the time of the end; None: now.

    Raises:
        NotFoundError: there is no such client, resource server or secret.
        ConflictError: it already ends earlier.
    """
    with services.transaction() as session:
        client = services.clients.get_client(session, client_id, kind=kind)
        now = services.corrected_clock()
        before = {each.id: describe_secret(each, now) for each in client.secrets}
        secret = services.clients.end_secret(session, client_id, secret_id, actor=actor, at=at)
        after = describe_secret(secret, services.corrected_clock())
        record_difference(session, before.get(secret.id), after)
        return after


class SecretWatch:
    """Notes the addition of a secret, which may need a second person.

    Args:
        services: the parts of the server.
        session: the transaction.
        client: the client or resource server before the addition.
    """

    def __init__(self, services: Services, session: Session, client: Client) -> None:
        self._services = services
        self._session = session
        self._client = client
        watched = services.settings.approvals.acts
        self._acts = find_secret_acts(client) if watched else ()
        self._basis = revision_of(self._standing()) if self._acts else ""

    def note(
        self,
        added: ClientSecret,
        *,
        actor: str,
        operation: str,
        **arguments: object,
    ) -> None:
        """Record the diff of the addition, and note it.

        Args:
            added: the new secret.
            actor: the recorded actor.
            operation: the operation.
            arguments: its further arguments.
        """
        client, now = self._client, self._services.corrected_clock()
        record_difference(self._session, None, describe_secret(added, now))
        if not self._acts:
            return
        act = NotedAct(
            acts=self._acts,
            actor=actor,
            operation=operation,
            arguments={"client_id": client.id, "kind": client.kind, **arguments},
            subject=f"{client.kind}:{client.id}",
            organisation=find_organisation(client.organisation, client.allowed_scopes),
            resource_servers=find_owners(self._session, client.allowed_scopes),
            basis=self._basis,
            diff=difference(None, describe_secret(added, now)),
            secret=PreparedSecret(added.id, added.record),
        )
        note_act(self._services, self._session, act)

    def _standing(self) -> object:
        """Return what the decision about a further secret rests on."""
        client = self._client
        secrets = [(each.id, each.ended_at, each.expires_at) for each in client.secrets]
        return (client.id, client.updated_at, client.allowed_scopes, secrets)
