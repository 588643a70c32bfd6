"""Add the optional properties of clients and resource servers."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the column; existing rows have no properties."""
    op.add_column("client", sa.Column("properties", sa.JSON(), nullable=False, server_default="{}"))


def downgrade() -> None:
    """Remove the column."""
    op.drop_column("client", "properties")
