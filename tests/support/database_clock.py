"""The clock of a PostgreSQL database under a test's control: a machine's clock beside it is off."""

import psycopg
import pytest

from support.postgresql_access import database_name

_FUNCTION = """
CREATE SCHEMA off;
CREATE TABLE off.clock (ahead interval NOT NULL);
INSERT INTO off.clock VALUES ('0');
CREATE FUNCTION off.clock_timestamp() RETURNS timestamptz LANGUAGE sql VOLATILE AS
    $$ SELECT pg_catalog.clock_timestamp() + ahead FROM off.clock $$;
"""


class DatabaseClock:
    """The clock that new connections to a database read; `set_ahead` sets it, negative: behind."""

    def __init__(self, url: str) -> None:
        self._url = url.replace("+psycopg", "")
        name = psycopg.sql.Identifier(database_name(url))
        self._execute(_FUNCTION)
        # Looked up before the catalogue, which is otherwise always first.
        path = "ALTER DATABASE {} SET search_path = off, pg_catalog, public"
        self._execute(psycopg.sql.SQL(path).format(name))

    def set_ahead(self, seconds: float) -> None:
        """Set the database's clock ahead of the real time."""
        self._execute("UPDATE off.clock SET ahead = make_interval(secs => %s)", seconds)

    def _execute(self, statement, *parameters: object) -> None:
        with psycopg.connect(self._url, autocommit=True) as connection:
            connection.execute(statement, parameters or None)


@pytest.fixture
def database_clock(postgresql_url: str) -> DatabaseClock:
    """The clock of this test's PostgreSQL database."""
    return DatabaseClock(postgresql_url)
