"""Add shared counts, and to secrets their last source, their end when unused and their warning."""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None

_COLUMNS = (
    ("last_used_from", sa.String(64)),
    ("ends_when_unused_seconds", sa.Integer()),
    ("warned_at", sa.DateTime(timezone=True)),
)


def upgrade() -> None:
    """Add the columns, empty, and the table."""
    for name, kind in _COLUMNS:
        op.add_column("client_secret", sa.Column(name, kind, nullable=True))
    op.create_table(
        "shared_count",
        sa.Column("key", sa.LargeBinary(length=32), nullable=False),
        sa.Column("number", sa.BigInteger(), nullable=False),
        sa.Column("ends_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("key", name=op.f("pk_shared_count")),
    )
    op.create_index(op.f("ix_shared_count_ends_at"), "shared_count", ["ends_at"])


def downgrade() -> None:
    """Remove the table and the columns."""
    op.drop_table("shared_count")
    for name, _ in reversed(_COLUMNS):
        op.drop_column("client_secret", name)
