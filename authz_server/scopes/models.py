"""Tables of the scope catalogue."""

from sqlalchemy import ForeignKey, Index, String
from sqlalchemy.orm import Mapped, mapped_column, relationship

from authz_server.database.orm import Base


class Scope(Base):
    """A scope under its canonical name (slash form)."""

    __tablename__ = "scope"
    __table_args__ = (Index(None, "resource_server_id"),)

    name: Mapped[str] = mapped_column(String(200), primary_key=True)
    description: Mapped[str] = mapped_column(String(500), default="")
    resource_server_id: Mapped[str | None] = mapped_column(
        ForeignKey("client.id", ondelete="SET NULL")
    )
    risk: Mapped[str] = mapped_column(String(10))  # "read" | "write" | "money"
    lifetime_cap_seconds: Mapped[int | None]
    callback_partner: Mapped[str | None] = mapped_column(String(200))

    aliases: Mapped[list["ScopeAlias"]] = relationship(
        back_populates="scope", cascade="all, delete-orphan", order_by="ScopeAlias.alias"
    )


class ScopeAlias(Base):
    """Another spelling of a scope that requests may use."""

    __tablename__ = "scope_alias"

    alias: Mapped[str] = mapped_column(String(200), primary_key=True)
    scope_name: Mapped[str] = mapped_column(ForeignKey("scope.name", ondelete="CASCADE"))

    scope: Mapped[Scope] = relationship(back_populates="aliases")
