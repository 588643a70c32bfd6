"""Keep the time that had certainly passed at each machine's last check of its clock."""

import sqlalchemy as sa
from alembic import op

revision = "0029"
down_revision = "0028"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the column; that of earlier checks is not known."""
    with op.batch_alter_table("clock_reading") as batch:
        batch.add_column(sa.Column("reached_microseconds", sa.BigInteger(), nullable=True))


def downgrade() -> None:
    """Remove the column."""
    with op.batch_alter_table("clock_reading") as batch:
        batch.drop_column("reached_microseconds")
