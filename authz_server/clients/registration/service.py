"""Register clients (RFC 7591); read, update and delete their registration (RFC 7592)."""

import hmac
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from authz_server.audit.records import store_audit_record
from authz_server.clients.models import Client, is_live
from authz_server.clients.networks import AllowedNetworks
from authz_server.clients.properties import read_properties
from authz_server.clients.registration.initial_tokens import Grantor
from authz_server.clients.registration.limits import (
    RegistrationLimits,
    choose_method,
    describe_registered,
    respect_operator,
)
from authz_server.clients.registration.metadata import (
    DEFAULT_METHOD,
    REGISTRABLE,
    ClientMetadata,
    invalid_metadata,
)
from authz_server.clients.registration.models import Registration
from authz_server.clients.registration.software_statements import SoftwareStatement
from authz_server.clients.secrets import SecretScheme, generate_secret, is_secret_method
from authz_server.clients.service import ClientService
from authz_server.database.named_locks import lock_name
from authz_server.errors import ConflictError, InvalidChangeError, OAuthError
from authz_server.settings import RegistrationSettings

#: The member of a registration for a field of a client.
_MEMBERS = {
    "name": "client_name",
    "allowed_scopes": "scope",
    "default_scopes": "scope",
    "grant_types": "grant_types",
    "authentication_method": "token_endpoint_auth_method",
}


class RegistrationAccess(NamedTuple):
    """A request to manage a registration (RFC 7592, 2).

    Attributes:
        client_id: the client.
        token: the presented registration access token.
        address: the sender's IP address.
    """

    client_id: str
    token: str
    address: str


@dataclass(frozen=True, slots=True)
class RegisteredClient:
    """The state of a registration, for the client information response (RFC 7591, 3.2.1).

    Attributes:
        client_id: the client's id.
        registered_at: the time of the registration.
        metadata: every registered member.
        secret: a new secret, which cannot be read again; empty: none was made.
        secret_expires_at: the time at which it expires; None: it does not expire.
        token: a new registration access token, which cannot be read again; empty: the presented
            one stays valid.
    """

    client_id: str
    registered_at: datetime
    metadata: Mapping[str, Any]
    secret: str = field(default="", repr=False)
    secret_expires_at: datetime | None = None
    token: str = field(default="", repr=False)


class RegistrationService:
    """Registers clients and manages registrations in the caller's session, without committing.

    Args:
        clients: creates, changes and deletes clients by the rules for operators.
        secrets: makes the digests of tokens.
        clock: returns the present time, timezone-aware.
        limits: chooses scopes, grant types and method.
        settings: the number of clients of a grantor, and the lifetime of their secrets.
    """

    def __init__(
        self,
        *,
        clients: ClientService,
        secrets: SecretScheme,
        clock: Callable[[], datetime],
        limits: RegistrationLimits,
        settings: RegistrationSettings,
    ) -> None:
        self._clients = clients
        self._secrets = secrets
        self._clock = clock
        self._limits = limits
        self._settings = settings
        # Compared if the client does not exist; no token has this digest.
        self._no_digest = os.urandom(32).hex()

    def register(
        self,
        session: Session,
        grantor: Grantor,
        metadata: ClientMetadata,
        statement: SoftwareStatement | None = None,
    ) -> RegisteredClient:
        """Register a client.

        Args:
            session: the transaction.
            grantor: what the client may be given.
            metadata: the members, after those of a software statement took precedence.
            statement: the software statement, if any.

        Raises:
            OAuthError: ``client_metadata_invalid``, or ``registration_denied`` if there are as
                many clients of this grantor as permitted.
        """
        self._require_room(session, grantor.actor)
        scopes = self._limits.choose_scopes(session, metadata, grantor.scopes)
        grants = self._limits.choose_grant_types(metadata, grantor.grant_types)
        self._limits.require_method(metadata)
        try:
            client = self._clients.create_client(
                session,
                actor=grantor.actor,
                name=metadata.name,
                organisation=grantor.organisation,
                authentication_method=metadata.method,
                grant_types=grants,
                allowed_scopes=scopes,
                default_scopes=scopes,
                properties=_given(metadata.properties),
            )
        except InvalidChangeError as error:
            raise _as_invalid_metadata(error) from error
        self._limits.require_fitting_key(client)
        token = generate_secret()
        registration = Registration(
            client_id=client.id,
            token_digest=self._digest(token),
            pepper_fingerprint=self._secrets.fingerprint,
            granted_by=grantor.actor,
            permitted_scopes=list(grantor.scopes),
            permitted_grant_types=list(grantor.grant_types),
            registered_scopes=list(client.allowed_scopes),
            registered_grant_types=list(client.grant_types),
            registered=describe_registered(client, metadata, metadata.method),
            software_statement={} if statement is None else _stored(statement),
            registered_at=client.created_at,
        )
        session.add(registration)
        self._audit(session, grantor.actor, "client.registered", client, metadata)
        secret, expires_at = self._provide_secret(session, client, grantor.actor)
        return _describe(client, registration, secret, expires_at, token)

    def _require_room(self, session: Session, granted_by: str) -> None:
        """Count the clients of one grantor alone: another one has room for its own."""
        lock_name(session, f"registration:{granted_by}")
        own = Registration.granted_by == granted_by
        registered = session.scalar(select(func.count()).select_from(Registration).where(own))
        if (registered or 0) >= self._settings.maximum_clients:
            raise OAuthError("registration_denied", "registration.maximum_clients")

    def read(self, session: Session, access: RegistrationAccess) -> RegisteredClient:
        """Return a registration (RFC 7592, 2.1).

        Raises:
            OAuthError: ``registration_token_invalid`` or ``registration_denied``.
        """
        client, registration = self._authenticated(session, access)
        return _describe(client, registration)

    def find_statement(self, session: Session, access: RegistrationAccess) -> SoftwareStatement:
        """Return the software statement of a registration; one without members if it has none.

        Raises:
            OAuthError: ``registration_token_invalid`` or ``registration_denied``.
        """
        _, registration = self._authenticated(session, access)
        stored = registration.software_statement
        return SoftwareStatement(
            registration.granted_by, stored.get("text", ""), stored.get("members", {})
        )

    def update(
        self,
        session: Session,
        access: RegistrationAccess,
        metadata: ClientMetadata,
        *,
        secret: object = None,
    ) -> RegisteredClient:
        """Replace the metadata of a client (RFC 7592, 2.2); its registration token is replaced too.

        The client keeps its secret. It gets a new one if its method needs one and none works, and
        its secrets end if the method needs none.

        Args:
            session: the transaction.
            access: the client, and its registration access token, which this update ends.
            metadata: all members; those that are absent are removed.
            secret: the ``client_secret`` of the request, which must be a working one; None: absent.

        Raises:
            OAuthError: ``registration_token_invalid``, ``registration_denied`` or
                ``client_metadata_invalid``.
        """
        client, registration = self._authenticated(session, access, for_change=True)
        client_id = client.id
        self._require_own_secret(client, secret)
        method, registered = choose_method(client, registration, metadata)
        metadata, earlier = respect_operator(client, registration, metadata)
        scopes = self._limits.choose_scopes(session, metadata, registration.permitted_scopes)
        grants = self._limits.choose_grant_types(metadata, registration.permitted_grant_types)
        self._limits.require_method(metadata)
        changes: dict[str, object] = {
            "name": metadata.name,
            "authentication_method": method,
            "grant_types": grants,
            "properties": metadata.properties,
        }
        if scopes != list(client.allowed_scopes):
            changes |= {"allowed_scopes": scopes, "default_scopes": scopes}
        try:
            client = self._clients.update_client(session, client_id, actor=client_id, **changes)
        except InvalidChangeError as error:
            raise _as_invalid_metadata(error) from error
        self._limits.require_fitting_key(client)
        new_token = generate_secret()
        registration.token_digest = self._digest(new_token)
        registration.pepper_fingerprint = self._secrets.fingerprint
        registration.registered_scopes = list(client.allowed_scopes)
        registration.registered_grant_types = list(client.grant_types)
        registration.registered = describe_registered(client, metadata, registered, earlier)
        self._audit(session, client_id, "client.registration_updated", client, metadata)
        new_secret, expires_at = self._provide_secret(session, client, client_id)
        return _describe(client, registration, new_secret, expires_at, new_token)

    def delete(self, session: Session, access: RegistrationAccess) -> None:
        """Delete a client with its registration (RFC 7592, 2.3); its tokens are revoked.

        Raises:
            OAuthError: ``registration_token_invalid``; or ``registration_denied``, also if a
                stopped programme has the client.
        """
        self._authenticated(session, access, for_change=True)
        client_id = access.client_id
        try:
            self._clients.delete_client(session, client_id, actor=client_id)
        except ConflictError as error:
            raise OAuthError("registration_denied", str(error), client_id=client_id) from error

    def _authenticated(
        self, session: Session, access: RegistrationAccess, *, for_change: bool = False
    ) -> tuple[Client, Registration]:
        client_id, token, address = access
        self._require_token(session, client_id, token)
        if for_change:
            # Lock in the order of every change of a client; another update may have replaced the
            # token meanwhile.
            client = session.get(Client, client_id, with_for_update=True, populate_existing=True)
            self._require_token(session, client_id, token)
        else:
            client = session.get(Client, client_id)
        registration = session.get(Registration, client_id)
        if client is None or registration is None:
            raise OAuthError("registration_token_invalid", client_id=client_id)
        networks = read_properties(client.properties).allowed_networks
        if networks and not AllowedNetworks(networks).contains(address):
            # As at the other endpoints: a thief does not learn that the token is right.
            raise OAuthError(
                "registration_token_invalid", cause="network_not_allowed", client_id=client_id
            )
        expired = client.expires_at is not None and client.expires_at <= self._clock()
        if not client.enabled or expired:
            raise OAuthError("registration_denied", "the client is disabled", client_id=client_id)
        return client, registration

    def accepts(self, session: Session, access: RegistrationAccess) -> bool:
        """Return whether the token is right, and sent from a network of its client."""
        try:
            self._authenticated(session, access)
        except OAuthError as refusal:
            return refusal.reason != "registration_token_invalid"
        return True

    def _require_token(self, session: Session, client_id: str, token: str) -> None:
        column = Registration.token_digest
        stored = session.scalar(select(column).where(Registration.client_id == client_id))
        if not hmac.compare_digest(stored or self._no_digest, self._digest(token)):
            raise OAuthError("registration_token_invalid", client_id=client_id)

    def _require_own_secret(self, client: Client, offered: object) -> None:
        if offered is None:
            return
        now = self._clock()
        records = [secret.record for secret in client.secrets if is_live(secret, now)]
        digest = self._secrets.digest(offered.encode()) if isinstance(offered, str) else b"?"
        # An imported secret has no digest; it cannot be confirmed here.
        known = [self._secrets.entry_parts(record)[0] for record in records]
        if not any(hmac.compare_digest(each, digest) for each in known):
            # RFC 7592, 2.2: a client cannot choose its secret.
            raise invalid_metadata("client_secret", "not the client's secret")

    def _provide_secret(
        self, session: Session, client: Client, actor: str
    ) -> tuple[str, datetime | None]:
        now = self._clock()
        live = [secret for secret in client.secrets if is_live(secret, now)]
        method = client.authentication_method
        if any(self._secrets.fits(secret.record, method) for secret in live):
            return "", None
        for secret in live:
            self._clients.end_secret(session, client.id, secret.id, actor=actor)
        if not is_secret_method(method):
            return "", None
        days = self._settings.secret_lifetime_days
        expires_at = now + timedelta(days=days) if days else None
        _, value = self._clients.add_secret(
            session, client.id, actor=actor, description="registration", expires_at=expires_at
        )
        return value, expires_at

    def _digest(self, token: str) -> str:
        return self._secrets.digest(token.encode()).hex()

    def _audit(
        self, session: Session, actor: str, action: str, client: Client, metadata: ClientMetadata
    ) -> None:
        store_audit_record(
            session,
            at=self._clock(),
            actor=actor,
            action=action,
            subject=client.id,
            scopes=client.allowed_scopes,
            authentication_method=client.authentication_method,
            members=dict(metadata.members),
        )


def _as_invalid_metadata(error: InvalidChangeError) -> OAuthError:
    """Return the refusal for a broken rule; its text may quote values and is left out."""
    field = str(error).partition(":")[0]
    if field in REGISTRABLE:
        return invalid_metadata(field, "breaks its rule")
    return invalid_metadata(_MEMBERS.get(field, "client metadata"), "breaks its rule")


def _given(properties: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in properties.items() if value is not None}


def _stored(statement: SoftwareStatement) -> dict[str, Any]:
    return {"text": statement.text, "members": dict(statement.members)}


def _describe(
    client: Client,
    registration: Registration,
    secret: str = "",
    secret_expires_at: datetime | None = None,
    token: str = "",
) -> RegisteredClient:
    method = client.authentication_method
    metadata: dict[str, Any] = {
        **registration.registered["members"],
        "grant_types": client.grant_types,
        "response_types": [],
        "token_endpoint_auth_method": DEFAULT_METHOD if method == "client_secret" else method,
        "scope": " ".join(client.allowed_scopes),
    }
    metadata |= {name: client.properties[name] for name in REGISTRABLE if name in client.properties}
    if "client_name" in metadata:
        metadata["client_name"] = client.name
    if registration.software_statement:
        metadata["software_statement"] = registration.software_statement["text"]
    return RegisteredClient(
        client_id=client.id,
        registered_at=registration.registered_at,
        metadata=metadata,
        secret=secret,
        secret_expires_at=secret_expires_at,
        token=token,
    )
