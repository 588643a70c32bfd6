"""Background jobs of secrets: end unused ones, and announce those that end soon."""

import logging
from collections.abc import Callable
from datetime import datetime, timedelta

from sqlalchemy import ColumnElement, or_, select, update
from sqlalchemy.orm import Session, selectinload

from authz_server.audit.events import Event, SecretDue
from authz_server.clients.models import Client, ClientSecret
from authz_server.clients.secret_rotation import SecretRotation, is_replaced
from authz_server.database.orm import Transaction

logger = logging.getLogger(__name__)

#: The recorded actor.
ACTOR = "server"
_INTERVAL = timedelta(days=1)


class SecretDuties:
    """Does the background work for secrets; safe on many nodes at once.

    Args:
        reading: opens a session that reads.
        transaction: opens the transaction of a change, which is reported.
        secrets: ends secrets.
        report: records an event.
        clock: returns the present time.
        warning_days: how many days before its end a secret is announced; 0: never.
        clock_is_trusted: returns whether the clock is free of leaps.
    """

    def __init__(  # noqa: PLR0913 - its parts, by name
        self,
        *,
        reading: Transaction,
        transaction: Transaction,
        secrets: SecretRotation,
        report: Callable[[Event], None],
        clock: Callable[[], datetime],
        warning_days: int,
        clock_is_trusted: Callable[[], bool],
    ) -> None:
        self._reading = reading
        self._transaction = transaction
        self._secrets = secrets
        self._report = report
        self._clock = clock
        self._warning = timedelta(days=warning_days)
        self._clock_is_trusted = clock_is_trusted

    def end_unused_secrets(self) -> None:
        """End the secrets whose time without a use has passed, each in its own transaction.

        Raises:
            sqlalchemy.exc.SQLAlchemyError: the database cannot answer.
            AuditUnavailable: an end cannot be recorded; it is not made.
        """
        waiting = select(ClientSecret.client_id, ClientSecret.id).where(
            ClientSecret.ends_when_unused_seconds.is_not(None),
            ClientSecret.ended_at.is_(None),
            or_(ClientSecret.expires_at.is_(None), ClientSecret.expires_at > self._clock()),
        )
        with self._reading() as session:
            found = session.execute(waiting).all()
        if not found or not self._clock_is_trusted():
            return
        for client_id, secret_id in found:
            with self._transaction() as session:
                ended = self._secrets.end_unused_secret(session, client_id, secret_id, actor=ACTOR)
            if ended:
                logger.info("the unused secret %s of %s is ended", secret_id, client_id)

    def announce_due_secrets(self) -> None:
        """Record and log each secret that ends soon, once a day over all nodes.

        A secret that another one has replaced is not announced.

        Raises:
            sqlalchemy.exc.SQLAlchemyError: the database cannot answer.
            AuditUnavailable: an event cannot be recorded; it is tried again.
        """
        now = self._clock()
        due = (
            select(Client)
            .options(selectinload(Client.secrets))
            .where(Client.enabled, Client.secrets.any(self._is_due(now)))
        )
        with self._reading() as session:
            found = [
                (client, secret)
                for client in session.scalars(due)
                for secret in client.secrets
                if self._is_soon(secret, now) and not is_replaced(secret, client.secrets, now)
            ]
        for client, secret in found:
            with self._transaction() as session:
                if self._claim(session, secret.id, now):
                    # Before the commit: an event that cannot be recorded is tried again.
                    self._announce(client, secret, now)

    def _is_due(self, now: datetime) -> ColumnElement[bool]:
        return (
            ClientSecret.ended_at.is_(None)
            & (ClientSecret.expires_at > now)
            & (ClientSecret.expires_at <= now + self._warning)
        )

    def _is_soon(self, secret: ClientSecret, now: datetime) -> bool:
        end = secret.expires_at
        return secret.ended_at is None and end is not None and now < end <= now + self._warning

    def _claim(self, session: Session, secret_id: str, now: datetime) -> bool:
        """Return whether this process announces the secret today."""
        claimed = session.execute(
            update(ClientSecret)
            .where(
                ClientSecret.id == secret_id,
                or_(ClientSecret.warned_at.is_(None), ClientSecret.warned_at <= now - _INTERVAL),
            )
            .values(warned_at=now)
            .returning(ClientSecret.id)
        )
        return claimed.first() is not None

    def _announce(self, client: Client, secret: ClientSecret, now: datetime) -> None:
        if secret.expires_at is None:
            return
        days = (secret.expires_at - now).days
        logger.warning(
            "the secret %s of %s ends in %d days, at %s; run `authz-server %s secret rotate`",
            secret.id,
            client.id,
            days,
            secret.expires_at.isoformat(timespec="seconds"),
            client.kind.replace("_", "-"),
        )
        self._report(
            SecretDue(
                client_id=client.id,
                credential_id=secret.id,
                expires_at=int(secret.expires_at.timestamp()),
                days_left=days,
            )
        )
