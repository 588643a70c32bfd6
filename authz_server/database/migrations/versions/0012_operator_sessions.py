"""Add the tables of operators' sessions, log-ins and passkeys."""

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the tables."""
    op.create_table(
        "operator_session",
        sa.Column("digest", sa.LargeBinary(length=32), nullable=False),
        sa.Column("operator_id", sa.String(length=200), nullable=False),
        sa.Column("issuer", sa.String(length=300), nullable=False),
        sa.Column("subject", sa.String(length=255), nullable=False),
        sa.Column("name", sa.String(length=200), nullable=False),
        sa.Column("groups", sa.JSON(), nullable=False),
        sa.Column("amr", sa.JSON(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("seen_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("authenticated_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("digest", name=op.f("pk_operator_session")),
    )
    for column in ("expires_at", "operator_id"):
        op.create_index(op.f(f"ix_operator_session_{column}"), "operator_session", [column])
    op.create_table(
        "operator_log_in",
        sa.Column("digest", sa.LargeBinary(length=32), nullable=False),
        sa.Column("content", sa.JSON(), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("digest", name=op.f("pk_operator_log_in")),
    )
    op.create_index(op.f("ix_operator_log_in_expires_at"), "operator_log_in", ["expires_at"])
    op.create_table(
        "operator_passkey",
        sa.Column("credential_id", sa.LargeBinary(length=1_023), nullable=False),
        sa.Column("operator_id", sa.String(length=200), nullable=False),
        sa.Column("name", sa.String(length=100), nullable=False),
        sa.Column("public_key", sa.LargeBinary(length=4_096), nullable=False),
        sa.Column("sign_count", sa.BigInteger(), nullable=False),
        sa.Column("transports", sa.JSON(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("last_used_at", sa.DateTime(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("credential_id", name=op.f("pk_operator_passkey")),
    )
    op.create_index(op.f("ix_operator_passkey_operator_id"), "operator_passkey", ["operator_id"])


def downgrade() -> None:
    """Drop the tables."""
    op.drop_table("operator_passkey")
    op.drop_table("operator_log_in")
    op.drop_table("operator_session")
