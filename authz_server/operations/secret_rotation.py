"""Rotate secrets, and report the secrets that end soon."""

from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import exists, or_, select
from sqlalchemy.orm import load_only, selectinload

from authz_server.assembly import Services
from authz_server.clients.models import Client, ClientSecret, Kind, is_live
from authz_server.clients.secret_changes import PreparedSecret
from authz_server.clients.secret_rotation import is_replaced
from authz_server.operations.client_secrets import NewSecret, SecretWatch, new_secret
from authz_server.operations.client_views import SecretView, describe_secret, state_of

#: The columns that the report of due secrets reads: the lists of a client take longer.
_COLUMNS = (
    load_only(Client.name, Client.enabled, Client.starts_at, Client.expires_at),
    selectinload(Client.secrets).load_only(
        ClientSecret.description,
        ClientSecret.created_at,
        ClientSecret.expires_at,
        ClientSecret.ended_at,
        ClientSecret.last_used_at,
        ClientSecret.last_used_from,
        ClientSecret.pepper_fingerprint,
    ),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class RotatedSecret:
    """The result of a rotation.

    Attributes:
        new: the added secret.
        old: the secrets that worked before, with their ends.
    """

    new: NewSecret
    old: tuple[SecretView, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class DueSecret:
    """A secret that ends soon, or that was made with another pepper.

    Attributes:
        id: the client or resource server.
        name: its name.
        secret_id: the secret's id.
        ends_at: the time at which it ends; None: it does not end.
        days_left: the whole days until then.
        last_used_at: the time of its last use; None: never.
        last_used_from: the IP address of the sender of that request.
        replaced: whether another secret works longer, and this one was not used since.
        other_pepper: whether it was made with another pepper than that of the settings, so that it
            is refused.
    """

    id: str
    name: str
    secret_id: str
    description: str
    ends_at: datetime | None
    days_left: int | None
    last_used_at: datetime | None
    last_used_from: str | None
    replaced: bool
    other_pepper: bool = False


def rotate_secret(  # noqa: PLR0913 - the fields themselves, by name
    services: Services,
    client_id: str,
    *,
    kind: Kind,
    actor: str,
    end_old_at: datetime | None = None,
    end_old_when_unused: timedelta | None = None,
    description: str = "",
    expires_at: datetime | None = None,
    imported: bytes | None = None,
    prepared: PreparedSecret | None = None,
) -> RotatedSecret:
    """Add a secret, and plan the end of those that work; one of the two ends is required.

    Args:
        services: the parts of the server.
        client_id: the id of the client or resource server.
        kind: the kind that it must have.
        actor: the recorded actor.
        end_old_at: the time at which the old secrets end.
        end_old_when_unused: the time without a use after which each old secret ends.
        description: the purpose of the new secret.
        expires_at: the time at which the new secret ends; None: it does not end.
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
        secret, generated, old = services.clients.rotate_secret(
            session,
            client_id,
            actor=actor,
            end_old_at=end_old_at,
            end_old_when_unused=end_old_when_unused,
            description=description,
            expires_at=expires_at,
            imported_secret=imported,
            prepared=prepared,
        )
        watch.note(
            secret,
            actor=actor,
            operation="rotate_secret",
            end_old_at=end_old_at,
            end_old_when_unused=end_old_when_unused,
            description=description,
            expires_at=expires_at,
        )
        now = services.corrected_clock()
        return RotatedSecret(
            new=new_secret(secret, generated),
            old=tuple(describe_secret(each, now) for each in old),
        )


def list_due_secrets(services: Services, *, kind: Kind, within: timedelta) -> tuple[DueSecret, ...]:
    """Return the secrets of enabled clients or resource servers that end soon, the first one first.

    Before them stand those that were made with another pepper, also if they do not end soon.

    Args:
        services: the parts of the server.
        kind: clients or resource servers.
        within: the time from now within which they end.
    """
    with services.transaction() as session:
        now, fingerprint = services.corrected_clock(), services.secrets.fingerprint
        until = now + within
        is_due = exists().where(
            ClientSecret.client_id == Client.id,
            or_(
                ClientSecret.expires_at.between(now, until),
                ClientSecret.pepper_fingerprint != fingerprint,
            ),
        )
        query = select(Client).options(*_COLUMNS).where(Client.kind == kind, is_due)
        due = [
            _describe(client, secret, fingerprint, now)
            for client in session.scalars(query)
            if state_of(client, now) in ("enabled", "not yet")
            for secret in client.secrets
            if is_live(secret, now)
        ]
    found = (each for each in due if each.other_pepper or (each.ends_at and each.ends_at <= until))
    return tuple(sorted(found, key=order_of))


def order_of(due: DueSecret) -> str:
    """Return the key by which the list is sorted."""
    end = "" if due.other_pepper or due.ends_at is None else due.ends_at.isoformat()
    return f"{end} {due.id} {due.secret_id}"


def _describe(client: Client, secret: ClientSecret, fingerprint: str, now: datetime) -> DueSecret:
    return DueSecret(
        id=client.id,
        name=client.name,
        secret_id=secret.id,
        description=secret.description,
        ends_at=secret.expires_at,
        days_left=(secret.expires_at - now).days if secret.expires_at else None,
        last_used_at=secret.last_used_at,
        last_used_from=secret.last_used_from,
        replaced=is_replaced(secret, client.secrets, now),
        other_pepper=secret.pepper_fingerprint not in {None, fingerprint},
    )
