"""Keep the records of several secrets with a change that waits."""

import sqlalchemy as sa
from alembic import op

revision = "0018"
down_revision = "0017"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Let the record have any length."""
    with op.batch_alter_table("pending_change") as batch:
        batch.alter_column(
            "secret_record",
            existing_type=sa.String(length=300),
            type_=sa.Text(),
            existing_nullable=True,
        )


def downgrade() -> None:
    """Let the record have 300 characters.

    A pending change that the previous release cannot carry out fails.
    """
    op.execute(
        "UPDATE pending_change SET state = 'failed', secret_record = NULL, decided_by = 'server',"
        " decided_at = requested_at, problem = 'The release was downgraded: request it again.'"
        " WHERE state = 'pending' AND operation IN"
        " ('apply_declaration', 'keys.destroy', 'import_g2p_connect')"
    )
    with op.batch_alter_table("pending_change") as batch:
        batch.alter_column(
            "secret_record",
            existing_type=sa.Text(),
            type_=sa.String(length=300),
            existing_nullable=True,
        )
