"""Copies of a PostgreSQL database: used again, each time as the template is."""

import psycopg
import pytest

from support.database_clock import DatabaseClock
from support.database_copies import DatabaseCopies
from support.postgresql_access import database_name

SCHEMA = """
CREATE TABLE parent (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, data bytea NOT NULL);
CREATE TABLE child (parent bigint NOT NULL REFERENCES parent (id), at timestamptz NOT NULL);
INSERT INTO parent (data) VALUES ('\\x00ff'), (convert_to('ü''"', 'UTF8'));
"""
ADD = "INSERT INTO parent (data) VALUES ('\\x01') RETURNING id"


def connect(url):
    return psycopg.connect(url.replace("+psycopg", ""), autocommit=True)


def run(url, *statements):
    """Return the rows of the last of some statements."""
    with connect(url) as connection:
        for statement in statements:
            cursor = connection.execute(statement)
        return cursor.fetchall() if cursor.description else []


@pytest.fixture
def copies(postgresql):
    """Copies of a template of this test."""
    template = postgresql.create_database()
    run(template, SCHEMA)
    postgresql.close_database(template)
    with DatabaseCopies(postgresql, database_name(template)) as copies:
        yield copies


def test_a_copy_used_again_is_as_the_template_is(copies):
    """Rows and sequences are those of the template, those that a test deleted too."""
    first = copies.take()
    rows = run(first, "SELECT * FROM parent ORDER BY id")
    assert run(first, ADD) == [(3,)]
    run(first, "INSERT INTO child VALUES (3, now())", "DELETE FROM parent WHERE id = 1")
    copies.give_back(first)
    second = copies.take()
    assert run(second, "SELECT * FROM parent ORDER BY id") == rows
    assert run(second, "SELECT * FROM child") == []
    assert run(second, ADD) == [(3,)]
    copies.give_back(second)


def test_its_former_user_loses_it(copies):
    """Open connections end, and the former name leads nowhere."""
    first = copies.take()
    with connect(first) as connection:
        oid = connection.execute("SELECT oid FROM pg_database WHERE datname = current_database()")
        copies.give_back(first)
        second = copies.take()
        assert (
            run(second, "SELECT oid FROM pg_database WHERE datname = current_database()")
            == oid.fetchall()
        )
        with pytest.raises(psycopg.OperationalError):
            connection.execute("SELECT 1")
    with pytest.raises(psycopg.OperationalError, match="does not exist"):
        connect(first)
    copies.give_back(second)


@pytest.mark.parametrize(
    "change",
    [
        "CREATE TABLE another (id int)",
        "ALTER TABLE child ADD COLUMN note text",
        "ALTER TABLE child ALTER COLUMN at SET DEFAULT now()",
        "CREATE INDEX child_at ON child (at)",
        "CREATE FUNCTION one() RETURNS int LANGUAGE sql AS 'SELECT 1'",
        "CREATE SCHEMA off",
        "GRANT SELECT ON child TO PUBLIC",
        "ALTER TABLE child DISABLE TRIGGER ALL",
        "DO $$BEGIN EXECUTE format('ALTER DATABASE %I SET jit = off', current_database()); END$$",
        "DROP TABLE child",
    ],
)
def test_a_copy_whose_schema_was_changed_is_not_used_again(copies, change):
    """It is dropped; the next one is a new copy."""
    first = copies.take()
    run(first, change)
    copies.give_back(first)
    with pytest.raises(psycopg.OperationalError, match="does not exist"):
        connect(first)
    second = copies.take()
    assert run(second, "SELECT count(*) FROM child") == [(0,)]
    copies.give_back(second)


def test_a_copy_whose_clock_was_off_is_used_again(copies):
    """Once its own clock is in force, nothing of the other one is left."""
    first = copies.take()
    database = "SELECT oid FROM pg_database WHERE datname = current_database()"
    found = run(first, database)
    with DatabaseClock(first) as clock:
        clock.set_ahead(3_600)
        assert run(first, "SELECT clock_timestamp() > now() + interval '30 minutes'") == [(True,)]
    copies.give_back(first)
    second = copies.take()
    assert run(second, database) == found
    assert run(second, "SELECT clock_timestamp() < now() + interval '30 minutes'") == [(True,)]
    copies.give_back(second)


def test_a_copy_that_takes_no_connections_is_dropped(copies, postgresql):
    """A test may close a database."""
    first = copies.take()
    postgresql.close_database(first)
    copies.give_back(first)
    second = copies.take()
    assert run(second, "SELECT count(*) FROM parent") == [(2,)]
    copies.give_back(second)
