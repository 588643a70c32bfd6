"""Add tables by which clients are found: their texts in one column, and what they are granted.

Triggers keep them, so that nodes of the release before do so as well.
"""

import sqlalchemy as sa
from alembic import op

revision = "0022"
down_revision = "0021"
branch_labels = None
depends_on = None

# Each `{row}` is NEW in a trigger, and the table in the migration.
_TEXT = "SELECT {row}.id, lower({row}.id || {lf} || {row}.name || {lf} || {row}.organisation)"
_GRANT = (
    "SELECT DISTINCT '{kind}', each.value, {row}.id FROM {tables}{each}({row}.{column}) AS each"
)
_COLUMNS = {"allowed_scopes": "scope", "allowed_resource_servers": "resource_server"}
_CHANGES = f"UPDATE OF name, organisation, {', '.join(_COLUMNS)}"
_NAMES_OF_DIALECT = {
    "postgresql": {"lf": "chr(10)", "each": "json_array_elements_text"},
    "sqlite": {"lf": "char(10)", "each": "json_each"},
}
_CLEAR = """
DELETE FROM client_text WHERE client_id = NEW.id;
DELETE FROM client_grant WHERE client_id = NEW.id;
"""
_POSTGRESQL = (
    """
CREATE FUNCTION index_client() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    {clear}
    IF NEW.kind = 'client' THEN {fill} END IF;
    RETURN NULL;
END $$
""",
    f"""
CREATE TRIGGER index_client AFTER INSERT OR {_CHANGES} ON client
FOR EACH ROW EXECUTE FUNCTION index_client()
""",
)
_SQLITE = tuple(
    f"CREATE TRIGGER {name} AFTER {event} ON client WHEN NEW.kind = 'client'"
    " BEGIN {clear} {fill} END"
    for name, event in {"index_new_client": "INSERT", "index_client": _CHANGES}.items()
)


def _fill(dialect: str, row: str, tables: str = "", where: str = "") -> list[str]:
    """Return the statements that add the rows of a client, or of all clients."""
    words = {"row": row, "tables": tables, **_NAMES_OF_DIALECT[dialect]}
    text = _TEXT.format(**words) + (f" FROM {row}" if where else "")
    grants = (_GRANT.format(kind=kind, column=each, **words) for each, kind in _COLUMNS.items())
    return [
        f"INSERT INTO client_text {text}{where}",
        *(f"INSERT INTO client_grant {grant}{where}" for grant in grants),
    ]


def upgrade() -> None:
    """Add the tables, their triggers and their rows, and indexes for lists of clients."""
    op.create_table(
        "client_text",
        sa.Column("client_id", sa.String(length=128), nullable=False),
        sa.Column("text", sa.Text(), nullable=False),
        _client("client_text"),
        sa.PrimaryKeyConstraint("client_id", name=op.f("pk_client_text")),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "client_grant",
        sa.Column("kind", sa.String(length=20), nullable=False),
        sa.Column("name", sa.String(length=200), nullable=False),
        sa.Column("client_id", sa.String(length=128), nullable=False),
        _client("client_grant"),
        sa.PrimaryKeyConstraint("kind", "name", "client_id", name=op.f("pk_client_grant")),
        sqlite_with_rowid=False,
    )
    dialect = op.get_bind().dialect.name
    for statement in _fill(dialect, "client", "client, ", " WHERE client.kind = 'client'"):
        op.execute(statement)
    op.create_index(op.f("ix_client_grant_client_id"), "client_grant", ["client_id"])
    op.create_index(op.f("ix_client_organisation"), "client", ["organisation"])
    op.create_index(op.f("ix_client_secret_expires_at"), "client_secret", ["expires_at"])
    fill = "".join(f"{each};" for each in _fill(dialect, "NEW"))
    for statement in _POSTGRESQL if dialect == "postgresql" else _SQLITE:
        op.execute(statement.format(clear=_CLEAR, fill=fill))


def downgrade() -> None:
    """Drop what was added."""
    if op.get_bind().dialect.name == "postgresql":
        op.execute("DROP TRIGGER index_client ON client")
        op.execute("DROP FUNCTION index_client()")
    else:
        op.execute("DROP TRIGGER index_new_client")
        op.execute("DROP TRIGGER index_client")
    op.drop_index(op.f("ix_client_secret_expires_at"), table_name="client_secret")
    op.drop_index(op.f("ix_client_organisation"), table_name="client")
    op.drop_table("client_grant")
    op.drop_table("client_text")


def _client(table: str) -> sa.ForeignKeyConstraint:
    return sa.ForeignKeyConstraint(
        ["client_id"],
        ["client.id"],
        name=op.f(f"fk_{table}_client_id_client"),
        ondelete="CASCADE",
    )
