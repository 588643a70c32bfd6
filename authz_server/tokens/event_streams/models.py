"""Tables of event streams."""

from datetime import datetime
from typing import Any

from sqlalchemy import BigInteger, ForeignKey, String
from sqlalchemy.orm import Mapped, mapped_column

from authz_server.database.orm import Base


class EventStream(Base):
    """The stream of one resource server, and how far it has read the audit records."""

    __tablename__ = "event_stream"

    resource_server_id: Mapped[str] = mapped_column(
        ForeignKey("client.id", ondelete="CASCADE"), primary_key=True
    )
    delivery: Mapped[str] = mapped_column(String(10))  # "push" | "poll"
    endpoint_url: Mapped[str] = mapped_column(String(2_048))
    events: Mapped[list[str]]  # short names; empty: all
    # Every audit record up to this id has been read.
    position: Mapped[int] = mapped_column(BigInteger)
    # Of these, by id: events that are not delivered, and ids of transactions still open.
    pending: Mapped[dict[str, Any]]
    failures: Mapped[int]
    last_error: Mapped[str] = mapped_column(String(500))
    created_at: Mapped[datetime]
    delivered_at: Mapped[datetime | None]
    retry_at: Mapped[datetime | None]
    # The process that pushes holds the stream until then.
    leased_until: Mapped[datetime | None]


class UndeliveredEvent(Base):
    """An event that the resource server refused, or that could not be delivered in time."""

    __tablename__ = "undelivered_event"

    resource_server_id: Mapped[str] = mapped_column(
        ForeignKey("event_stream.resource_server_id", ondelete="CASCADE"), primary_key=True
    )
    record_id: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    event: Mapped[str] = mapped_column(String(40))
    subject: Mapped[str] = mapped_column(String(300))
    error: Mapped[str] = mapped_column(String(500))
    at: Mapped[datetime]
