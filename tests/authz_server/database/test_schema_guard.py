"""A schema of another release is read and not changed, whatever a statement begins with."""

import pytest
from sqlalchemy import text

from authz_server.database.schema import SchemaError
from authz_server.database.schema_guard import SchemaGuard
from authz_server.settings import DatabaseSettings
from support.roles import attached

READING = ("SELECT 1", " ( SELECT 1 )", "select count(*) from client")
CHANGING = (
    "DELETE FROM revision",
    "WITH one AS (SELECT 1) DELETE FROM revision",
    "/* why */ DELETE FROM revision",
    "-- why\nDELETE FROM revision",
    "REPLACE INTO revision (id, value) VALUES (1, 7)",
    "TRUNCATE revision",
    "DROP TABLE revision",
    "EXPLAIN ANALYZE DELETE FROM revision",
)


def test_only_reading_is_possible_in_a_schema_of_another_release(database_url):
    """Case P210."""
    with attached(database_url) as database:
        with database.transaction() as session:
            session.execute(text("UPDATE alembic_version SET version_num = '9999'"))
        SchemaGuard(database, DatabaseSettings(url=database_url))
        for change in CHANGING:
            with (
                pytest.raises(SchemaError, match="is at 9999, made by a newer release"),
                database.transaction() as session,
            ):
                session.execute(text(change))
        with database.transaction() as session:
            for query in READING[:1] if database.connector is None else READING:
                session.execute(text(query))
            assert session.scalar(text("SELECT count(*) FROM revision")) == 1
