"""A process of another WSGI server with a database that is away, or of another release."""

import os
import sqlite3
import subprocess
import sys
import time
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path

import psycopg
import pytest
from psycopg import sql

from authz_server.database.schema import HEAD, require_schema
from authz_server.serving.prefork import PreforkApplication
from authz_server.serving.schema_gate import AGAIN_SECONDS, SchemaGate
from authz_server.settings import DatabaseSettings
from support.postgresql_access import database_name
from support.settings_file import write_settings

ASK_TWICE = """
from werkzeug.test import Client
from authz_server.wsgi import application
print(*(Client(application).get("/.well-known/jwks.json").status_code for _ in range(2)))
"""


@contextmanager
def away(url: str, postgresql):
    """Keep every connection from a database."""
    if url.startswith("sqlite"):
        path = Path(url.removeprefix("sqlite:///"))
        moved = path.rename(path.with_suffix(".away"))
        yield
        moved.rename(path)
    else:
        name = sql.Identifier(database_name(url))
        postgresql.close_database(url)
        yield
        postgresql.execute(sql.SQL("ALTER DATABASE {} ALLOW_CONNECTIONS true").format(name))


def set_revision(url: str, revision: str) -> None:
    statement = f"UPDATE alembic_version SET version_num = '{revision}'"  # noqa: S608 - a number
    if url.startswith("sqlite"):
        with closing(sqlite3.connect(url.removeprefix("sqlite:///"))) as file, file:
            file.execute(statement)
    else:
        with psycopg.connect(url.replace("+psycopg", "")) as connection:
            connection.execute(statement)


def test_a_foreign_schema_is_noticed_after_the_database_was_away(database_url, postgresql, caplog):
    now, done = [0.0], []
    settings = DatabaseSettings(url=database_url)
    gate = SchemaGate(partial(require_schema, settings, is_patient=False), lambda: now[0])
    application = PreforkApplication(
        lambda: lambda _, start: start("200 OK", []) or [],
        begin=lambda _: done.append("begin"),
        hold=lambda _: done.append("hold"),
        may_serve=gate.may_serve,
        idle_seconds=600,
    )

    def status() -> str:
        found = []
        application({}, lambda status, _: found.append(status[:3]))
        return found[0]

    with away(database_url, postgresql):
        # Each request finds for itself that the database is away.
        assert status() == "200"
    set_revision(database_url, "foreign")
    # Not each request reads the schema.
    assert status() == "200"
    now[0] += AGAIN_SECONDS
    assert [status() for _ in range(3)] == ["503"] * 3
    # A database that is away again does not open the gate.
    now[0] += AGAIN_SECONDS
    with away(database_url, postgresql):
        assert status() == "503"
    set_revision(database_url, HEAD)
    assert status() == "503"
    now[0] += AGAIN_SECONDS
    assert status() == "200"
    assert done == ["begin", "hold"]
    (record,) = [each for each in caplog.records if each.levelname == "ERROR"]
    assert "is at foreign" in record.getMessage()
    assert record.exc_info is None


# A lock on an SQLite file in WAL mode keeps no reader out.
@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
def test_a_request_waits_for_the_schema_as_long_as_for_another_statement(database_url):
    settings = DatabaseSettings(url=database_url, statement_timeout_milliseconds=200)
    gate = SchemaGate(partial(require_schema, settings, is_patient=False))
    with psycopg.connect(database_url.replace("+psycopg", "")) as holder:
        holder.execute("LOCK TABLE alembic_version IN ACCESS EXCLUSIVE MODE")
        began = time.monotonic()
        assert gate.may_serve()
        assert time.monotonic() - began < 30


def require_refused_once(tmp_path, sqlite_url, reason):
    """Require two refused requests to an application, and one line in the log."""
    done = subprocess.run(
        [sys.executable, "-c", ASK_TWICE],
        env=os.environ | {"AUTHZ_SERVER_CONFIG": str(write_settings(tmp_path, sqlite_url, {}))},
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert done.stdout.split() == ["503", "503"]
    assert done.stderr.count(reason) == 1
    assert "Traceback" not in done.stderr


def test_the_application_of_other_servers_refuses_a_foreign_schema(sqlite_url, tmp_path):
    set_revision(sqlite_url, "foreign")
    require_refused_once(tmp_path, sqlite_url, "is at foreign")


def test_the_application_of_other_servers_refuses_a_schema_that_lacks_a_table(sqlite_url, tmp_path):
    """The revision alone is right, as in a restored copy."""
    with closing(sqlite3.connect(sqlite_url.removeprefix("sqlite:///"))) as file, file:
        file.execute("ALTER TABLE stop RENAME TO elsewhere")
    require_refused_once(tmp_path, sqlite_url, "The table stop of the database file")
