"""Keep the authorization details of tokens in status lists."""

import sqlalchemy as sa
from alembic import op

revision = "0017"
down_revision = "0016"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the column; the details of earlier tokens are not known."""
    with op.batch_alter_table("status_block") as batch:
        batch.add_column(sa.Column("details", sa.Text(), nullable=False, server_default=""))
        batch.alter_column("details", server_default=None)


def downgrade() -> None:
    """Remove the column."""
    with op.batch_alter_table("status_block") as batch:
        batch.drop_column("details")
