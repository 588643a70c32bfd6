"""Readiness on databases that answer and must not be used."""

import re
import resource
import secrets
import sqlite3
from contextlib import ExitStack, closing, contextmanager

import psycopg
import pytest
from flask import Flask
from sqlalchemy import NullPool, StaticPool, create_engine
from sqlalchemy.exc import OperationalError

from authz_server.app import EXTENSION, create_health_application
from authz_server.database.checks import check_database
from authz_server.database.postgresql import DatabaseUnfitError
from authz_server.database.schema import upgrade_database
from authz_server.database.sqlite import WriteCheck, make_durable
from authz_server.settings import DatabaseSettings, load_settings
from support.parties import Parties
from support.pgbouncer import pgbouncer
from support.postgresql import PostgresServer
from support.postgresql_access import database_name
from support.settings_file import write_settings
from support.standby import Standby

URL_USER = re.compile("//[^@]*@")


def readiness(application: Flask) -> tuple[int, list[str]]:
    answer = application.test_client().get("/health/ready")
    return answer.status_code, answer.get_json()["failed"]


@contextmanager
def health(folder, url):
    """Yield the application of the health listener on a database with keys."""
    application = create_health_application(load_settings(write_settings(folder, url, {})))
    yield application
    application.extensions[EXTENSION].database.close()


@pytest.fixture
def keys(tmp_path, secrets_watch):
    """A function that makes the first keys in the database of that URL."""

    def make(url: str) -> None:
        Parties(load_settings(write_settings(tmp_path, url, {})), secrets_watch).create_first_keys()

    return make


def test_a_database_as_it_should_be_is_ready(database_url, tmp_path, keys):
    keys(database_url)
    with health(tmp_path, database_url) as application:
        assert readiness(application) == (200, [])


def test_a_node_pointed_at_a_replica_is_not_ready(tmp_path, keys):
    """Case Q221."""
    with ExitStack() as stack:
        primary = stack.enter_context(PostgresServer())
        name = database_name(primary.create_database())
        upgrade_database(DatabaseSettings(url=primary.url(name)))
        keys(primary.url(name))
        replica = stack.enter_context(Standby(primary))
        for query in ("", "?target_session_attrs=any"):
            with health(tmp_path, replica.url(name) + query) as application:
                status, failed = readiness(application)
                assert status == 503
                assert "database" in failed
        replica.promote()
        with health(tmp_path, replica.url(name)) as application:
            assert readiness(application) == (200, [])


@pytest.mark.parametrize("mode", ["transaction", "statement"])
def test_a_pooler_that_keeps_no_session_is_not_ready(
    postgresql, postgresql_url, tmp_path, keys, mode
):
    """Case P208."""
    keys(postgresql_url)
    with (
        pgbouncer(postgresql, postgresql_url, mode) as url,
        health(tmp_path, url) as application,
    ):
        status, failed = readiness(application)
        assert status == 503
        assert "database_session" in failed


def test_a_role_that_may_not_write_is_not_ready(postgresql_url, tmp_path, keys):
    """Case P208: the primary takes writes, though not from this role."""
    keys(postgresql_url)
    role = f"reader_{secrets.token_hex(4)}"
    with psycopg.connect(postgresql_url.replace("+psycopg", ""), autocommit=True) as owner:
        owner.execute(f"CREATE ROLE {role} LOGIN PASSWORD 'reader'")
        owner.execute(f"GRANT SELECT ON ALL TABLES IN SCHEMA public TO {role}")
        url = URL_USER.sub(f"//{role}:reader@", postgresql_url)
        with health(tmp_path, url) as application:
            answer = application.test_client().get("/health/ready")
            assert answer.status_code == 503
            reason = answer.get_json()["reasons"]["database_session"]
            assert f"{role} may not write audit_record, change, " in reason
        with pytest.raises(DatabaseUnfitError, match="may not write"):
            check_database(DatabaseSettings(url=url))
        owner.execute(f"GRANT INSERT ON ALL TABLES IN SCHEMA public TO {role}")
        # A trigger writes it, as the role.
        owner.execute(f"REVOKE INSERT ON audit_name FROM {role}")
        with pytest.raises(DatabaseUnfitError, match="may not write audit_name"):
            check_database(DatabaseSettings(url=url))
        owner.execute(f"GRANT INSERT ON audit_name TO {role}")
        with health(tmp_path, url) as application:
            assert readiness(application) == (200, [])
            owner.execute(f"ALTER ROLE {role} SET default_transaction_read_only = on")
        with health(tmp_path, url) as application:
            answer = application.test_client().get("/health/ready")
            assert answer.status_code == 503
            assert "takes no writes" in answer.get_json()["reasons"]["database"]
        owner.execute(f"DROP OWNED BY {role}")
        owner.execute(f"DROP ROLE {role}")


def test_a_database_older_than_the_audit_file_is_not_ready(database_url, tmp_path, keys):
    """Case Q224."""
    keys(database_url)
    file = tmp_path / "audit.jsonl"
    line = file.read_text().splitlines()[-1]
    assert '"action":"key.' in line
    with health(tmp_path, database_url) as application:
        assert readiness(application) == (200, [])
    # A change that is known to the file alone.
    with file.open("a") as audit:
        audit.write(line.replace('"action":"key.', '"action":"key.lost_') + "\n")
    with health(tmp_path, database_url) as application:
        assert readiness(application) == (503, ["restored_database"])


def test_a_file_that_takes_no_writes_is_noticed(sqlite_url):
    """Case J112. A change of another process in progress is none."""
    path = sqlite_url.removeprefix("sqlite:///")
    for mode in ("ro", "rw"):

        def connect(mode: str = mode) -> sqlite3.Connection:
            return sqlite3.connect(f"file:{path}?mode={mode}", uri=True)

        engine = create_engine("sqlite://", creator=connect, poolclass=NullPool)
        make_durable(engine, 10)
        if mode == "ro":
            with pytest.raises(OperationalError, match="readonly"):
                WriteCheck(engine)()
        else:
            with closing(connect()) as other:
                other.execute("BEGIN IMMEDIATE")
                WriteCheck(engine)()
            WriteCheck(engine)()


def test_a_disk_without_room_is_noticed(sqlite_url):
    """Case J112: a file that may not grow fails as one on a full disk, at a write alone."""
    engine = create_engine(sqlite_url, poolclass=StaticPool)
    make_durable(engine, 10)
    seconds = iter(range(0, 10, 2))
    check = WriteCheck(engine, lambda: next(seconds))
    check()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1, hard))
    try:
        for _ in range(2):
            with pytest.raises(OperationalError):
                check()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    check()
    engine.dispose()


def test_a_database_that_is_away_is_named_once(tmp_path):
    url = "postgresql://nobody@127.0.0.1:1/none"
    with health(tmp_path, url) as application:
        assert readiness(application) == (503, ["database", "keys"])
