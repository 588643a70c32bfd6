"""Rotate secrets: add one, and end the others after an overlap."""

from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy.orm import Session

from authz_server.clients.models import ClientSecret, is_live
from authz_server.clients.secret_changes import SecretChanges
from authz_server.errors import InvalidChangeError

#: The last use of a secret is written every minute; a shorter time would end secrets in use.
SHORTEST_UNUSED = timedelta(hours=1)
LONGEST_UNUSED = timedelta(days=366)


class SecretRotation(SecretChanges):
    """Rotates secrets of clients and resource servers."""

    def rotate_secret(
        self,
        session: Session,
        client_id: str,
        *,
        actor: str,
        end_old_at: datetime | None = None,
        end_old_when_unused: timedelta | None = None,
        **fields: Any,  # noqa: ANN401 - those of add_secret
    ) -> tuple[ClientSecret, str, list[ClientSecret]]:
        """Add a secret, and plan the end of those that work.

        Args:
            session: the transaction.
            client_id: the client or resource server.
            actor: the recorded actor.
            end_old_at: the time at which the old secrets end.
            end_old_when_unused: the time without a use after which each old secret ends.
            fields: those of :meth:`add_secret`.

        Returns:
            the stored row and the generated secret, as :meth:`add_secret`, and the old secrets.

        Raises:
            NotFoundError: there is no such client or resource server.
            InvalidChangeError: a value breaks a rule, or no end is given.
            ConflictError: it has the maximum number of working secrets.
        """
        if end_old_at is None and end_old_when_unused is None:
            raise InvalidChangeError("end_old_at: say when the old secrets end")
        unused = end_old_when_unused
        if unused is not None and not SHORTEST_UNUSED <= unused <= LONGEST_UNUSED:
            raise InvalidChangeError("end_old_when_unused: use 1 hour to 366 days")
        now = self._clock()
        before = self._locked(session, client_id).secrets
        old = [secret for secret in before if is_live(secret, now)]
        secret, generated = self.add_secret(session, client_id, actor=actor, **fields)
        for each in old:
            if unused is not None:
                each.ends_when_unused_seconds = int(unused.total_seconds())
            if end_old_at is not None and (each.expires_at is None or each.expires_at > end_old_at):
                self.end_secret(session, client_id, each.id, actor=actor, at=end_old_at)
        client = self._locked(session, client_id)
        detail = {
            "secret_id": secret.id,
            "old_secret_ids": [each.id for each in old],
            "end_old_at": end_old_at,
            "end_old_when_unused_seconds": None if unused is None else int(unused.total_seconds()),
        }
        self._finish(session, client, actor, f"{client.kind}.secret_rotated", detail)
        return secret, generated, old

    def end_unused_secret(
        self, session: Session, client_id: str, secret_id: str, *, actor: str
    ) -> bool:
        """End a secret whose time without a use has passed; return whether it was ended.

        The last secret that works is not ended.

        Raises:
            NotFoundError: there is no such client or resource server.
        """
        client = self._locked(session, client_id)
        now = self._clock()
        live = [secret for secret in client.secrets if is_live(secret, now)]
        found = next((secret for secret in live if secret.id == secret_id), None)
        if found is None or len(live) == 1 or not is_unused(found, live, now):
            return False
        self.end_secret(session, client_id, secret_id, actor=actor)
        return True


def is_unused(secret: ClientSecret, live: Iterable[ClientSecret], now: datetime) -> bool:
    """Return whether the time without a use, after which a secret ends, has passed.

    It begins with the last use of the secret, at the earliest with the latest of the others.

    Args:
        secret: the secret.
        live: the working secrets of the client.
        now: the present time.
    """
    if secret.ends_when_unused_seconds is None:
        return False
    since = [each.created_at for each in live]
    if secret.last_used_at is not None:
        since.append(secret.last_used_at)
    return max(since) + timedelta(seconds=secret.ends_when_unused_seconds) <= now


def is_replaced(secret: ClientSecret, secrets: Iterable[ClientSecret], now: datetime) -> bool:
    """Return whether a secret may end: another one works longer and took over from it.

    Args:
        secret: a secret that works.
        secrets: the secrets of the client.
        now: the present time.
    """
    return any(
        is_live(other, now)
        and secret.expires_at is not None
        and (other.expires_at is None or other.expires_at > secret.expires_at)
        and (secret.last_used_at is None or secret.last_used_at < other.created_at)
        for other in secrets
        if other.id != secret.id
    )
