"""Add indexes by which lists of clients are sorted, so that a page is read without the others."""

import sqlalchemy as sa
from alembic import op

revision = "0024"
down_revision = "0023"
branch_labels = None
depends_on = None

_ORDERS: dict[str, str | sa.TextClause] = {
    "ix_client_lower_name": sa.text("lower(name)"),
    "ix_client_lower_organisation": sa.text("lower(organisation)"),
    "ix_client_created_at": "created_at",
}


def upgrade() -> None:
    """Add the indexes."""
    for name, key in _ORDERS.items():
        op.create_index(op.f(name), "client", [key, "id"])


def downgrade() -> None:
    """Drop them."""
    for name in _ORDERS:
        op.drop_index(op.f(name), table_name="client")
