"""Add key lifecycle: ring state, nodes, JWKS consumers, and events as a hash chain."""

import hashlib
import json
from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

_RING = sa.table("key_ring", sa.column("name", sa.String), sa.column("event_hash", sa.String))
_EVENT = sa.table(
    "key_event",
    sa.column("id", sa.BigInteger),
    sa.column("ring", sa.String),
    sa.column("epoch", sa.Integer),
    sa.column("kid", sa.String),
    sa.column("event", sa.String),
    sa.column("actor", sa.String),
    sa.column("reason", sa.Text),
    sa.column("at", sa.DateTime(timezone=True)),
    sa.column("previous_hash", sa.String),
    sa.column("hash", sa.String),
)


def upgrade() -> None:
    """Add the columns and tables, and chain the existing events."""
    for column in (
        sa.Column("frozen", sa.Boolean(), server_default=sa.false(), nullable=False),
        sa.Column("successor", sa.String(length=64), nullable=True),
        sa.Column("succeeded_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("cautious_until", sa.DateTime(timezone=True), nullable=True),
        sa.Column("claimed_until", sa.DateTime(timezone=True), nullable=True),
        sa.Column("changed_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("event_hash", sa.String(length=64), server_default="", nullable=False),
    ):
        op.add_column("key_ring", column)
    with op.batch_alter_table("key_event") as batch:
        batch.alter_column("kid", existing_type=sa.String(length=64), nullable=True)
        batch.add_column(sa.Column("previous_hash", sa.String(length=64), nullable=True))
        batch.add_column(sa.Column("hash", sa.String(length=64), nullable=True))
    _chain_events()
    with op.batch_alter_table("key_event") as batch:
        for name in ("previous_hash", "hash"):
            batch.alter_column(name, existing_type=sa.String(length=64), nullable=False)

    op.create_table(
        "key_node",
        sa.Column("node", sa.String(length=200), nullable=False),
        sa.Column("ring", sa.String(length=64), nullable=False),
        sa.Column("epoch_seen", sa.Integer(), nullable=False),
        sa.Column("seen_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("clock_offset_seconds", sa.Float(), nullable=False),
        sa.PrimaryKeyConstraint("node", "ring", name=op.f("pk_key_node")),
    )
    op.create_index(op.f("ix_key_node_seen_at"), "key_node", ["seen_at"])

    op.create_table(
        "jwks_reader",
        sa.Column("user_agent", sa.String(length=100), nullable=False),
        sa.Column("network", sa.String(length=50), nullable=False),
        sa.Column("last_fetched_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("user_agent", "network", name=op.f("pk_jwks_reader")),
    )
    op.create_index(op.f("ix_jwks_reader_last_fetched_at"), "jwks_reader", ["last_fetched_at"])


def _chain_events() -> None:
    connection = op.get_bind()
    latest: dict[str, str] = {}
    for row in connection.execute(sa.select(_EVENT).order_by(_EVENT.c.id)).all():
        previous = latest.get(row.ring, "")
        latest[row.ring] = _hash(previous, row)
        connection.execute(
            _EVENT.update()
            .where(_EVENT.c.id == row.id)
            .values(previous_hash=previous, hash=latest[row.ring])
        )
    for ring, digest in latest.items():
        connection.execute(_RING.update().where(_RING.c.name == ring).values(event_hash=digest))


def _hash(previous: str, row: Any) -> str:  # noqa: ANN401 - a row of the table
    """Return the hash that ``authz_server.key_rings.event_log.chain_hash`` had at this revision."""
    at: datetime = row.at if row.at.tzinfo else row.at.replace(tzinfo=UTC)
    members = {
        name: getattr(row, name) for name in ("ring", "epoch", "kid", "event", "actor", "reason")
    }
    members["at"] = at.astimezone(UTC).isoformat(timespec="microseconds")
    document = json.dumps(members, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(previous.encode() + document.encode()).hexdigest()


def downgrade() -> None:
    """Drop the columns and tables; events of rings without a key are lost."""
    op.drop_table("jwks_reader")
    op.drop_table("key_node")
    op.execute(_EVENT.delete().where(_EVENT.c.kid.is_(None)))
    with op.batch_alter_table("key_event") as batch:
        batch.drop_column("hash")
        batch.drop_column("previous_hash")
        batch.alter_column("kid", existing_type=sa.String(length=64), nullable=False)
    for name in (
        "event_hash",
        "claimed_until",
        "changed_at",
        "cautious_until",
        "succeeded_at",
        "successor",
        "frozen",
    ):
        op.drop_column("key_ring", name)
