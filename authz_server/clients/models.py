"""Tables of clients, resource servers and their secrets."""

from datetime import datetime
from typing import Any, Literal

from sqlalchemy import Column, ForeignKey, Index, String, Table, Text, func, text
from sqlalchemy.orm import Mapped, mapped_column, relationship

from authz_server.database.orm import Base

#: The two kinds of row in the table ``client``.
Kind = Literal["client", "resource_server"]


class Client(Base):
    """A client, or the credentials of a resource server (``kind``)."""

    __tablename__ = "client"
    # The later ones are the orders of lists.
    __table_args__ = (
        Index(None, "organisation"),
        Index("ix_client_lower_name", func.lower(text("name")), "id"),
        Index("ix_client_lower_organisation", func.lower(text("organisation")), "id"),
        Index("ix_client_created_at", "created_at", "id"),
    )

    id: Mapped[str] = mapped_column(String(128), primary_key=True)
    kind: Mapped[str] = mapped_column(String(20))  # "client" | "resource_server"
    name: Mapped[str] = mapped_column(String(200))
    organisation: Mapped[str] = mapped_column(String(200), default="")
    enabled: Mapped[bool] = mapped_column(default=True)
    authentication_method: Mapped[str] = mapped_column(String(40))
    grant_types: Mapped[list[str]]
    allowed_scopes: Mapped[list[str]]
    default_scopes: Mapped[list[str]]
    allowed_resource_servers: Mapped[list[str]]
    permissions: Mapped[list[str]]
    token_lifetime_seconds: Mapped[int | None]
    g2p_answer: Mapped[str] = mapped_column(
        String(10), default="document", server_default="document"
    )  # "document" | "oauth"
    properties: Mapped[dict[str, Any]] = mapped_column(default=dict, server_default="{}")
    created_at: Mapped[datetime]
    updated_at: Mapped[datetime]
    starts_at: Mapped[datetime | None]
    expires_at: Mapped[datetime | None]

    secrets: Mapped[list["ClientSecret"]] = relationship(
        back_populates="client", cascade="all, delete-orphan", order_by="ClientSecret.created_at"
    )
    resource_server: Mapped["ResourceServer | None"] = relationship(
        back_populates="client", cascade="all, delete-orphan"
    )


class ClientSecret(Base):
    """A secret, stored as a record that verifies it; a client may have several."""

    __tablename__ = "client_secret"
    __table_args__ = (
        Index(None, "client_id"),
        Index(None, "expires_at"),
        Index(None, "last_used_at"),
        Index(None, "pepper_fingerprint", "client_id"),
    )

    id: Mapped[str] = mapped_column(String(32), primary_key=True)
    client_id: Mapped[str] = mapped_column(ForeignKey("client.id", ondelete="CASCADE"))
    record: Mapped[str] = mapped_column(String(300))
    description: Mapped[str] = mapped_column(String(200), default="")
    created_at: Mapped[datetime]
    expires_at: Mapped[datetime | None]
    ended_at: Mapped[datetime | None]
    last_used_at: Mapped[datetime | None]
    last_used_from: Mapped[str | None] = mapped_column(String(64))
    # Ends when it has not been used for this time; None: it does not end so.
    ends_when_unused_seconds: Mapped[int | None]
    # When its end was last announced.
    warned_at: Mapped[datetime | None]
    # Of the pepper with which the record was made; None: not known.
    pepper_fingerprint: Mapped[str | None] = mapped_column(String(16))

    client: Mapped[Client] = relationship(back_populates="secrets")


class ResourceServer(Base):
    """The audience of a resource server and the form of its tokens."""

    __tablename__ = "resource_server"

    client_id: Mapped[str] = mapped_column(
        ForeignKey("client.id", ondelete="CASCADE"), primary_key=True
    )
    identifier: Mapped[str] = mapped_column(String(500), unique=True)
    token_format: Mapped[str] = mapped_column(String(20), default="jwt")  # "jwt" | "reference"
    signing_ring: Mapped[str | None] = mapped_column(String(60))  # None: the default ring
    token_type: Mapped[str] = mapped_column(
        String(10), default="at+jwt", server_default="at+jwt"
    )  # "at+jwt" | "JWT"
    introspection_audience: Mapped[str] = mapped_column(
        String(10), default="identifier", server_default="identifier"
    )  # "identifier" | "id"

    client: Mapped[Client] = relationship(back_populates="resource_server")


# Tables by which clients are found. Triggers of the database keep them; nothing else writes them.
# They are joined to the clients that a caller sees, and not read on their own.

#: The id, the name and the organisation of each client in one text, in lower case.
CLIENT_TEXT = Table(
    "client_text",
    Base.metadata,
    Column("client_id", ForeignKey("client.id", ondelete="CASCADE"), primary_key=True),
    Column("text", Text, nullable=False),
    sqlite_with_rowid=False,
)
#: The members of ``allowed_scopes`` (kind ``scope``) and ``allowed_resource_servers``
#: (``resource_server``) of each client.
CLIENT_GRANT = Table(
    "client_grant",
    Base.metadata,
    Column("kind", String(20), primary_key=True),
    Column("name", String(200), primary_key=True),
    Column("client_id", ForeignKey("client.id", ondelete="CASCADE"), primary_key=True, index=True),
    sqlite_with_rowid=False,
)


def is_live(secret: ClientSecret, now: datetime) -> bool:
    """Return whether a secret works at ``now``."""
    return all(end is None or end > now for end in (secret.expires_at, secret.ended_at))
