"""Drop the index of the expiries of used values, which each use had to maintain."""

from alembic import op

revision = "0021"
down_revision = "0020"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Drop the index; the purge reads the table along its primary key."""
    op.drop_index(op.f("ix_single_use_expires_at"), table_name="single_use")


def downgrade() -> None:
    """Add the index."""
    op.create_index(op.f("ix_single_use_expires_at"), "single_use", ["expires_at"])
