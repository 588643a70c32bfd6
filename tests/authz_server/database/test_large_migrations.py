"""Migrations of many rows: no statement takes longer than a session allows."""

import re

import pytest
from sqlalchemy import Engine, event, text

from authz_server.database.schema import downgrade_database, opened_database, upgrade_database
from authz_server.settings import DatabaseSettings

RECORDS = """
INSERT INTO audit_record (id, at, actor, action, subject, detail)
SELECT n * 3, now(), 'a', 'key.activated', 'k', json_build_object('ring', 'ring-' || n % 10)
FROM generate_series(1, 100001) AS n
"""


@pytest.mark.parametrize("empty_database_url", ["postgresql"], indirect=True)
def test_the_names_in_many_records_are_added_in_parts(empty_database_url):
    """Millions at once would take longer than a minute, and end each upgrade."""
    settings = DatabaseSettings(url=empty_database_url)
    upgrade_database(settings)
    downgrade_database(settings, "0026")
    with opened_database(settings) as database, database.transaction() as session:
        session.execute(text(RECORDS))
    seen = []

    def note(_connection, cursor, statement, *_):
        if re.match(r"\s*INSERT INTO audit_name", statement):
            seen.append(cursor.rowcount)

    event.listen(Engine, "after_cursor_execute", note)
    try:
        upgrade_database(settings)
    finally:
        event.remove(Engine, "after_cursor_execute", note)
    # The latest ones are read a second time.
    assert seen == [50_000, 50_000, 1, 0]
    with opened_database(settings) as database, database.reading() as session:
        found = session.execute(text("SELECT name, count(*) FROM audit_name GROUP BY name")).all()
    assert len(found) == 10
    assert sum(number for _, number in found) == 100_001
