"""Keep the audience of tokens in status lists."""

import sqlalchemy as sa
from alembic import op

revision = "0019"
down_revision = "0018"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the column; the audience of earlier tokens is not known."""
    with op.batch_alter_table("status_block") as batch:
        batch.add_column(sa.Column("audience", sa.Text(), nullable=False, server_default=""))


def downgrade() -> None:
    """Remove the column."""
    with op.batch_alter_table("status_block") as batch:
        batch.drop_column("audience")
