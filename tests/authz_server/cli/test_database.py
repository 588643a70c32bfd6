import json
import os
import sqlite3
import subprocess
import sys
from datetime import UTC, datetime, timedelta

import pytest
from click.testing import CliRunner
from sqlalchemy import create_engine, inspect, text, update

from authz_server.audit.models import AuditRecord
from authz_server.cli.root import main
from authz_server.database import sqlite
from authz_server.database.schema import PREVIOUS_RELEASE, opened_database, read_schema
from authz_server.key_rings.event_log import load_events, verify_event_chain
from authz_server.settings import DatabaseSettings
from support.pgbouncer import pgbouncer
from support.roles import Role
from support.settings_file import write_settings


@pytest.fixture
def empty(cli, empty_database_url, tmp_path):
    folder = tmp_path / "empty"
    folder.mkdir()
    cli.config, cli.database_url = (
        write_settings(folder, empty_database_url, {}),
        empty_database_url,
    )
    return cli


def test_a_database_without_schema_is_refused_by_the_check_and_by_the_server(empty):
    """Case H98."""
    for command in (("db", "check"), ("serve",)):
        assert "authz-server db upgrade" in empty.refused(*command)


def test_an_upgrade_brings_the_schema_once(empty):
    first, second = empty.json("db", "upgrade"), empty.json("db", "upgrade")
    assert (first["changed"], second["changed"]) == (True, False)
    assert first["after"] == read_schema(DatabaseSettings(url=empty.database_url)).head
    assert empty.json("db", "check")["up_to_date"] is True
    engine = create_engine(empty.database_url)
    assert "client" in inspect(engine).get_table_names()
    engine.dispose()


def test_a_server_without_keys_is_not_started(cli):
    """Case H98."""
    assert "authz-server init" in cli.refused("serve")


def test_a_database_that_is_away_is_named_without_its_password(cli, tmp_path):
    """Case H98. Case K127."""
    folder = tmp_path / "away"
    folder.mkdir()
    url = "postgresql+psycopg://authz:very-secret@127.0.0.1:1/authz"
    cli.config = write_settings(folder, url, {})
    for command in (("db", "check"), ("db", "upgrade"), ("client", "list")):
        sentence = cli.refused(*command)
        assert "database" in sentence
        assert "very-secret" not in sentence


def test_purging_says_how_many_rows_went(cli):
    assert cli.json("db", "purge")["deleted_rows"] == 0
    assert "0 rows" in cli.must("db", "purge")


def age_records(url: str, days: int) -> int:
    """Have every stored audit record be so many days old; return how many there are."""
    engine = create_engine(url)
    with engine.begin() as connection:
        at = datetime.now(UTC) - timedelta(days=days)
        rows = connection.execute(update(AuditRecord).values(at=at)).rowcount
    engine.dispose()
    return rows


def test_audit_records_are_purged_after_the_days_of_the_settings(cli, tmp_path):
    def deleted(keep_days: int) -> int:
        audit = {"audit": {"keep_days": keep_days}}
        cli.config = write_settings(tmp_path, cli.database_url, audit)
        return cli.json("db", "purge")["deleted_rows"]

    cli.must("scope", "add", "own/read")
    aged = age_records(cli.database_url, 40)
    cli.must("scope", "add", "own/write")
    records = cli.audit_records()
    assert deleted(0) == deleted(41) == 0
    assert cli.audit_records() == records
    assert deleted(39) == aged
    assert cli.audit_records() == records[aged:]


def test_purging_audit_records_leaves_the_chain_of_key_events(cli, tmp_path):
    cli.must("keys", "init")
    aged = age_records(cli.database_url, 400)
    cli.must("scope", "add", "own/read")
    cli.config = write_settings(tmp_path, cli.database_url, {"audit": {"keep_days": 30}})
    assert cli.json("db", "purge")["deleted_rows"] == aged
    settings = DatabaseSettings(url=cli.database_url)
    with opened_database(settings) as database, database.reading() as session:
        assert len(load_events(session, "es256")) >= 2
        assert verify_event_chain(session, "es256") is None


@pytest.fixture
def in_file(make_cli, tmp_path):
    """A function of a path that makes a command line on an SQLite file there."""

    def use(path):
        folder = tmp_path / "settings"
        folder.mkdir(exist_ok=True)
        url = f"sqlite:///{path}"
        return make_cli(folder, url)

    return use


COMMANDS = (
    ("serve",),
    ("db", "check"),
    ("db", "purge"),
    ("db", "downgrade", "--yes"),
    ("client", "list"),
    ("resource-server", "list"),
    ("scope", "import", "g2p-connect"),
    ("revoke", "--before", "now", "--yes"),
    ("keys", "list"),
    ("keys", "init"),
    ("keys", "tick"),
    ("keys", "status"),
)


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_a_missing_file_is_an_error_and_no_new_database(in_file, tmp_path, command):
    """Case P209."""
    missing = tmp_path / "mistyped.db"
    refusal = in_file(missing).refused(*command)
    assert str(missing) in refusal
    assert "no database file" in refusal
    assert not missing.exists()


def test_an_upgrade_makes_a_file_for_its_owner_alone(in_file, tmp_path):
    """Case P204. Case P209."""
    file = tmp_path / "new.db"
    cli = in_file(file)
    cli.must("db", "upgrade")
    assert file.stat().st_mode & 0o777 == 0o600
    with sqlite3.connect(file) as connection:
        connection.execute("UPDATE revision SET value = value")
        beside = [tmp_path / f"new.db{ending}" for ending in ("-wal", "-shm")]
        assert [path.stat().st_mode & 0o777 for path in beside] == [0o600, 0o600]
    connection.close()
    assert "Warning" not in cli.run("db", "check").stderr
    file.chmod(0o644)
    assert f"chmod 600 {file}" in cli.run("db", "check").stderr
    assert cli.json("db", "check")["warnings"]


def test_a_file_without_a_schema_is_named(in_file, tmp_path):
    """Case P209."""
    file = tmp_path / "empty.db"
    file.touch(0o600)
    for command in (("db", "check"), ("serve",)):
        refusal = in_file(file).refused(*command)
        assert str(file) in refusal
        assert "authz-server db upgrade" in refusal


def test_a_file_that_is_no_database_is_named(in_file, tmp_path):
    """Case R242."""
    file = tmp_path / "notes.txt"
    file.write_text("not a database, but as long as the header of one, or a little longer\n" * 9)
    refusal = in_file(file).refused("db", "check")
    assert str(file) in refusal
    assert "unexpected" not in refusal


def test_a_file_in_a_folder_that_cannot_be_written_is_named_with_its_owner(
    in_file, tmp_path, monkeypatch
):
    """Case R242."""
    file = tmp_path / "sealed" / "a.db"
    file.parent.mkdir()
    cli = in_file(file)
    cli.must("db", "upgrade")
    monkeypatch.setattr(sqlite, "_is_accessible", lambda path, _mode: path == str(file))
    refusal = cli.refused("client", "list")
    assert str(file.parent) in refusal
    assert "belongs to" in refusal


@pytest.fixture
def newer(cli):
    """A database that a newer release has brought to its own schema."""
    engine = create_engine(cli.database_url)
    with engine.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    engine.dispose()
    return cli


CHANGING = (
    ("db", "check"),
    ("db", "upgrade"),
    ("db", "downgrade"),
    ("db", "purge"),
    ("serve",),
    ("config", "check"),
    ("client", "create", "--name", "Payer", "--scope", "mapper/link"),
    ("resource-server", "create", "--name", "M", "--identifier", "https://mapper.example"),
    ("scope", "import", "g2p-connect"),
    ("revoke", "--before", "now", "--yes"),
    ("token", "revoke", "--jti", "0123456789"),
    ("stop", "define", "links", "--scope", "mapper/link"),
    ("keys", "init"),
    ("keys", "rotate", "es256"),
    ("keys", "revoke", "es256", "--reason", "r"),
    ("keys", "tick"),
    ("registration-token", "create"),
    ("admin", "init"),
    ("operator", "create", "o"),
)
READING = (
    ("client", "list"),
    ("resource-server", "list"),
    ("scope", "list"),
    ("keys", "list"),
    ("keys", "status"),
    ("audit", "search"),
    ("audit", "export"),
    ("client", "secret", "due"),
    ("event-stream", "list"),
    ("registration-token", "list"),
    ("stop", "programmes"),
    ("changes", "list"),
    ("stop", "list"),
    ("operator", "list"),
    ("report", "owners"),
    ("export",),
    ("doctor",),
)


def test_a_schema_of_a_newer_release_is_not_changed(newer):
    """Case P210. Even emergency orders are the newer release's."""
    for command in CHANGING:
        refusal = newer.refused(*command)
        assert "is at 9999, made by a newer release" in refusal, command
        assert "db upgrade" not in refusal
    assert newer.audit_records() == []
    # Not even the file of the records is made.
    assert not (newer.config.parent / "audit.jsonl").exists()


SERVE_ONE = """
from wsgiref.util import setup_testing_defaults
from authz_server import wsgi
request = {"PATH_INFO": "/.well-known/jwks.json"}
setup_testing_defaults(request)
wsgi.application(request, lambda status, headers: print(status))
"""


# The schema of both databases is read likewise.
@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_another_server_refuses_a_schema_of_a_newer_release(newer):
    """Case P210."""
    environment = os.environ | {"AUTHZ_SERVER_CONFIG": str(newer.config)}
    command = [sys.executable, "-c", SERVE_ONE]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.stdout.startswith("503"), done.stderr
    assert "is at 9999, made by a newer release" in done.stderr


def test_reading_a_schema_of_a_newer_release_warns_once(newer):
    """Case P210."""
    for command in READING:
        result = newer.run(*command)
        assert "unexpected" not in result.stderr, command
        assert result.stderr.count("is at 9999, made by a newer release") == 1, command
    assert json.loads(newer.must("client", "list", "--json")) == []


def test_an_older_schema_is_not_changed_and_names_the_upgrade(cli):
    """Case P210."""
    cli.must("db", "downgrade", "--yes")
    for command in (("scope", "import", "g2p-connect"), ("revoke", "--before", "now", "--yes")):
        assert "authz-server db upgrade" in cli.refused(*command)


def test_the_schema_goes_back_to_the_previous_release_and_up_again(cli):
    """Case P210."""
    before = cli.json("db", "check")["current"]
    assert "Aborted" in cli.refused("db", "downgrade", input="n\n")
    done = cli.json("db", "downgrade", "--yes")
    assert done == {"before": before, "after": PREVIOUS_RELEASE, "changed": True}
    assert "authz-server db upgrade" in cli.refused("db", "check")
    assert "not later" in cli.refused("db", "downgrade", "--yes")
    assert cli.json("db", "upgrade")["after"] == before
    assert "no schema 0777" in cli.refused("db", "downgrade", "--yes", "--to", "0777")


@pytest.mark.parametrize("encoding", ["SQL_ASCII", "LATIN1"])
def test_a_database_in_another_encoding_is_refused_by_every_command(
    cli, postgresql, tmp_path, encoding
):
    """Case P206."""
    role = Role(postgresql, encoding)
    try:
        folder = tmp_path / "site"
        init = ["init", str(folder), "--development", "--database-url", role.url()]
        made = CliRunner().invoke(main, init)
        assert (made.exit_code, "UTF8" in made.stderr) == (1, True), made.output
        cli.config = write_settings(tmp_path, role.url(), {})
        for command in (("db", "check"), ("db", "upgrade"), ("serve",), ("client", "list")):
            refusal = cli.refused(*command)
            assert encoding in refusal
            assert "unexpected" not in refusal
    finally:
        role.drop()


@pytest.mark.parametrize("mode", ["transaction", "statement"])
def test_a_pooler_that_keeps_no_session_fails_the_check(cli, postgresql, tmp_path, mode):
    """Case P208."""
    if cli.database_url.startswith("sqlite"):
        assert cli.json("db", "check")["problems"] == []
        return
    folder = tmp_path / "pooled"
    folder.mkdir()
    with pgbouncer(postgresql, cli.database_url, mode) as url:
        cli.config = write_settings(folder, url, {})
        assert "pool_mode = session" in cli.refused("db", "check")


#: What a full disk does, by dialect: reading works, and a change fails.
FULL = {
    "sqlite": """CREATE TRIGGER full BEFORE UPDATE ON alembic_version
        BEGIN SELECT RAISE(ABORT, 'database or disk is full'); END""",
    "postgresql": """DO $do$ BEGIN
        CREATE FUNCTION no_room() RETURNS event_trigger LANGUAGE plpgsql AS
          $$ BEGIN RAISE 'could not extend file' USING ERRCODE = 'disk_full'; END $$;
        CREATE EVENT TRIGGER no_room ON ddl_command_start WHEN TAG IN ('CREATE TABLE AS')
          EXECUTE FUNCTION no_room(); END $do$""",
}


def test_a_database_without_room_for_a_change_fails_the_check(cli):
    """Case J112."""
    cli.must("db", "check")
    engine = create_engine(cli.database_url)
    with engine.begin() as connection:
        connection.exec_driver_sql(FULL[engine.dialect.name])
    engine.dispose()
    refusal = cli.refused("db", "check")
    assert "disk is full" in refusal or "could not extend file" in refusal
    assert "unexpected" not in refusal


def test_a_server_without_fsync_is_warned_of(cli):
    """Case Q222: the server of the tests runs so."""
    warnings = cli.json("db", "check")["warnings"]
    assert any("fsync is off" in each for each in warnings) is not cli.database_url.startswith(
        "sqlite"
    )


def test_a_backup_is_the_database_of_one_moment_and_readable_by_its_owner_alone(
    stocked, make_cli, tmp_path, database_url
):
    """Case J108."""
    copy = tmp_path / "copy.db"
    if not database_url.startswith("sqlite"):
        assert "pg_dump" in stocked.refused("db", "backup", copy)
        assert not copy.exists()
        return
    stocked.must("client", "create", "payer", "--name", "Payer", "--scope", "mapper/link")
    assert "is copied to" in stocked.must("db", "backup", copy)
    assert copy.stat().st_mode & 0o777 == 0o600
    assert str(copy) in stocked.refused("db", "backup", copy)
    stocked.must("client", "delete", "payer", "--yes")
    folder = tmp_path / "restored"
    folder.mkdir()
    url = f"sqlite:///{copy}"
    restored = make_cli(folder, url)
    assert [each["id"] for each in restored.json("client", "list")] == ["payer"]
    missing = tmp_path / "no folder" / "copy.db"
    assert "no folder" in stocked.refused("db", "backup", missing)
