"""Tables of the key rings' public state; none holds a private key."""

from datetime import datetime
from typing import Any

from sqlalchemy import Float, ForeignKey, Index, String, Text, UniqueConstraint, false, text
from sqlalchemy.orm import Mapped, mapped_column

from authz_server.database.orm import Base, BigIntegerKey

#: The previous hash of a ring's first event.
NO_HASH = ""


class KeyRing(Base):
    """A ring; ``epoch`` counts its changes, for compare-and-set.

    ``event_hash`` is the hash of the ring's latest event.
    """

    __tablename__ = "key_ring"

    name: Mapped[str] = mapped_column(String(64), primary_key=True)
    alg: Mapped[str] = mapped_column(String(20))
    backend_uri: Mapped[str] = mapped_column(String(500))
    epoch: Mapped[int]
    maximum_lifetime_seconds: Mapped[int]
    prepublication_seconds: Mapped[int]
    rotation_interval_seconds: Mapped[int]
    frozen: Mapped[bool] = mapped_column(default=False, server_default=false())
    successor: Mapped[str | None] = mapped_column(String(64))
    succeeded_at: Mapped[datetime | None]
    cautious_until: Mapped[datetime | None]
    claimed_until: Mapped[datetime | None]
    changed_at: Mapped[datetime | None]
    event_hash: Mapped[str] = mapped_column(String(64), default=NO_HASH, server_default=NO_HASH)


class SigningKeyRow(Base):
    """The public side of one version of a ring.

    The partial index limits which keys are *recorded* as active. The active key follows from
    ``activate_at``: an activation does not change this table until it is recorded, the old key
    first.
    """

    __tablename__ = "signing_key"
    __table_args__ = (
        UniqueConstraint("ring", "version"),
        Index(
            "uq_signing_key_active",
            "ring",
            unique=True,
            # On PostgreSQL as well: naming its option here would import its dialect on SQLite.
            sqlite_where=text("state = 'active'"),
        ),
    )

    kid: Mapped[str] = mapped_column(String(64), primary_key=True)
    ring: Mapped[str] = mapped_column(ForeignKey("key_ring.name"))
    version: Mapped[int]
    alg: Mapped[str] = mapped_column(String(20))
    public_jwk: Mapped[dict[str, Any]]
    state: Mapped[str] = mapped_column(String(20))
    created_at: Mapped[datetime]
    published_at: Mapped[datetime | None]
    activate_at: Mapped[datetime | None]
    stopped_at: Mapped[datetime | None]
    fenced_at: Mapped[datetime | None]
    remove_after: Mapped[datetime | None]
    revoked_at: Mapped[datetime | None]
    reason: Mapped[str | None] = mapped_column(Text)


class KeyEvent(Base):
    """An event of a key or a ring, with actor and reason; written with the change, never updated.

    ``kid`` is null for an event of the ring itself.
    """

    __tablename__ = "key_event"
    __table_args__ = (Index(None, "ring", "epoch"),)

    id: Mapped[int] = mapped_column(BigIntegerKey, primary_key=True)
    ring: Mapped[str] = mapped_column(ForeignKey("key_ring.name"))
    epoch: Mapped[int]
    kid: Mapped[str | None] = mapped_column(ForeignKey("signing_key.kid"))
    event: Mapped[str] = mapped_column(String(60))
    actor: Mapped[str] = mapped_column(String(200))
    reason: Mapped[str] = mapped_column(Text)
    at: Mapped[datetime]
    previous_hash: Mapped[str] = mapped_column(String(64))
    hash: Mapped[str] = mapped_column(String(64))


class KeyNode(Base):
    """A node's latest report on one ring; ``seen_at`` is the database's time."""

    __tablename__ = "key_node"
    __table_args__ = (Index(None, "seen_at"),)

    node: Mapped[str] = mapped_column(String(200), primary_key=True)
    ring: Mapped[str] = mapped_column(String(64), primary_key=True)
    epoch_seen: Mapped[int]
    seen_at: Mapped[datetime]
    clock_offset_seconds: Mapped[float] = mapped_column(Float)
