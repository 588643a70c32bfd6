"""Add the fingerprint of the pepper with which a secret or a token of registration was made."""

import sqlalchemy as sa
from alembic import op

revision = "0023"
down_revision = "0022"
branch_labels = None
depends_on = None

_TABLES = ("client_secret", "initial_access_token", "client_registration")


def upgrade() -> None:
    """Add the columns; that of earlier rows is not known."""
    for table in _TABLES:
        # Nodes of the release before leave it out.
        op.add_column(table, sa.Column("pepper_fingerprint", sa.String(length=16), nullable=True))


def downgrade() -> None:
    """Drop the columns."""
    for table in _TABLES:
        op.drop_column(table, "pepper_fingerprint")
