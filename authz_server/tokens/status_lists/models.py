"""Tables of status lists."""

from datetime import datetime

from sqlalchemy import BigInteger, Index, String, Text, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from authz_server.database.orm import Base, BigIntegerKey


class StatusList(Base):
    """A status list: the tokens for one resource server that expire within one period."""

    __tablename__ = "status_list"
    __table_args__ = (
        UniqueConstraint("resource_server_id", "expires_at", "number"),
        Index(None, "expires_at"),
    )

    id: Mapped[int] = mapped_column(BigIntegerKey, primary_key=True)
    resource_server_id: Mapped[str] = mapped_column(String(128))
    # The end of the period; no token of the list is accepted later.
    expires_at: Mapped[datetime]
    number: Mapped[int]  # 0, and the next one when a list is full
    next_index: Mapped[int]
    # Grows with each single revocation.
    version: Mapped[int] = mapped_column(BigInteger)


class StatusBlock(Base):
    """Indexes that one process uses for the tokens of one client, audience, set of scopes and key.

    The row is stored before the first of these tokens is issued. A cut-off finds in it what the
    indexes were used for.
    """

    __tablename__ = "status_block"

    list_id: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    start: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    size: Mapped[int]
    client_id: Mapped[str] = mapped_column(String(128))
    scopes: Mapped[str] = mapped_column(Text)  # as in the tokens, separated by spaces
    kid: Mapped[str] = mapped_column(String(128))
    # The tokens that theirs were exchanged from, as JSON; empty if there are none.
    origins: Mapped[str] = mapped_column(Text, default="")
    # Their authorization details (RFC 9396), as JSON; empty if there are none.
    details: Mapped[str] = mapped_column(Text, default="")
    # Their audience, separated by spaces; empty for tokens of an earlier release.
    audience: Mapped[str] = mapped_column(Text, default="", server_default="")
    # No token of the block was issued earlier.
    created_microseconds: Mapped[int] = mapped_column(BigInteger)


class StatusRevocation(Base):
    """The index of a token that was revoked by itself."""

    __tablename__ = "status_revocation"

    list_id: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    position: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
