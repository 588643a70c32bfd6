"""Tables of initial access tokens and of dynamically registered clients."""

from datetime import datetime
from typing import Any

from sqlalchemy import ForeignKey, String
from sqlalchemy.orm import Mapped, mapped_column

from authz_server.database.orm import Base


class InitialAccessToken(Base):
    """An initial access token (RFC 7591, 1.2), stored as a digest, with what it permits."""

    __tablename__ = "initial_access_token"

    id: Mapped[str] = mapped_column(String(32), primary_key=True)
    digest: Mapped[str] = mapped_column(String(64), unique=True)
    description: Mapped[str] = mapped_column(String(200))
    organisation: Mapped[str] = mapped_column(String(200))
    scopes: Mapped[list[str]]
    grant_types: Mapped[list[str]]
    uses_left: Mapped[int]
    created_at: Mapped[datetime]
    expires_at: Mapped[datetime]
    ended_at: Mapped[datetime | None]
    last_used_at: Mapped[datetime | None]
    pepper_fingerprint: Mapped[str | None] = mapped_column(String(16))


class Registration(Base):
    """The dynamic registration of a client.

    ``permitted_scopes`` and ``permitted_grant_types`` limit its updates. ``registered_scopes`` and
    ``registered_grant_types`` are what the client registered last; an operator has changed the
    client if its own values differ. ``registered`` has the other members, likewise: ``members``
    without an effect, the ``method`` and ``properties``.
    """

    __tablename__ = "client_registration"

    client_id: Mapped[str] = mapped_column(
        ForeignKey("client.id", ondelete="CASCADE"), primary_key=True
    )
    token_digest: Mapped[str] = mapped_column(String(64))
    pepper_fingerprint: Mapped[str | None] = mapped_column(String(16))
    granted_by: Mapped[str] = mapped_column(String(200))
    permitted_scopes: Mapped[list[str]]
    permitted_grant_types: Mapped[list[str]]
    registered_scopes: Mapped[list[str]]
    registered_grant_types: Mapped[list[str]]
    registered: Mapped[dict[str, Any]]
    software_statement: Mapped[dict[str, Any]]
    registered_at: Mapped[datetime]
