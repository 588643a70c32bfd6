"""Add the table of values that are accepted once."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the table."""
    op.create_table(
        "single_use",
        sa.Column("digest", sa.LargeBinary(length=32), nullable=False),
        sa.Column("expires_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("digest", name=op.f("pk_single_use")),
        sqlite_with_rowid=False,
    )
    op.create_index(op.f("ix_single_use_expires_at"), "single_use", ["expires_at"])


def downgrade() -> None:
    """Drop the table."""
    op.drop_table("single_use")
