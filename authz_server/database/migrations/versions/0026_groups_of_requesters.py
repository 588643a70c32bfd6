"""Add the groups of the requester of a change that waits for an approval."""

import sqlalchemy as sa
from alembic import op

revision = "0026"
down_revision = "0025"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the column; nodes of the release before leave it out."""
    op.add_column("pending_change", sa.Column("requester_groups", sa.JSON(), nullable=True))


def downgrade() -> None:
    """Drop the column."""
    op.drop_column("pending_change", "requester_groups")
