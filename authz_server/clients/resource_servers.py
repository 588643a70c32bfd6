"""Create and change resource servers."""

from collections.abc import Iterable, Mapping
from datetime import datetime

from sqlalchemy import select
from sqlalchemy.orm import Session

from authz_server.clients import validation
from authz_server.clients.authentication.shared_secret import CLIENT_SECRET
from authz_server.clients.identifiers import normalised
from authz_server.clients.models import Client, ResourceServer
from authz_server.clients.properties import NO_CHANGES
from authz_server.clients.registrations import (
    Registrations,
    assign_fields,
    find_identifier,
    require_ordered_dates,
)
from authz_server.errors import ConflictError


class ResourceServerChanges(Registrations):
    """Creates and changes resource servers."""

    def create_resource_server(  # noqa: PLR0913 - the fields themselves, by name
        self,
        session: Session,
        *,
        actor: str,
        id: str | None = None,  # noqa: A002 - the field's name
        name: str,
        identifier: str,
        organisation: str = "",
        authentication_method: str = CLIENT_SECRET,
        token_format: str = "jwt",  # noqa: S107 - a format, not a secret
        signing_ring: str | None = None,
        token_type: str = "at+jwt",  # noqa: S107 - a media type, not a secret
        introspection_audience: str = "identifier",
        permissions: Iterable[str] = (),
        properties: Mapping[str, object] = NO_CHANGES,
    ) -> Client:
        """Add a resource server without a secret and without scopes.

        ``identifier`` is the URI that tokens carry as audience. ``signing_ring`` names the key ring
        that signs them; None is the default ring. ``token_type`` is their ``typ``, and
        ``introspection_audience`` selects the ``aud`` of signed introspection answers.

        Raises:
            InvalidChangeError: a value breaks a rule.
            ConflictError: the id or the identifier is taken.
        """
        offered = {
            "name": name,
            "organisation": organisation,
            "authentication_method": authentication_method,
            "permissions": permissions,
            "properties": properties,
        }
        values = validation.checked_values(offered, validation.SHARED_RULES, self._limits)
        resource = validation.checked_values(
            {
                "identifier": identifier,
                "token_format": token_format,
                "signing_ring": signing_ring,
                "token_type": token_type,
                "introspection_audience": introspection_audience,
            },
            validation.RESOURCE_RULES,
            self._limits,
        )
        client = self._new_registration(session, id, "resource_server", values)
        self._require_free_identifier(session, client.id, identifier)
        client.resource_server = ResourceServer(client_id=client.id, **resource)
        self._finish(session, client, actor, "resource_server.created", values | resource)
        self._end_late_tokens(session, identifier, actor, before=client.created_at)
        return client

    def update_resource_server(
        self, session: Session, client_id: str, *, actor: str, **changes: object
    ) -> Client:
        """Change the named fields of a resource server.

        A new identifier is a new audience: the tokens for the old one are revoked.

        Raises:
            NotFoundError, InvalidChangeError, ConflictError
        """
        both = {**validation.SHARED_RULES, **validation.RESOURCE_RULES}
        values = validation.checked_values(changes, both, self._limits)
        client = self._locked(session, client_id, "resource_server")
        identifier = before = find_identifier(session, client_id)
        if "identifier" in values:
            identifier = values["identifier"]
            self._require_free_identifier(session, client_id, identifier)
        assign_fields(
            client, {key: values[key] for key in values if key in validation.SHARED_RULES}
        )
        assign_fields(
            client.resource_server,
            {key: values[key] for key in values if key in validation.RESOURCE_RULES},
        )
        require_ordered_dates(client)
        self._finish(session, client, actor, "resource_server.updated", values)
        if identifier != before:
            self._revoker.cut_off_audience(
                session, before, actor=actor, reason="the resource server has another identifier"
            )
            self._end_late_tokens(session, identifier, actor)
        return client

    def _end_late_tokens(
        self, session: Session, identifier: str, actor: str, *, before: datetime | None = None
    ) -> None:
        """Revoke tokens that a process issued before it had read that an audience ended."""
        if self._revoker.has_cut_off_audience(session, identifier):
            self._revoker.cut_off_audience(
                session,
                identifier,
                actor=actor,
                reason="the identifier is used again",
                before=before,
            )

    def _require_free_identifier(self, session: Session, client_id: str, identifier: str) -> None:
        wanted = normalised(identifier)
        if wanted == normalised(self._limits.issuer):
            raise ConflictError(
                f"The identifier {identifier!r} is the issuer's: a token would be for the server."
            )
        with session.no_autoflush:
            held = session.execute(select(ResourceServer.client_id, ResourceServer.identifier))
        for holder, other in held:
            if holder != client_id and normalised(other) == wanted:
                raise ConflictError(f"The identifier {identifier!r} belongs to {holder!r}.")
