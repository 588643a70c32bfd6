"""The clock of a PostgreSQL database under a test's control: a machine's clock beside it is off."""

from collections.abc import Iterator
from contextlib import suppress
from typing import Self

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
    """The clock that new connections to a database read; `set_ahead` sets it, negative: behind.

    A context manager: in the end the database has its own clock again, and can be used again.
    """

    def __init__(self, url: str) -> None:
        self._url = url.replace("+psycopg", "")
        name = psycopg.sql.Identifier(database_name(url))
        self._execute(_FUNCTION)
        # Looked up before the catalogue, which is otherwise always first.
        path = "ALTER DATABASE {} SET search_path = off, pg_catalog, public"
        self._execute(psycopg.sql.SQL(path).format(name))
        self._reset = psycopg.sql.SQL("ALTER DATABASE {} RESET search_path").format(name)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._execute(self._reset)
        # A connection in a transaction holds the schema; the copy is dropped then.
        with suppress(psycopg.errors.LockNotAvailable):
            self._execute("SET lock_timeout = 1000; DROP SCHEMA off CASCADE")

    def set_ahead(self, seconds: float) -> None:
        """Set the database's clock ahead of the real time."""
        self._execute("UPDATE off.clock SET ahead = make_interval(secs => %s)", seconds)

    def _execute(self, statement, *parameters: object) -> None:
        with psycopg.connect(self._url, autocommit=True) as connection:
            connection.execute(statement, parameters or None)


@pytest.fixture
def database_clock(postgresql_url: str) -> Iterator[DatabaseClock]:
    """The clock of this test's PostgreSQL database."""
    with DatabaseClock(postgresql_url) as clock:
        yield clock
