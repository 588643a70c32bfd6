"""The database: its migrations, its durability, and how long anybody waits for it."""

import multiprocessing
import time
from contextlib import contextmanager
from datetime import UTC, datetime

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from psycopg.types import TypeInfo
from sqlalchemy import select, text
from sqlalchemy.exc import OperationalError, SQLAlchemyError

from authz_server.clients.models import Client
from authz_server.database.change_feed import Revision
from authz_server.database.orm import open_database
from authz_server.database.schema import read_schema, upgrade_database
from authz_server.database.tables import load_tables
from authz_server.settings import DatabaseSettings
from support.postgresql import PostgresServer


@contextmanager
def attached(url: str, **settings):
    database = open_database(DatabaseSettings(url=url, **settings))
    try:
        yield database
    finally:
        database.close()


def test_a_database_without_schema_is_told_from_one_that_is_current(empty_database_url):
    settings = DatabaseSettings(url=empty_database_url)
    before = read_schema(settings, missing_file=True)
    upgrade_database(settings)
    after = read_schema(settings)
    assert (before.current, before.is_current) == (None, False)
    assert (after.current, after.is_current) == (after.head, True)


def test_of_several_migrators_at_once_one_does_the_work_and_none_fails(empty_database_url):
    """Case J118 (two migrators at once)."""
    context = multiprocessing.get_context("spawn")
    settings = DatabaseSettings(url=empty_database_url)
    migrators = [context.Process(target=upgrade_database, args=(settings,)) for _ in range(3)]
    for migrator in migrators:
        migrator.start()
    for migrator in migrators:
        migrator.join(60)
    assert [migrator.exitcode for migrator in migrators] == [0, 0, 0]
    assert read_schema(settings).is_current
    with attached(empty_database_url) as database, database.reading() as session:
        assert session.scalars(select(Revision.value)).all() == [0]


# Those of SQLite are compared in their own test.
@pytest.mark.filterwarnings(
    "ignore:Skipped unsupported reflection of expression-based index",
    "ignore:autogenerate skipping metadata-specified expression-based index",
)
def test_the_migrations_make_exactly_the_tables_of_the_models(settings):
    with attached(settings.database.url) as database, database.engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, load_tables()) == []


def test_sqlite_writes_ahead_and_syncs_each_commit(sqlite_url):
    with attached(sqlite_url) as database, database.reading() as session:
        modes = {
            name: session.execute(text(f"PRAGMA {name}")).scalar()
            for name in ("journal_mode", "synchronous", "foreign_keys")
        }
    assert modes == {"journal_mode": "wal", "synchronous": 2, "foreign_keys": 1}


def test_a_failed_block_changes_nothing(database_url):
    with attached(database_url) as database:
        with pytest.raises(LookupError):
            _change_and_fail(database)
        with database.reading() as session:
            assert session.scalar(select(Revision.value)) == 0


def _change_and_fail(database):
    with database.transaction() as session:
        session.execute(text("UPDATE revision SET value = 7"))
        raise LookupError


def test_a_time_without_a_zone_is_refused(database_url):
    with attached(database_url) as database:
        with pytest.raises(SQLAlchemyError), database.reading() as session:
            session.scalars(select(Client).where(Client.created_at < datetime(2026, 1, 1))).all()  # noqa: DTZ001 - the point
        with database.reading() as session:
            aware = datetime(2026, 1, 1, tzinfo=UTC)
            assert session.scalars(select(Client).where(Client.created_at < aware)).all() == []


def test_nobody_waits_long_for_a_server_that_has_gone_silent():
    """Case J114: statements and look-ups on a hanging PostgreSQL end in bounded time."""
    with PostgresServer() as server:
        url = server.create_database()
        upgrade_database(DatabaseSettings(url=url))
        with attached(url, statement_timeout_milliseconds=300) as database:
            database.prepared_queries.fetch_one("SELECT value FROM revision WHERE id = ?", "1")
            with database.reading() as session:
                session.execute(text("SELECT 1"))
            with server.paused():
                for ask in (_look_up, _read):
                    started = time.monotonic()
                    with pytest.raises(SQLAlchemyError):
                        ask(database)
                    assert time.monotonic() - started < 10
            # What failed left nothing behind that would fail again.
            assert _look_up(database) == (0,)
            assert _read(database) == 1


def _look_up(database):
    return database.prepared_queries.fetch_one("SELECT value FROM revision WHERE id = ?", "1")


def _read(database):
    with database.reading() as session:
        return session.execute(text("SELECT 1")).scalar()


def test_a_statement_that_is_too_slow_is_ended_by_the_server(postgresql_url):
    with (
        attached(postgresql_url, statement_timeout_milliseconds=200) as database,
        pytest.raises(OperationalError),
    ):
        database.prepared_queries.fetch_one("SELECT pg_sleep(?::float)", "5")


def test_the_first_connection_looks_up_no_type(postgresql_url, monkeypatch):
    """Each command has a first connection: a query, and a savepoint around it."""
    looked_up = []
    monkeypatch.setattr(TypeInfo, "fetch", lambda _, name: looked_up.append(name))
    with attached(postgresql_url) as database:
        assert _read(database) == 1
    assert looked_up == []
