"""Find, enable, disable, delete and record clients and resource servers."""

import secrets as system_random
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from functools import cached_property
from typing import Any, Literal, Protocol

from sqlalchemy import select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session, selectinload

from authz_server.audit.records import store_audit_record
from authz_server.clients import validation
from authz_server.clients.certificate_names import TLS_CLIENT_AUTH, require_name
from authz_server.clients.models import CLIENT_GRANT, Client, ResourceServer
from authz_server.clients.properties import merge_properties
from authz_server.clients.registered_keys import require_fitting_algorithm
from authz_server.clients.secrets import SecretScheme
from authz_server.clients.validation import ClientLimits
from authz_server.database.change_feed import record_change
from authz_server.errors import ConflictError, InvalidChangeError, NotFoundError

#: The identifier of the admin API, the audience of its tokens.
ADMIN_IDENTIFIER = "urn:authz-server:admin"
MAXIMUM_PAGE = 1_000
_LIST_FIELDS = ("grant_types", "allowed_scopes", "default_scopes", "allowed_resource_servers")
_OF_CREDENTIALS = frozenset({"authentication_method", "properties"})


def is_resource_server(session: Session, client_id: str) -> bool:
    """Return whether a resource server has this id."""
    return session.get(ResourceServer, client_id) is not None


def find_identifier(session: Session, server_id: str) -> str:
    """Return the stored identifier of a resource server, which must exist."""
    query = select(ResourceServer.identifier).where(ResourceServer.client_id == server_id)
    return session.scalars(query).one()


def is_admin_api(session: Session, client_id: str) -> bool:
    """Return whether this id is that of the admin API."""
    server = session.get(ResourceServer, client_id)
    return server is not None and server.identifier == ADMIN_IDENTIFIER


class TokenRevoker(Protocol):
    """Revokes the tokens of a client in the transaction of a change."""

    def cut_off_client(
        self,
        session: Session,
        client_id: str,
        *,
        actor: str,
        reason: str,
        before: datetime | None = None,
    ) -> None:
        """Revoke every token of the client that was issued until now, or before a time."""

    def has_cut_off_client(self, session: Session, client_id: str) -> bool:
        """Return whether a revocation of that client id is still kept."""

    def cut_off_audience(
        self,
        session: Session,
        identifier: str,
        *,
        actor: str,
        reason: str,
        before: datetime | None = None,
    ) -> None:
        """Revoke every token for an audience that was issued until now, or before a time."""

    def has_cut_off_audience(self, session: Session, identifier: str) -> bool:
        """Return whether a revocation of that audience is still kept."""


class LeaveProgrammes(Protocol):
    """Takes a deleted client out of the programmes that have it, in the same transaction."""

    def __call__(
        self, session: Session, kind: Literal["clients"], name: str, *, actor: str, at: datetime
    ) -> None:
        """Take a client out; ConflictError if one of the programmes is stopped."""


class CanonicalNames(Protocol):
    """Finds scopes in the catalogue."""

    def __call__(
        self, session: Session, spellings: Iterable[str], *, held: bool = False
    ) -> Mapping[str, str]:
        """Return the canonical name of each known spelling.

        Args:
            session: the transaction.
            spellings: names of scopes.
            held: whether a deletion of one waits until the transaction ends.
        """


class Registrations:
    """Rows of clients and resource servers.

    Every method works in the given session and does not commit: a change and its audit record are
    stored together or not at all.

    Args:
        clock: returns the present time, timezone-aware, by the database's clock, by which servers
            compare dates.
        secrets: makes the records of secrets.
        limits: returns the permitted values; called when a value is checked.
        find_canonical_names: finds scopes in the catalogue.
        revoker: returns the revoker of tokens; called when tokens are to be revoked.
        require_no_stop: raises ConflictError if the resource server of an id is stopped.
        leave_programmes: takes a client out of the programmes that have it.
        machine_clock: returns the present time by this machine's clock; None: as ``clock``.
    """

    def __init__(  # noqa: PLR0913 - the parts that it is made of
        self,
        clock: Callable[[], datetime],
        secrets: SecretScheme,
        limits: Callable[[], ClientLimits],
        find_canonical_names: CanonicalNames,
        revoker: Callable[[], TokenRevoker],
        *,
        require_no_stop: Callable[[Session, str], None],
        leave_programmes: LeaveProgrammes,
        machine_clock: Callable[[], datetime] | None = None,
    ) -> None:
        self._clock = clock
        self._machine_clock = machine_clock or clock
        self._secrets = secrets
        self._find_limits = limits
        self._find_canonical_names = find_canonical_names
        self._find_revoker = revoker
        self._require_no_stop = require_no_stop
        self._leave_programmes = leave_programmes

    @cached_property
    def _limits(self) -> ClientLimits:
        return self._find_limits()

    @cached_property
    def _revoker(self) -> TokenRevoker:
        return self._find_revoker()

    def get_client(self, session: Session, client_id: str, *, kind: str | None = None) -> Client:
        """Return a client or resource server (of ``kind`` only, where given).

        Raises:
            NotFoundError: there is none.
        """
        client = session.get(Client, client_id)
        if client is None or (kind is not None and client.kind != kind):
            noun = "resource server" if kind == "resource_server" else "client"
            command = noun.replace(" ", "-")
            raise NotFoundError(
                f"There is no {noun} {client_id!r}. `authz-server {command} list` shows them."
            )
        return client

    def list_clients(
        self,
        session: Session,
        *,
        kind: str = "client",
        after: str | None = None,
        limit: int = 100,
    ) -> Sequence[Client]:
        """Return up to ``limit`` (1 to 1,000) of one ``kind``, by id, those after ``after``."""
        if not 1 <= limit <= MAXIMUM_PAGE:
            raise InvalidChangeError(f"limit: use 1 to {MAXIMUM_PAGE}")
        query = (
            select(Client)
            .options(selectinload(Client.secrets), selectinload(Client.resource_server))
            .where(Client.kind == kind)
            .order_by(Client.id)
            .limit(limit)
        )
        if after is not None:
            query = query.where(Client.id > after)
        return session.scalars(query).all()

    def set_enabled(
        self,
        session: Session,
        client_id: str,
        *,
        actor: str,
        enabled: bool,
        revoke_tokens: bool = False,
    ) -> Client:
        """Enable or disable a client or resource server; no change if it already is.

        The tokens of a disabled client are inactive. When it is enabled again, they are active
        again until they expire, unless ``revoke_tokens`` was given at either step.

        Raises:
            NotFoundError: there is none.
        """
        client = self._locked(session, client_id)
        if revoke_tokens:
            reason = f"the client was {'enabled' if enabled else 'disabled'}"
            self._revoker.cut_off_client(session, client_id, actor=actor, reason=reason)
        if client.enabled != enabled:
            client.enabled = enabled
            action = "enabled" if enabled else "disabled"
            self._finish(session, client, actor, f"{client.kind}.{action}", {})
        return client

    def delete_client(self, session: Session, client_id: str, *, actor: str) -> None:
        """Delete a client or resource server with its secrets; its scopes then have no owner.

        Its tokens are revoked, also if one of the same id or identifier is created later.

        Raises:
            NotFoundError: there is none.
            ConflictError: a stopped programme has this client; or clients are limited to this
                resource server, or it is stopped.
        """
        client = self._locked(session, client_id)
        if client.kind == "resource_server":
            # Its scopes could get another owner, for which nothing is stopped.
            self._require_no_stop(session, client_id)
            _require_unnamed(session, client_id)
            # Not by its scopes: they may have been taken away from it before.
            self._revoker.cut_off_audience(
                session,
                find_identifier(session, client_id),
                actor=actor,
                reason="the resource server was deleted",
            )
        # The record alone shows afterwards which resource servers its tokens were for.
        detail = {"name": client.name, "allowed_scopes": list(client.allowed_scopes)}
        self._audit(session, actor, f"{client.kind}.deleted", client_id, detail)
        if client.kind == "client":
            self._leave_programmes(session, "clients", client_id, actor=actor, at=self._clock())
            self._revoker.cut_off_client(
                session, client_id, actor=actor, reason="the client was deleted"
            )
        session.delete(client)
        session.flush()
        record_change(session, "client", client_id)

    def _new_registration(
        self, session: Session, client_id: str | None, kind: str, values: Mapping[str, Any]
    ) -> Client:
        client_id = validation.require_id(client_id or system_random.token_hex(10))
        # Of the table itself: an id is taken where the session does not show its row, too.
        ids = Client.__table__.c.id
        if session.scalar(select(ids).where(ids == client_id)) is not None:
            raise ConflictError(f"The id {client_id!r} is taken.")
        now = self._clock()
        lists: dict[str, Any] = {field: [] for field in _LIST_FIELDS}
        given = values.get("properties")
        properties = merge_properties({}, given) if given else {}
        _require_usable(values["authentication_method"], properties)
        client = Client(
            id=client_id,
            kind=kind,
            enabled=True,
            created_at=now,
            updated_at=now,
            **{**lists, **values, "properties": properties},
        )
        session.add(client)
        return client

    def _has_passed(self, at: datetime) -> bool:
        """Return whether a time has passed by the clock of the database or of this machine.

        What has passed by the clock of this machine is meant to be now.
        """
        return at <= max(self._clock(), self._machine_clock())

    def _locked(self, session: Session, client_id: str, kind: str | None = None) -> Client:
        """Return the row, locked, so that rules between fields hold until the commit."""
        session.get(Client, client_id, with_for_update=True)
        return self.get_client(session, client_id, kind=kind)

    def _finish(
        self, session: Session, client: Client, actor: str, action: str, detail: Mapping[str, Any]
    ) -> None:
        client.updated_at = self._clock()
        self._audit(session, actor, action, client.id, detail)
        try:
            session.flush()
        except IntegrityError as error:
            raise ConflictError(f"The id {client.id!r} or its identifier is taken.") from error
        record_change(session, "client", client.id)

    def _audit(
        self, session: Session, actor: str, action: str, subject: str, detail: Mapping[str, Any]
    ) -> None:
        plain = {
            key: value.isoformat() if isinstance(value, datetime) else value
            for key, value in detail.items()
        }
        store_audit_record(
            session, at=self._clock(), actor=actor, action=action, subject=subject, **plain
        )


def assign_fields(row: object, values: Mapping[str, Any]) -> None:
    """Set the named fields of a row; properties are merged with those of the row.

    Raises:
        InvalidChangeError: two properties contradict each other, or the authentication method
            needs one that is missing.
    """
    for field, value in values.items():
        merged = (
            merge_properties(row.properties, value)
            if isinstance(row, Client) and field == "properties"
            else value
        )
        setattr(row, field, merged)
    if isinstance(row, Client) and not _OF_CREDENTIALS.isdisjoint(values):
        _require_usable(row.authentication_method, row.properties)


def _require_usable(method: str, properties: Mapping[str, Any]) -> None:
    """Raise InvalidChangeError if no proof of the method could fit the properties."""
    if method == TLS_CLIENT_AUTH:
        require_name(properties)
    if properties:
        require_fitting_algorithm(method, properties)


def require_ordered_dates(client: Client) -> None:
    """Raise InvalidChangeError if the registration expires before it starts."""
    starts_at, expires_at = client.starts_at, client.expires_at
    if starts_at is not None and expires_at is not None and expires_at <= starts_at:
        raise InvalidChangeError("expires_at: it must lie after starts_at")


def _require_unnamed(session: Session, server_id: str) -> None:
    held_to_it = (CLIENT_GRANT.c.kind == "resource_server") & (CLIENT_GRANT.c.name == server_id)
    query = select(Client.id).join(CLIENT_GRANT, CLIENT_GRANT.c.client_id == Client.id)
    named_by = session.scalars(query.where(held_to_it).order_by(Client.id).limit(6)).all()
    if named_by:
        raise ConflictError(
            f"Clients are held to the resource server {server_id!r}: {', '.join(named_by[:5])}"
            f"{' and more' if named_by[5:] else ''}. Change their allowed resource servers first."
        )
