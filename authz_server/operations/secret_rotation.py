"""Rotate secrets."""

from dataclasses import dataclass
from datetime import datetime, timedelta

from authz_server.assembly import Services
from authz_server.clients.models import Kind
from authz_server.clients.secret_changes import PreparedSecret
from authz_server.operations.client_secrets import NewSecret, SecretWatch, new_secret
from authz_server.operations.client_views import SecretView, describe_secret


@dataclass(frozen=True, slots=True, kw_only=True)
class RotatedSecret:
    """The result of a rotation.

    Attributes:
        new: the added secret.
        old: the secrets that worked before, with their ends.
    """

    new: NewSecret
    old: tuple[SecretView, ...]


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
