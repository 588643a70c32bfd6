"""Create the first schema."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create the tables."""
    op.create_table(
        "audit_record",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("actor", sa.String(length=200), nullable=False),
        sa.Column("action", sa.String(length=60), nullable=False),
        sa.Column("subject", sa.String(length=300), nullable=False),
        sa.Column("detail", sa.JSON(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_audit_record")),
    )
    op.create_index(op.f("ix_audit_record_at"), "audit_record", ["at"])

    op.create_table(
        "change",
        sa.Column("revision", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("kind", sa.String(length=10), nullable=False),
        sa.Column("subject", sa.String(length=200), nullable=False),
        sa.Column("at_microseconds", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("revision", name=op.f("pk_change")),
    )
    op.create_index(op.f("ix_change_at_microseconds"), "change", ["at_microseconds"])

    op.create_table(
        "client",
        sa.Column("id", sa.String(length=128), nullable=False),
        sa.Column("kind", sa.String(length=20), nullable=False),
        sa.Column("name", sa.String(length=200), nullable=False),
        sa.Column("organisation", sa.String(length=200), nullable=False),
        sa.Column("enabled", sa.Boolean(), nullable=False),
        sa.Column("authentication_method", sa.String(length=40), nullable=False),
        sa.Column("grant_types", sa.JSON(), nullable=False),
        sa.Column("allowed_scopes", sa.JSON(), nullable=False),
        sa.Column("default_scopes", sa.JSON(), nullable=False),
        sa.Column("allowed_resource_servers", sa.JSON(), nullable=False),
        sa.Column("permissions", sa.JSON(), nullable=False),
        sa.Column("token_lifetime_seconds", sa.Integer(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("starts_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_client")),
    )
    op.create_table(
        "encrypted_private_key",
        sa.Column("ring", sa.String(length=64), nullable=False),
        sa.Column("version", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("kid", sa.String(length=64), nullable=False),
        sa.Column("alg", sa.String(length=20), nullable=False),
        sa.Column("public_jwk", sa.JSON(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("envelope", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("ring", "version", name=op.f("pk_encrypted_private_key")),
        sa.UniqueConstraint("kid", name=op.f("uq_encrypted_private_key_kid")),
    )
    op.create_table(
        "key_ring",
        sa.Column("name", sa.String(length=64), nullable=False),
        sa.Column("alg", sa.String(length=20), nullable=False),
        sa.Column("backend_uri", sa.String(length=500), nullable=False),
        sa.Column("epoch", sa.Integer(), nullable=False),
        sa.Column("maximum_lifetime_seconds", sa.Integer(), nullable=False),
        sa.Column("prepublication_seconds", sa.Integer(), nullable=False),
        sa.Column("rotation_interval_seconds", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_key_ring")),
    )
    op.create_table(
        "reference_token",
        sa.Column("token_hash", sa.LargeBinary(length=32), nullable=False),
        sa.Column("jti", sa.String(length=64), nullable=False),
        sa.Column("client_id", sa.String(length=128), nullable=False),
        sa.Column("claims", sa.LargeBinary(), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("token_hash", name=op.f("pk_reference_token")),
        sa.UniqueConstraint("jti", name=op.f("uq_reference_token_jti")),
    )
    op.create_index(op.f("ix_reference_token_expires_at"), "reference_token", ["expires_at"])

    op.create_table(
        "revision",
        sa.Column("id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("value", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_revision")),
    )
    op.create_table(
        "revocation_cut_off",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("kind", sa.String(length=10), nullable=False),
        sa.Column("subject", sa.String(length=200), nullable=False),
        sa.Column("instant_microseconds", sa.BigInteger(), nullable=False),
        sa.Column("reason", sa.String(length=500), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_revocation_cut_off")),
    )
    op.create_index(op.f("ix_revocation_cut_off_expires_at"), "revocation_cut_off", ["expires_at"])

    op.create_table(
        "revoked_token",
        sa.Column("jti", sa.String(length=64), nullable=False),
        sa.Column("client_id", sa.String(length=128), nullable=False),
        sa.Column("revoked_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("jti", name=op.f("pk_revoked_token")),
    )
    op.create_index(op.f("ix_revoked_token_expires_at"), "revoked_token", ["expires_at"])

    op.create_table(
        "client_secret",
        sa.Column("id", sa.String(length=32), nullable=False),
        sa.Column("client_id", sa.String(length=128), nullable=False),
        sa.Column("record", sa.String(length=300), nullable=False),
        sa.Column("description", sa.String(length=200), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("ended_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("last_used_at", sa.DateTime(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(
            ["client_id"],
            ["client.id"],
            name=op.f("fk_client_secret_client_id_client"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_client_secret")),
    )
    op.create_index(op.f("ix_client_secret_client_id"), "client_secret", ["client_id"])

    op.create_table(
        "resource_server",
        sa.Column("client_id", sa.String(length=128), nullable=False),
        sa.Column("identifier", sa.String(length=500), nullable=False),
        sa.Column("token_format", sa.String(length=20), nullable=False),
        sa.Column("signing_ring", sa.String(length=60), nullable=True),
        sa.ForeignKeyConstraint(
            ["client_id"],
            ["client.id"],
            name=op.f("fk_resource_server_client_id_client"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("client_id", name=op.f("pk_resource_server")),
        sa.UniqueConstraint("identifier", name=op.f("uq_resource_server_identifier")),
    )
    op.create_table(
        "scope",
        sa.Column("name", sa.String(length=200), nullable=False),
        sa.Column("description", sa.String(length=500), nullable=False),
        sa.Column("resource_server_id", sa.String(length=128), nullable=True),
        sa.Column("risk", sa.String(length=10), nullable=False),
        sa.Column("lifetime_cap_seconds", sa.Integer(), nullable=True),
        sa.Column("callback_partner", sa.String(length=200), nullable=True),
        sa.ForeignKeyConstraint(
            ["resource_server_id"],
            ["client.id"],
            name=op.f("fk_scope_resource_server_id_client"),
            ondelete="SET NULL",
        ),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_scope")),
    )
    op.create_index(op.f("ix_scope_resource_server_id"), "scope", ["resource_server_id"])

    op.create_table(
        "signing_key",
        sa.Column("kid", sa.String(length=64), nullable=False),
        sa.Column("ring", sa.String(length=64), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("alg", sa.String(length=20), nullable=False),
        sa.Column("public_jwk", sa.JSON(), nullable=False),
        sa.Column("state", sa.String(length=20), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("published_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("activate_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("stopped_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("fenced_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("remove_after", sa.DateTime(timezone=True), nullable=True),
        sa.Column("revoked_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("reason", sa.Text(), nullable=True),
        sa.ForeignKeyConstraint(
            ["ring"], ["key_ring.name"], name=op.f("fk_signing_key_ring_key_ring")
        ),
        sa.PrimaryKeyConstraint("kid", name=op.f("pk_signing_key")),
        sa.UniqueConstraint("ring", "version", name=op.f("uq_signing_key_ring_version")),
    )
    op.create_index(
        "uq_signing_key_active",
        "signing_key",
        ["ring"],
        unique=True,
        sqlite_where=sa.text("state = 'active'"),
        postgresql_where=sa.text("state = 'active'"),
    )

    op.create_table(
        "key_event",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("ring", sa.String(length=64), nullable=False),
        sa.Column("epoch", sa.Integer(), nullable=False),
        sa.Column("kid", sa.String(length=64), nullable=False),
        sa.Column("event", sa.String(length=60), nullable=False),
        sa.Column("actor", sa.String(length=200), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["kid"], ["signing_key.kid"], name=op.f("fk_key_event_kid_signing_key")
        ),
        sa.ForeignKeyConstraint(
            ["ring"], ["key_ring.name"], name=op.f("fk_key_event_ring_key_ring")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_key_event")),
    )
    op.create_index(op.f("ix_key_event_ring_epoch"), "key_event", ["ring", "epoch"])

    op.create_table(
        "scope_alias",
        sa.Column("alias", sa.String(length=200), nullable=False),
        sa.Column("scope_name", sa.String(length=200), nullable=False),
        sa.ForeignKeyConstraint(
            ["scope_name"],
            ["scope.name"],
            name=op.f("fk_scope_alias_scope_name_scope"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("alias", name=op.f("pk_scope_alias")),
    )
    # The change feed increments this row.
    op.execute("INSERT INTO revision (id, value) VALUES (1, 0)")


def downgrade() -> None:
    """Drop the tables."""
    op.drop_table("scope_alias")
    op.drop_table("key_event")
    op.drop_table("signing_key")
    op.drop_table("scope")
    op.drop_table("resource_server")
    op.drop_table("client_secret")
    op.drop_table("revoked_token")
    op.drop_table("revocation_cut_off")
    op.drop_table("revision")
    op.drop_table("reference_token")
    op.drop_table("key_ring")
    op.drop_table("encrypted_private_key")
    op.drop_table("client")
    op.drop_table("change")
    op.drop_table("audit_record")
