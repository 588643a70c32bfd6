"""Add a table of the scopes, rings and clients in the details of audit records.

Triggers keep it, so that nodes of the release before do so as well.
"""

import sqlalchemy as sa
from alembic import op

revision = "0027"
down_revision = "0026"
branch_labels = None
depends_on = None

# Texts below a member whose name has "scopes", of the changes that have such; the ring of a change
# of a key; the client of a revoked token. Details that are not JSON have no names.
_WITH_SCOPES = (
    "'client.created', 'client.updated', 'client.registered', "
    "'scope.programme_defined', 'scope.programme_deleted'"
)
_SQLITE = """
INSERT OR IGNORE INTO audit_name (kind, name, record_id)
SELECT CASE
    WHEN each.path <> '$' THEN 'scope'
    WHEN each.key = 'ring' THEN 'ring'
    WHEN each.key = 'client_id' THEN 'client'
    ELSE 'scope' END,
  each.value, {row}.id
FROM {tables}json_tree(
    CASE WHEN json_valid({row}.detail) THEN {row}.detail ELSE '[]' END) AS each
WHERE each.type = 'text' AND length(each.value) <= 200 AND (
  (each.path = '$' AND each.key = 'ring')
  OR ({row}.action = 'token.revoked' AND each.path = '$' AND each.key = 'client_id')
  OR ({row}.action IN ({actions}) AND each.fullkey LIKE '%scopes%'))
"""
_CLEAR = "DELETE FROM audit_name WHERE record_id = OLD.id;"
_SQLITE_TRIGGERS = tuple(
    f"CREATE TRIGGER {name} AFTER {event} ON audit_record BEGIN {acts} END"
    for name, event, acts in (
        ("index_new_audit_record", "INSERT", "{fill};"),
        ("index_audit_record", "UPDATE OF action, detail", f"{_CLEAR} {{fill}};"),
        ("unindex_audit_record", "DELETE", _CLEAR),
    )
)
# PostgreSQL stores JSON that it cannot read, such as an escaped NUL: it must not fail the change.
_POSTGRESQL = """
CREATE FUNCTION names_in_audit_record(action text, detail json)
RETURNS TABLE (kind text, name text) LANGUAGE plpgsql STABLE AS $$
BEGIN
    kind := CASE action WHEN 'token.revoked' THEN 'client' ELSE 'ring' END;
    name := CASE action WHEN 'token.revoked' THEN detail->>'client_id' ELSE detail->>'ring' END;
    IF length(name) <= 200 THEN RETURN NEXT; END IF;
    IF action IN ({actions}) THEN
        RETURN QUERY SELECT DISTINCT 'scope', text.value #>> '{{}}' FROM jsonb_path_query(
            detail::jsonb,
            '$.** ? (@.type() == "object").keyvalue() ? (@.key like_regex "scopes" flag "i")
            .value.** ? (@.type() == "string")'
        ) AS text (value) WHERE length(text.value #>> '{{}}') <= 200;
    END IF;
EXCEPTION WHEN data_exception OR program_limit_exceeded THEN
    RETURN;
END $$
"""
_POSTGRESQL_TRIGGERS = (
    """
CREATE FUNCTION index_audit_record() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP <> 'INSERT' THEN DELETE FROM audit_name WHERE record_id = OLD.id; END IF;
    IF TG_OP <> 'DELETE' THEN
        INSERT INTO audit_name (kind, name, record_id)
            SELECT each.kind, each.name, NEW.id
            FROM names_in_audit_record(NEW.action, NEW.detail) AS each
            ON CONFLICT DO NOTHING;
    END IF;
    RETURN NULL;
END $$
""",
    """
CREATE TRIGGER index_audit_record
AFTER INSERT OR UPDATE OF action, detail OR DELETE ON audit_record
FOR EACH ROW EXECUTE FUNCTION index_audit_record()
""",
)
_POSTGRESQL_FILL = """
INSERT INTO audit_name (kind, name, record_id)
SELECT each.kind, each.name, audit_record.id
FROM audit_record, LATERAL names_in_audit_record(audit_record.action, audit_record.detail) AS each
WHERE audit_record.id > {above} AND audit_record.id <= {until} ON CONFLICT DO NOTHING
"""
#: Of so many records at a time: a statement may take a minute.
_POSTGRESQL_PART = """
SELECT max(id) FROM (
    SELECT id FROM audit_record WHERE id > {above} ORDER BY id LIMIT 50000
) AS part
"""
_RECORD_ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
#: Records of changes that had not ended when the first were read have one of so many latest ids.
_LATEST = 10_000


def upgrade() -> None:
    """Add the table, its triggers and its rows."""
    op.create_table(
        "audit_name",
        sa.Column("kind", sa.String(length=20), nullable=False),
        sa.Column("name", sa.String(length=200), nullable=False),
        sa.Column("record_id", _RECORD_ID, nullable=False),
        sa.PrimaryKeyConstraint("kind", "name", "record_id", name=op.f("pk_audit_name")),
        sqlite_with_rowid=False,
    )
    if op.get_bind().dialect.name == "postgresql":
        _fill_postgresql()
        return
    op.execute(_SQLITE.format(actions=_WITH_SCOPES, row="audit_record", tables="audit_record, "))
    _create_index()
    fill = _SQLITE.format(actions=_WITH_SCOPES, row="NEW", tables="")
    for statement in _SQLITE_TRIGGERS:
        op.execute(statement.format(fill=fill))


def _fill_postgresql() -> None:
    """Add the rows, and the triggers last: they lock the records against changes."""
    op.execute(_POSTGRESQL.format(actions=_WITH_SCOPES))
    latest = op.get_bind().scalar(sa.text("SELECT max(id) FROM audit_record")) or 0
    _fill_parts(0, latest)
    _create_index()
    for statement in _POSTGRESQL_TRIGGERS:
        op.execute(statement)
    _fill_parts(latest - _LATEST)


def _fill_parts(above: int, latest: int | None = None) -> None:
    """Add the rows of the records above an id, up to the latest or a bit further."""
    while latest is None or above < latest:
        until = op.get_bind().scalar(sa.text(_POSTGRESQL_PART.format(above=above)))
        if until is None:
            return
        op.execute(_POSTGRESQL_FILL.format(above=above, until=until))
        above = until


def _create_index() -> None:
    op.create_index(op.f("ix_audit_name_record_id"), "audit_name", ["record_id"])


def downgrade() -> None:
    """Drop what was added."""
    if op.get_bind().dialect.name == "postgresql":
        op.execute("DROP TRIGGER index_audit_record ON audit_record")
        op.execute("DROP FUNCTION index_audit_record()")
        op.execute("DROP FUNCTION names_in_audit_record(text, json)")
    else:
        for name in ("index_new_audit_record", "index_audit_record", "unindex_audit_record"):
            op.execute(f"DROP TRIGGER {name}")
    op.drop_table("audit_name")
