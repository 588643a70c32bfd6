"""Create and change clients, resource servers and their secrets."""

from collections.abc import Iterable, Mapping
from datetime import datetime

from sqlalchemy import inspect
from sqlalchemy.orm import Session

from authz_server.clients import validation
from authz_server.clients.authentication.shared_secret import CLIENT_SECRET
from authz_server.clients.models import Client
from authz_server.clients.properties import NO_CHANGES
from authz_server.clients.registrations import (
    assign_fields,
    is_resource_server,
    require_ordered_dates,
)
from authz_server.clients.resource_servers import ResourceServerChanges
from authz_server.clients.secret_rotation import SecretRotation
from authz_server.errors import InvalidChangeError


class ClientService(ResourceServerChanges, SecretRotation):
    """Creates and changes clients, resource servers and secrets."""

    def create_client(  # noqa: PLR0913 - the fields themselves, by name
        self,
        session: Session,
        *,
        actor: str,
        id: str | None = None,  # noqa: A002 - the field's name
        name: str,
        organisation: str = "",
        authentication_method: str = CLIENT_SECRET,
        grant_types: Iterable[str] = validation.DEFAULT_GRANT_TYPES,
        allowed_scopes: Iterable[str],
        default_scopes: Iterable[str] = (),
        allowed_resource_servers: Iterable[str] = (),
        permissions: Iterable[str] = (),
        token_lifetime_seconds: int | None = None,
        g2p_answer: str = "document",
        starts_at: datetime | None = None,
        expires_at: datetime | None = None,
        properties: Mapping[str, object] = NO_CHANGES,
    ) -> Client:
        """Add a client without a secret; scopes may be given in any known spelling.

        Without an ``id``, one is generated. ``allowed_resource_servers`` are the ids of the
        resource servers that the client is limited to; if empty, those that own its scopes.

        Raises:
            InvalidChangeError: a value breaks a rule.
            ConflictError: the id is taken.
        """
        offered = {
            "name": name,
            "organisation": organisation,
            "authentication_method": authentication_method,
            "grant_types": grant_types,
            "allowed_scopes": allowed_scopes,
            "default_scopes": default_scopes,
            "allowed_resource_servers": allowed_resource_servers,
            "permissions": permissions,
            "token_lifetime_seconds": token_lifetime_seconds,
            "g2p_answer": g2p_answer,
            "starts_at": starts_at,
            "expires_at": expires_at,
            "properties": properties,
        }
        values = validation.checked_values(offered, validation.CLIENT_RULES, self._limits)
        client = self._new_registration(session, id, "client", values)
        self._require_consistent(session, client)
        # A generated id was never used before.
        if id and self._revoker.has_cut_off_client(session, client.id):
            # A process that had not read the deletion may have issued a token since.
            self._revoker.cut_off_client(
                session,
                client.id,
                actor=actor,
                reason="the client was created again",
                before=client.created_at,
            )
        self._finish(session, client, actor, "client.created", _as_stored(client, values))
        return client

    def update_client(
        self, session: Session, client_id: str, *, actor: str, **changes: object
    ) -> Client:
        """Change the named fields of a client; the names are those of :meth:`create_client`.

        Raises:
            NotFoundError, InvalidChangeError
        """
        values = validation.checked_values(changes, validation.CLIENT_RULES, self._limits)
        expires_at = values.get("expires_at")
        if expires_at is not None and self._has_passed(expires_at):
            values["expires_at"] = min(expires_at, self._clock())
        client = self._locked(session, client_id, "client")
        assign_fields(client, values)
        self._require_consistent(session, client)
        self._finish(session, client, actor, "client.updated", _as_stored(client, values))
        return client

    def _require_consistent(self, session: Session, client: Client) -> None:
        with session.no_autoflush:
            self._resolve_scopes(session, client)
            for server_id in client.allowed_resource_servers:
                if not is_resource_server(session, server_id):
                    raise InvalidChangeError(
                        f"allowed_resource_servers: there is no resource server {server_id!r}"
                    )
            self._require_usable_properties(session, client)
        require_ordered_dates(client)

    def _require_usable_properties(self, session: Session, client: Client) -> None:
        """Require known types of authorization details, resource servers and scopes."""
        check = self._limits.check_details_grant
        for kind, grants in client.properties.get("authorization_details_grants", {}).items():
            for grant in grants:
                if check is None:
                    raise InvalidChangeError("authorization_details_grants: there are no types")
                check(kind, grant)
        for server_id in client.properties.get("token_exchange", {}).get("audiences", ()):
            if not is_resource_server(session, server_id):
                raise InvalidChangeError(
                    f"token_exchange: there is no resource server {server_id!r}"
                )
        budgets = client.properties.get("token_budget", ())
        scopes = [budget["scope"] for budget in budgets if "scope" in budget]
        names = self._find_canonical_names(session, scopes) if scopes else {}
        for scope in scopes:
            if names.get(scope) not in client.allowed_scopes:
                raise InvalidChangeError(f"token_budget: {scope!r} is not an allowed scope")

    def _resolve_scopes(self, session: Session, client: Client) -> None:
        fields = ("allowed_scopes", "default_scopes")
        # Otherwise the client would keep the name of a scope that is deleted at the same time.
        held = any(inspect(client).attrs[field].history.has_changes() for field in fields)
        spellings = client.allowed_scopes + client.default_scopes
        names = self._find_canonical_names(session, spellings, held=held)
        for field in fields:
            for scope in getattr(client, field):
                if scope not in names:
                    raise InvalidChangeError(
                        f"{field}: the catalogue has no scope {scope!r}; "
                        "`authz-server scope list` shows it"
                    )
            canonical = dict.fromkeys(names[scope] for scope in getattr(client, field))
            setattr(client, field, list(canonical))
        for scope in client.default_scopes:
            if scope not in client.allowed_scopes:
                raise InvalidChangeError(f"default_scopes: {scope!r} is not an allowed scope")


def _as_stored(client: Client, fields: Iterable[str]) -> dict[str, object]:
    return {field: getattr(client, field) for field in fields}
