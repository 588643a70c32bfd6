"""Add the chain of audit records, their indexes, and the use of scopes."""

import sqlalchemy as sa
from alembic import op

revision = "0015"
down_revision = "0014"
branch_labels = None
depends_on = None

_INDEXED = ("subject", "actor", "action")
_UNSEALED = sa.text("block IS NULL")


def upgrade() -> None:
    """Add the column, the indexes and the tables; the server seals the records that are there."""
    op.add_column("audit_record", sa.Column("block", sa.BigInteger(), nullable=True))
    for name in _INDEXED:
        op.create_index(op.f(f"ix_audit_record_{name}_id"), "audit_record", [name, "id"])
    op.create_index(
        op.f("ix_audit_record_unsealed"),
        "audit_record",
        ["id"],
        sqlite_where=_UNSEALED,
        postgresql_where=_UNSEALED,
    )
    op.create_table(
        "audit_block",
        sa.Column("number", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("records", sa.JSON(), nullable=False),
        sa.Column("sealed_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("last_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("previous_hash", sa.String(length=64), nullable=False),
        sa.Column("hash", sa.String(length=64), nullable=False),
        sa.Column("signature", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint("number", name=op.f("pk_audit_block")),
    )
    op.create_table(
        "audit_writer",
        sa.Column("writer", sa.String(length=32), nullable=False),
        sa.Column("node", sa.String(length=255), nullable=False),
        sa.Column("destination", sa.String(length=500), nullable=False),
        sa.Column("sequence", sa.BigInteger(), nullable=False),
        sa.Column("hash", sa.String(length=64), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("checkpoint", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint("writer", name=op.f("pk_audit_writer")),
    )
    op.create_index(op.f("ix_audit_writer_node_at"), "audit_writer", ["node", "at"])
    op.create_table(
        "scope_use",
        sa.Column("client_id", sa.String(length=128), nullable=False),
        sa.Column("scope", sa.String(length=200), nullable=False),
        sa.Column("kind", sa.String(length=10), nullable=False),
        sa.Column("first_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("last_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("client_id", "scope", "kind", name=op.f("pk_scope_use")),
    )


def downgrade() -> None:
    """Drop the tables, the indexes and the column."""
    for table in ("scope_use", "audit_writer", "audit_block"):
        op.drop_table(table)
    for name in ("unsealed", *(f"{each}_id" for each in _INDEXED)):
        op.drop_index(op.f(f"ix_audit_record_{name}"), "audit_record")
    op.drop_column("audit_record", "block")
