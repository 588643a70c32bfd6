"""Keep the files of an application that waits apart from its arguments."""

import sqlalchemy as sa
from alembic import op

revision = "0020"
down_revision = "0019"
branch_labels = None
depends_on = None

# What waits has its files in the other form.
_FAIL_APPLICATIONS = (
    "UPDATE pending_change SET state = 'failed', secret_record = NULL, decided_by = 'server',"
    " decided_at = requested_at, problem = 'The release was changed: request it again.'"
    " WHERE state = 'pending' AND operation = 'apply_declaration'"
)


def upgrade() -> None:
    """Add the column; applications that wait have failed."""
    op.execute(_FAIL_APPLICATIONS)
    with op.batch_alter_table("pending_change") as batch:
        batch.add_column(sa.Column("files", sa.JSON(), nullable=True))


def downgrade() -> None:
    """Drop the column; applications that wait have failed."""
    op.execute(_FAIL_APPLICATIONS)
    with op.batch_alter_table("pending_change") as batch:
        batch.drop_column("files")
