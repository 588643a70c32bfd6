"""Create, list and end the initial access tokens of dynamic registration."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from sqlalchemy.orm import Session

from authz_server.assembly import Services
from authz_server.audit.records import difference, record_difference
from authz_server.clients.registration.models import InitialAccessToken
from authz_server.clients.secret_changes import PreparedSecret
from authz_server.clients.validation import DEFAULT_GRANT_TYPES
from authz_server.errors import NotFoundError
from authz_server.operations.approvals import NotedAct, note_act
from authz_server.operations.client_acts import (
    find_organisation,
    find_owners,
    find_registration_acts,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class RegistrationTokenView:
    """An initial access token as operators see it, without its value and its digest.

    Attributes:
        works: True if it permits a registration now.
        uses_left: the number of registrations that it still permits.
        ends_at: the time at which it ends or ended.
        last_used_at: the time of its last use; None: never.
        pepper_fingerprint: the fingerprint of the pepper with which it was made; None: not known.
    """

    id: str
    description: str
    works: bool
    organisation: str
    scopes: tuple[str, ...]
    grant_types: tuple[str, ...]
    uses_left: int
    created_at: datetime
    ends_at: datetime
    last_used_at: datetime | None
    pepper_fingerprint: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class NewRegistrationToken:
    """An initial access token that was created.

    Attributes:
        view: the stored token.
        value: the token itself, which cannot be read again.
    """

    view: RegistrationTokenView
    value: str = field(repr=False)


def create_registration_token(  # noqa: PLR0913 - the fields themselves, by name
    services: Services,
    *,
    actor: str,
    expires_at: datetime,
    uses: int = 1,
    scopes: Iterable[str] = (),
    grant_types: Iterable[str] = DEFAULT_GRANT_TYPES,
    organisation: str = "",
    description: str = "",
    prepared: PreparedSecret | None = None,
) -> NewRegistrationToken:
    """Create an initial access token.

    Args:
        services: the parts of the server.
        actor: the recorded actor.
        expires_at: the time after which it is refused.
        uses: the number of registrations that it permits.
        scopes: the scopes that it may give; a trailing ``/*`` stands for all scopes below.
        grant_types: the grant types that it may give.
        organisation: the organisation of the clients.
        description: the purpose of the token.
        prepared: the token that an approved change adds.

    Raises:
        InvalidChangeError: a value breaks a rule.
        NotFoundError: the catalogue has no scope below a ``/*``.
    """
    with services.transaction() as session:
        fields: dict[str, Any] = {
            "expires_at": expires_at,
            "uses": uses,
            "scopes": services.scopes.expand(session, scopes),
            "grant_types": tuple(grant_types),
            "organisation": organisation,
            "description": description,
        }
        row, value = services.initial_tokens.create(
            session, actor=actor, prepared=prepared, **fields
        )
        view = _describe(row, services.corrected_clock())
        record_difference(session, None, view)
        _note(services, session, row, view, actor=actor, arguments=fields)
        return NewRegistrationToken(view=view, value=value)


def list_registration_tokens(services: Services) -> tuple[RegistrationTokenView, ...]:
    """Return every initial access token, also those that have ended, the newest first."""
    with services.transaction() as session:
        now = services.corrected_clock()
        return tuple(_describe(row, now) for row in services.initial_tokens.list_all(session))


def get_registration_token(services: Services, token_id: str) -> RegistrationTokenView:
    """Return an initial access token.

    Raises:
        NotFoundError: there is no such token.
    """
    with services.transaction() as session:
        row = session.get(InitialAccessToken, token_id)
        if row is None:
            raise NotFoundError(f"There is no initial access token {token_id!r}.")
        return _describe(row, services.corrected_clock())


def end_registration_token(
    services: Services, token_id: str, *, actor: str
) -> RegistrationTokenView:
    """End an initial access token permanently; registered clients stay.

    Raises:
        NotFoundError: there is no such token.
    """
    with services.transaction() as session:
        held = session.get(InitialAccessToken, token_id, with_for_update=True)
        before = None if held is None else _describe(held, services.corrected_clock())
        row = services.initial_tokens.end(session, token_id, actor=actor)
        after = _describe(row, services.corrected_clock())
        record_difference(session, before, after)
        return after


def _note(  # noqa: PLR0913 - the facts of an act, by name
    services: Services,
    session: Session,
    row: InitialAccessToken,
    view: RegistrationTokenView,
    *,
    actor: str,
    arguments: Mapping[str, Any],
) -> None:
    """Note a token by which clients get what may need a second person."""
    if not services.settings.approvals.acts:
        return
    act = NotedAct(
        acts=find_registration_acts(session, frozenset(row.scopes), row.grant_types),
        actor=actor,
        operation="create_registration_token",
        arguments=arguments,
        subject=f"registration-token:{row.id}",
        organisation=find_organisation(row.organisation, row.scopes),
        resource_servers=find_owners(session, row.scopes),
        diff=difference(None, view),
        secret=PreparedSecret(row.id, row.digest),
    )
    note_act(services, session, act)


def _describe(row: InitialAccessToken, now: datetime) -> RegistrationTokenView:
    ends_at = row.expires_at if row.ended_at is None else min(row.ended_at, row.expires_at)
    return RegistrationTokenView(
        id=row.id,
        description=row.description,
        works=ends_at > now and row.uses_left > 0,
        organisation=row.organisation,
        scopes=tuple(row.scopes),
        grant_types=tuple(row.grant_types),
        uses_left=row.uses_left,
        created_at=row.created_at,
        ends_at=ends_at,
        last_used_at=row.last_used_at,
        pepper_fingerprint=row.pepper_fingerprint,
    )
