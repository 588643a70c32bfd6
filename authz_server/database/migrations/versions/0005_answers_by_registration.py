"""Add the token and response forms that clients and resource servers register."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the columns; existing rows get the default."""
    op.add_column(
        "client", sa.Column("g2p_answer", sa.String(10), nullable=False, server_default="document")
    )
    op.add_column(
        "resource_server",
        sa.Column("token_type", sa.String(10), nullable=False, server_default="at+jwt"),
    )
    op.add_column(
        "resource_server",
        sa.Column(
            "introspection_audience", sa.String(10), nullable=False, server_default="identifier"
        ),
    )


def downgrade() -> None:
    """Remove the columns."""
    op.drop_column("resource_server", "introspection_audience")
    op.drop_column("resource_server", "token_type")
    op.drop_column("client", "g2p_answer")
