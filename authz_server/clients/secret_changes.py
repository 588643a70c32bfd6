"""Add and end secrets."""

import secrets as system_random
from dataclasses import dataclass, field
from datetime import datetime

from sqlalchemy.orm import Session

from authz_server.clients import validation
from authz_server.clients.models import Client, ClientSecret, is_live
from authz_server.clients.registrations import Registrations
from authz_server.clients.secrets import ARGON2_PREFIX, CLIENT_SECRET_JWT, generate_secret
from authz_server.errors import ConflictError, InvalidChangeError, NotFoundError


@dataclass(frozen=True, slots=True)
class PreparedSecret:
    """A secret that was made before it is added.

    Attributes:
        id: its id.
        record: the record that verifies it.
        pepper_fingerprint: the fingerprint of the pepper with which the record was made; None: it
            may have been replaced since.
    """

    id: str
    record: str = field(repr=False)
    pepper_fingerprint: str | None = None

    @property
    def is_imported(self) -> bool:
        """Whether it was not generated here."""
        return self.record.startswith(ARGON2_PREFIX)


class SecretChanges(Registrations):
    """Adds and ends secrets of clients and resource servers."""

    def add_secret(  # noqa: PLR0913 - the fields themselves, by name
        self,
        session: Session,
        client_id: str,
        *,
        actor: str,
        description: str = "",
        expires_at: datetime | None = None,
        imported_secret: bytes | None = None,
        prepared: PreparedSecret | None = None,
    ) -> tuple[ClientSecret, str]:
        """Add a secret to a client or resource server.

        A prepared secret is added as it is, and not returned.

        Returns:
            the stored row and the generated secret, which cannot be read again; an empty string
            if the secret was imported.

        Raises:
            NotFoundError: there is no such client or resource server.
            InvalidChangeError: a value breaks a rule.
            ConflictError: it has the maximum number of working secrets.
        """
        client = self._locked(session, client_id)
        now = self._clock()
        expires_at = validation.require_instant("expires_at", expires_at)
        if expires_at is not None and expires_at <= now:
            raise InvalidChangeError("expires_at: it lies in the past")
        if prepared is None:
            record, generated = self._new_record(client, imported_secret)
            fingerprint = self._secrets.fingerprint
            prepared = PreparedSecret(system_random.token_hex(8), record, fingerprint)
        else:
            record, generated = prepared.record, ""
        imported = prepared.is_imported
        self._require_room(client, now, imported=imported)
        secret = ClientSecret(
            id=prepared.id,
            client_id=client_id,
            record=record,
            description=validation.require_text("description", description, may_be_empty=True),
            created_at=now,
            expires_at=expires_at,
            pepper_fingerprint=prepared.pepper_fingerprint,
        )
        client.secrets.append(secret)
        detail = {"secret_id": secret.id, "imported": imported}
        self._finish(session, client, actor, f"{client.kind}.secret_added", detail)
        return secret, generated

    def end_secret(
        self,
        session: Session,
        client_id: str,
        secret_id: str,
        *,
        actor: str,
        at: datetime | None = None,
    ) -> ClientSecret:
        """End a secret now or at a later time; it cannot be enabled again.

        A secret that has ended does not change.

        Raises:
            NotFoundError: there is no such client, resource server or secret.
            ConflictError: it already ends earlier.
        """
        client = self._locked(session, client_id)
        secret = next((each for each in client.secrets if each.id == secret_id), None)
        if secret is None:
            raise NotFoundError(
                f"{client_id!r} has no secret {secret_id!r}; `secret list` shows them."
            )
        now = self._clock()
        at = validation.require_instant("at", at)
        if not is_live(secret, now):
            return secret
        if at is None or self._has_passed(at):
            secret.ended_at = now
        elif secret.expires_at is not None and secret.expires_at < at:
            raise ConflictError(f"The secret {secret_id!r} ends at {secret.expires_at} already.")
        else:
            secret.expires_at = at
        detail = {"secret_id": secret_id, "ends_at": secret.ended_at or secret.expires_at}
        self._finish(session, client, actor, f"{client.kind}.secret_ended", detail)
        return secret

    def _new_record(self, client: Client, imported: bytes | None) -> tuple[str, str]:
        """Return the record of a secret for the client's method, and a generated secret."""
        if client.authentication_method == CLIENT_SECRET_JWT:
            if imported is not None:
                raise InvalidChangeError(
                    "secret: a secret that signs assertions cannot be imported; generate one"
                )
            return self._secrets.derived_record()
        if imported is not None:
            return self._secrets.import_record(imported), ""
        generated = generate_secret()
        return self._secrets.record(generated.encode()), generated

    def _require_room(self, client: Client, now: datetime, *, imported: bool) -> None:
        live = [secret for secret in client.secrets if is_live(secret, now)]
        if len(live) >= self._limits.maximum_live_secrets:
            raise ConflictError(f"{client.id!r} has {len(live)} working secrets: end one first.")
        live_imported = [each for each in live if each.record.startswith(ARGON2_PREFIX)]
        if imported and len(live_imported) >= self._limits.maximum_live_imported_secrets:
            raise ConflictError(
                f"{client.id!r} has {len(live_imported)} working imported secrets: end one first."
            )
