"""Add indexes by which clients are sorted by their last use, so that a page reads few uses."""

from alembic import op

revision = "0025"
down_revision = "0024"
branch_labels = None
depends_on = None

_COLUMNS = {"client_secret": "last_used_at", "scope_use": "last_at"}


def upgrade() -> None:
    """Add the indexes."""
    for table, column in _COLUMNS.items():
        op.create_index(op.f(f"ix_{table}_{column}"), table, [column])


def downgrade() -> None:
    """Drop them."""
    for table, column in _COLUMNS.items():
        op.drop_index(op.f(f"ix_{table}_{column}"), table_name=table)
