"""Add the tables of dynamic client registration."""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the tables."""
    op.create_table(
        "initial_access_token",
        sa.Column("id", sa.String(length=32), nullable=False),
        sa.Column("digest", sa.String(length=64), nullable=False),
        sa.Column("description", sa.String(length=200), nullable=False),
        sa.Column("organisation", sa.String(length=200), nullable=False),
        sa.Column("scopes", sa.JSON(), nullable=False),
        sa.Column("grant_types", sa.JSON(), nullable=False),
        sa.Column("uses_left", sa.Integer(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("ended_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("last_used_at", sa.DateTime(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_initial_access_token")),
        sa.UniqueConstraint("digest", name=op.f("uq_initial_access_token_digest")),
    )
    op.create_table(
        "client_registration",
        sa.Column("client_id", sa.String(length=128), nullable=False),
        sa.Column("token_digest", sa.String(length=64), nullable=False),
        sa.Column("granted_by", sa.String(length=200), nullable=False),
        sa.Column("permitted_scopes", sa.JSON(), nullable=False),
        sa.Column("permitted_grant_types", sa.JSON(), nullable=False),
        sa.Column("registered_scopes", sa.JSON(), nullable=False),
        sa.Column("registered_grant_types", sa.JSON(), nullable=False),
        sa.Column("registered", sa.JSON(), nullable=False),
        sa.Column("software_statement", sa.JSON(), nullable=False),
        sa.Column("registered_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["client_id"],
            ["client.id"],
            name=op.f("fk_client_registration_client_id_client"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("client_id", name=op.f("pk_client_registration")),
    )


def downgrade() -> None:
    """Drop the tables; registered clients stay, and can no longer manage their registration."""
    op.drop_table("client_registration")
    op.drop_table("initial_access_token")
