"""The tables of this release are compared with those of a database, in each process alike."""

import subprocess
import sys
import threading
import time
from contextlib import contextmanager

import psycopg
import pytest
from sqlalchemy import create_engine, inspect, text
from sqlalchemy.exc import OperationalError

from authz_server.database.schema import SchemaError
from authz_server.database.tables import load_tables, require_tables
from authz_server.settings import DatabaseSettings
from support.live_server import call_cli
from support.settings_file import write_settings

NAMES = """
from authz_server.database.tables import load_tables
print(*load_tables().tables)
"""


def tables_of(url: str) -> set[str]:
    engine = create_engine(url)
    names = set(inspect(engine).get_table_names())
    engine.dispose()
    return names - {"alembic_version"}


def rename(url: str, table: str, name: str) -> None:
    engine = create_engine(url)
    with engine.begin() as connection:
        connection.execute(text(f"ALTER TABLE {table} RENAME TO {name}"))
    engine.dispose()


def test_a_process_that_imported_nothing_else_knows_every_table(database_url):
    """A process of its own: this one has imported the models of other tests."""
    done = subprocess.run(
        [sys.executable, "-c", NAMES], capture_output=True, text=True, check=True, timeout=60
    )
    assert set(done.stdout.split()) == tables_of(database_url)


@pytest.mark.parametrize("table", ["client", "client_secret", "signing_key"])
def test_the_command_names_a_table_that_is_missing(database_url, tmp_path, table):
    config = write_settings(tmp_path, database_url, {})
    rename(database_url, table, "elsewhere")
    done = call_cli("db", "check", config=config)
    assert done.returncode != 0
    assert f"The table {table} of the database" in done.stderr
    assert "Traceback" not in done.stderr


@contextmanager
def locked(url: str, *tables: str):
    """Lock tables as a migration does, one after the other."""
    with psycopg.connect(url.replace("+psycopg", "")) as connection:
        for table in tables:
            connection.execute(f"LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE")  # a fixed name
        yield connection
        connection.rollback()


def test_a_check_does_not_wait_long_for_tables_that_are_locked(postgresql_url):
    settings = DatabaseSettings(url=postgresql_url)
    tables = list(load_tables().tables)
    with locked(postgresql_url, *tables):
        began = time.monotonic()
        require_tables(settings)
        # One statement time-out for each would be 86 seconds.
        assert time.monotonic() - began < 30


def test_a_table_that_is_missing_is_found_behind_a_locked_one(postgresql_url):
    settings = DatabaseSettings(url=postgresql_url)
    first, *_, last = load_tables().tables
    rename(postgresql_url, last, "elsewhere")
    with locked(postgresql_url, first), pytest.raises(SchemaError, match=f"The table {last} "):
        require_tables(settings)


def test_a_check_and_a_migration_do_not_wait_for_each_other(postgresql_url):
    """The migration locks the last table, and then the first one, which was looked at."""
    first, *_, last = load_tables().tables
    settings = DatabaseSettings(url=postgresql_url, statement_timeout_milliseconds=60_000)
    failures = []

    def check() -> None:
        try:
            require_tables(settings)
        except Exception as error:  # noqa: BLE001 - the assertion shows it
            failures.append(error)

    with locked(postgresql_url, last) as migration:
        checking = threading.Thread(target=check)
        checking.start()
        while checking.is_alive():
            migration.execute(f"LOCK TABLE {first} IN ACCESS EXCLUSIVE MODE")
            time.sleep(0.01)
        checking.join()
    assert failures == []


def test_a_locked_file_lacks_nothing(sqlite_url):
    """A connection in exclusive mode keeps readers out as well."""
    engine = create_engine(sqlite_url)
    with engine.connect() as holder:
        holder.exec_driver_sql("PRAGMA locking_mode = EXCLUSIVE")
        holder.exec_driver_sql("BEGIN IMMEDIATE")
        settings = DatabaseSettings(url=sqlite_url, statement_timeout_milliseconds=100)
        with pytest.raises(OperationalError, match="locked"):
            require_tables(settings)
    engine.dispose()
