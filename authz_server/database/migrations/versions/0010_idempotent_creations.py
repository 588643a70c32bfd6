"""Add the table of creations that are not repeated."""

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the table."""
    op.create_table(
        "idempotent_creation",
        sa.Column("digest", sa.LargeBinary(length=32), nullable=False),
        sa.Column("request", sa.LargeBinary(length=32), nullable=False),
        sa.Column("subject", sa.String(length=300), nullable=False),
        sa.Column("expires_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("digest", name=op.f("pk_idempotent_creation")),
    )
    op.create_index(
        op.f("ix_idempotent_creation_expires_at"), "idempotent_creation", ["expires_at"]
    )


def downgrade() -> None:
    """Drop the table."""
    op.drop_table("idempotent_creation")
