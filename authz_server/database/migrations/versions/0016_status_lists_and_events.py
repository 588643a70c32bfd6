"""Add status lists, and streams of security events."""

import sqlalchemy as sa
from alembic import op

revision = "0016"
down_revision = "0015"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the tables."""
    op.create_table(
        "status_list",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("resource_server_id", sa.String(length=128), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("next_index", sa.Integer(), nullable=False),
        sa.Column("version", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_status_list")),
        sa.UniqueConstraint(
            "resource_server_id",
            "expires_at",
            "number",
            name=op.f("uq_status_list_resource_server_id_expires_at_number"),
        ),
    )
    op.create_index(op.f("ix_status_list_expires_at"), "status_list", ["expires_at"])
    op.create_table(
        "status_block",
        sa.Column("list_id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("start", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("size", sa.Integer(), nullable=False),
        sa.Column("client_id", sa.String(length=128), nullable=False),
        sa.Column("scopes", sa.Text(), nullable=False),
        sa.Column("kid", sa.String(length=128), nullable=False),
        sa.Column("origins", sa.Text(), nullable=False),
        sa.Column("created_microseconds", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("list_id", "start", name=op.f("pk_status_block")),
    )
    op.create_table(
        "status_revocation",
        sa.Column("list_id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("position", sa.Integer(), autoincrement=False, nullable=False),
        sa.PrimaryKeyConstraint("list_id", "position", name=op.f("pk_status_revocation")),
    )
    op.create_table(
        "event_stream",
        sa.Column("resource_server_id", sa.String(length=128), nullable=False),
        sa.Column("delivery", sa.String(length=10), nullable=False),
        sa.Column("endpoint_url", sa.String(length=2_048), nullable=False),
        sa.Column("events", sa.JSON(), nullable=False),
        sa.Column("position", sa.BigInteger(), nullable=False),
        sa.Column("pending", sa.JSON(), nullable=False),
        sa.Column("failures", sa.Integer(), nullable=False),
        sa.Column("last_error", sa.String(length=500), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("delivered_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("retry_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("leased_until", sa.DateTime(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(
            ["resource_server_id"],
            ["client.id"],
            name=op.f("fk_event_stream_resource_server_id_client"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("resource_server_id", name=op.f("pk_event_stream")),
    )
    op.create_table(
        "undelivered_event",
        sa.Column("resource_server_id", sa.String(length=128), nullable=False),
        sa.Column("record_id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("event", sa.String(length=40), nullable=False),
        sa.Column("subject", sa.String(length=300), nullable=False),
        sa.Column("error", sa.String(length=500), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["resource_server_id"],
            ["event_stream.resource_server_id"],
            name=op.f("fk_undelivered_event_resource_server_id_event_stream"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint(
            "resource_server_id", "record_id", name=op.f("pk_undelivered_event")
        ),
    )


def downgrade() -> None:
    """Drop the tables."""
    op.drop_table("undelivered_event")
    op.drop_table("event_stream")
    op.drop_table("status_revocation")
    op.drop_table("status_block")
    op.drop_index(op.f("ix_status_list_expires_at"), table_name="status_list")
    op.drop_table("status_list")
