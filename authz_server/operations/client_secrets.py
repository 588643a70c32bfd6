"""Add, list and end the secrets of clients and resource servers."""

from dataclasses import dataclass, field
from datetime import datetime

from sqlalchemy.orm import Session

from authz_server.assembly import Services
from authz_server.clients.models import ClientSecret, Kind
from authz_server.clients.secret_changes import is_live
from authz_server.clients.secrets import ARGON2_PREFIX, METHODS_WITHOUT_SECRET


@dataclass(frozen=True, slots=True, kw_only=True)
class SecretView:
    """A secret as operators see it, without its value and its record.

    Attributes:
        imported: True if it was imported.
        works: True if it authenticates now.
        ends_at: the time at which it ends or ended; None: it does not end.
        last_used_at: the time of its last authentication, to about a minute; None: never.
        last_used_from: the IP address of the sender of that request.
        ends_when_unused_seconds: it ends when it has not been used for this time; None: it does
            not end so.
    """

    id: str
    description: str
    imported: bool
    works: bool
    created_at: datetime
    ends_at: datetime | None
    last_used_at: datetime | None
    last_used_from: str | None
    ends_when_unused_seconds: int | None


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


def add_initial_secret(  # noqa: PLR0913 - which, for whom, by whom
    services: Services,
    session: Session,
    client_id: str,
    *,
    actor: str,
    wanted: bool,
    imported: bytes | None,
) -> NewSecret | None:
    """Add the first secret in the transaction of the registration.

    Returns:
        None if none is wanted, or none is imported and the client's method uses none.
    """
    client = services.clients.get_client(session, client_id)
    has_no_use = client.authentication_method in METHODS_WITHOUT_SECRET and imported is None
    if not wanted or has_no_use:
        return None
    secret, generated = services.clients.add_secret(
        session, client_id, actor=actor, imported_secret=imported
    )
    return NewSecret(id=secret.id, expires_at=secret.expires_at, value=generated)


def add_secret(  # noqa: PLR0913 - the fields themselves, by name
    services: Services,
    client_id: str,
    *,
    kind: Kind,
    actor: str,
    description: str = "",
    expires_at: datetime | None = None,
    imported: bytes | None = None,
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

    Raises:
        NotFoundError: there is none of that id.
        InvalidChangeError: a value breaks a rule.
        ConflictError: it has the maximum number of working secrets.
    """
    with services.transaction() as session:
        services.clients.get_client(session, client_id, kind=kind)
        secret, generated = services.clients.add_secret(
            session,
            client_id,
            actor=actor,
            description=description,
            expires_at=expires_at,
            imported_secret=imported,
        )
        return NewSecret(id=secret.id, expires_at=secret.expires_at, value=generated)


def list_secrets(services: Services, client_id: str, *, kind: Kind) -> tuple[SecretView, ...]:
    """Return all secrets of a client or resource server, including ended ones.

    Raises:
        NotFoundError: there is none of that id.
    """
    with services.transaction() as session:
        client = services.clients.get_client(session, client_id, kind=kind)
        now = services.clock()
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
        now = services.clock()
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
        services.clients.get_client(session, client_id, kind=kind)
        secret = services.clients.end_secret(session, client_id, secret_id, actor=actor, at=at)
        return describe_secret(secret, services.clock())


def describe_secret(secret: ClientSecret, now: datetime) -> SecretView:
    """Return the view of a stored secret."""
    ends = [end for end in (secret.ended_at, secret.expires_at) if end is not None]
    return SecretView(
        id=secret.id,
        description=secret.description,
        imported=secret.record.startswith(ARGON2_PREFIX),
        works=is_live(secret, now),
        created_at=secret.created_at,
        ends_at=min(ends, default=None),
        last_used_at=secret.last_used_at,
        last_used_from=secret.last_used_from,
        ends_when_unused_seconds=secret.ends_when_unused_seconds,
    )
