"""Tables of audit records: the stored changes, their sealed blocks, and the heads of writers."""

from datetime import datetime
from typing import Any

from sqlalchemy import JSON, BigInteger, Column, Index, String, Table, Text, text
from sqlalchemy.orm import Mapped, mapped_column

from authz_server.database.orm import Base, BigIntegerKey


class AuditRecord(Base):
    """A change, stored in the transaction that made it."""

    __tablename__ = "audit_record"
    __table_args__ = (
        Index(None, "at"),
        Index(None, "subject", "id"),
        Index(None, "actor", "id"),
        Index(None, "action", "id"),
        Index(
            "ix_audit_record_unsealed",
            "id",
            # On PostgreSQL as well: naming its option here would import its dialect on SQLite.
            sqlite_where=text("block IS NULL"),
        ),
    )

    id: Mapped[int] = mapped_column(BigIntegerKey, primary_key=True)
    at: Mapped[datetime]
    actor: Mapped[str] = mapped_column(String(200))
    action: Mapped[str] = mapped_column(String(60))
    subject: Mapped[str] = mapped_column(String(300))
    detail: Mapped[dict[str, Any]]
    # The block of the chain that lists it; None: it is not sealed yet.
    block: Mapped[int | None] = mapped_column(BigInteger)


#: Names in the details of records, by which these are found: the scopes of changes of clients and
#: programmes (kind ``scope``), the ring of a change of a key (``ring``), and the client of a
#: revoked token (``client``). Triggers of the database keep it; nothing else writes it. It is
#: joined to the records that a caller sees, and not read on its own.
AUDIT_NAME = Table(
    "audit_name",
    Base.metadata,
    Column("kind", String(20), primary_key=True),
    Column("name", String(200), primary_key=True),
    Column("record_id", BigIntegerKey, primary_key=True, index=True),
    sqlite_with_rowid=False,
)


class AuditBlock(Base):
    """A block of stored audit records, sealed after their commits; never updated but signed.

    Attributes:
        number: counts from 1 without gaps.
        records: the id, the hash and the time of each record, in microseconds since 1970.
        last_at: the time of its latest record.
        previous_hash: the hash of the block before it.
        hash: the block's hash.
        signature: the checkpoint that names it; None: a later block may have one.
    """

    __tablename__ = "audit_block"

    number: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    records: Mapped[list[Any]] = mapped_column(JSON)
    sealed_at: Mapped[datetime]
    last_at: Mapped[datetime]
    previous_hash: Mapped[str] = mapped_column(String(64))
    hash: Mapped[str] = mapped_column(String(64))
    signature: Mapped[str | None] = mapped_column(Text)


class AuditWriter(Base):
    """The latest known record of a process in the audit log.

    Attributes:
        writer: the writer's id in the records.
        node: the name of the machine.
        destination: the path of the file, or the stream.
        sequence: the record's number.
        hash: the record's hash.
        at: the time of this row's last change.
        checkpoint: the latest checkpoint that names the writer; None: none does yet.
    """

    __tablename__ = "audit_writer"
    __table_args__ = (Index(None, "node", "at"),)

    writer: Mapped[str] = mapped_column(String(32), primary_key=True)
    node: Mapped[str] = mapped_column(String(255))
    destination: Mapped[str] = mapped_column(String(500))
    sequence: Mapped[int] = mapped_column(BigInteger)
    hash: Mapped[str] = mapped_column(String(64))
    at: Mapped[datetime]
    checkpoint: Mapped[str | None] = mapped_column(Text)
