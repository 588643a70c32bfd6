"""Add the latest time that has certainly passed, and clock readings of machines."""

import time

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

_MARK = sa.table(
    "clock_mark", sa.column("id", sa.Integer), sa.column("microseconds", sa.BigInteger)
)


def upgrade() -> None:
    """Add the tables; the mark starts at the present time."""
    op.create_table(
        "clock_mark",
        sa.Column("id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("microseconds", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_clock_mark")),
    )
    op.create_table(
        "clock_reading",
        sa.Column("boot", sa.String(length=100), nullable=False),
        sa.Column("at_microseconds", sa.BigInteger(), nullable=False),
        sa.Column("uptime_microseconds", sa.BigInteger(), nullable=False),
        sa.Column("steady_since_microseconds", sa.BigInteger(), nullable=False),
        sa.Column("leapt", sa.Boolean(), nullable=False),
        sa.PrimaryKeyConstraint("boot", name=op.f("pk_clock_reading")),
    )
    op.execute(_MARK.insert().values(id=1, microseconds=_now_microseconds()))


def _now_microseconds() -> int:
    connection = op.get_bind()
    if connection.dialect.name == "sqlite":
        return time.time_ns() // 1_000
    seconds = connection.execute(sa.text("SELECT extract(epoch FROM clock_timestamp())"))
    return int(seconds.scalar_one() * 1_000_000)


def downgrade() -> None:
    """Drop the tables."""
    op.drop_table("clock_reading")
    op.drop_table("clock_mark")
