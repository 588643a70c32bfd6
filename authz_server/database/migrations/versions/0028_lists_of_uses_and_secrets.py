"""Add indexes of the uses of a scope by their time, and of secrets by their pepper.

A caller with limits sees the uses of some scopes alone; secrets of another pepper are listed first.
"""

from alembic import op

revision = "0028"
down_revision = "0027"
branch_labels = None
depends_on = None

_INDEXES = (
    ("scope_use", ["scope", "last_at"]),
    ("scope_use", ["first_at"]),
    ("client_secret", ["pepper_fingerprint", "client_id"]),
)


def upgrade() -> None:
    """Add the indexes."""
    for table, columns in _INDEXES:
        op.create_index(op.f(f"ix_{table}_{'_'.join(columns)}"), table, columns)


def downgrade() -> None:
    """Drop them."""
    for table, columns in _INDEXES:
        op.drop_index(op.f(f"ix_{table}_{'_'.join(columns)}"), table_name=table)
