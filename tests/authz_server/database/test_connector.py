"""Connections to PostgreSQL: the session is the server's own under any role and database."""

import time

import psycopg
import pytest
from sqlalchemy import text
from sqlalchemy.exc import OperationalError

from authz_server.database.connector import PostgresConnector
from authz_server.database.errors import find_unfitness
from authz_server.database.postgresql import DatabaseUnfitError
from authz_server.settings import DatabaseSettings, Secret
from authz_server.settings.sources import SecretSource
from support.pgbouncer import pgbouncer
from support.roles import attached

PINNED = {
    "client_encoding": ("latin1", "UTF8"),
    "DateStyle": ("German, DMY", "ISO, DMY"),
    "TimeZone": ("Asia/Kolkata", "UTC"),
    "synchronous_commit": ("off", "on"),
    "default_transaction_isolation": ("serializable", "read committed"),
    "default_transaction_deferrable": ("on", "off"),
    "standard_conforming_strings": ("off", "on"),
    "statement_timeout": ("9s", "2s"),
    "lock_timeout": ("9s", "2s"),
    "idle_in_transaction_session_timeout": ("9ms", "1min"),
    "idle_session_timeout": ("9s", "0"),
    "transaction_timeout": ("9ms", "0"),
}


@pytest.mark.parametrize("way", ["role", "database"])
def test_the_session_is_the_servers_own_whatever_role_and_database_say(role, way):
    """Case P205. Case Q222."""
    for name, (set_to, _) in PINNED.items():
        if way == "role":
            role.set(name, set_to)
        else:
            role.access.execute(f"ALTER DATABASE {role.name} SET {name} = '{set_to}'")
    with attached(role.url()) as database:
        for ask in (_from_pool, _prepared):
            assert {name: ask(database, name) for name in PINNED} == {
                name: expected for name, (_, expected) in PINNED.items()
            }


def _from_pool(database, name):
    with database.reading() as session:
        return session.execute(text(f"SHOW {name}")).scalar()


def _prepared(database, name):
    # What is said of a number of milliseconds is said of the same value with its unit.
    row = database.prepared_queries.fetch_one("SELECT current_setting(?)", name)
    return row[0]


def test_a_stronger_commit_stays(role):
    """Case Q222."""
    role.set("synchronous_commit", "remote_apply")
    with attached(role.url()) as database:
        assert _from_pool(database, "synchronous_commit") == "remote_apply"


def test_the_urls_own_parameters_win(role):
    """Case P201: search_path, connect_timeout, keepalives_idle, application_name."""
    role.access.execute(f"ALTER ROLE {role.name} SUPERUSER")
    query = (
        "options=-csearch_path%3Dauthz%20-c%20work_mem%3D5MB&connect_timeout=9"
        "&keepalives_idle=77&tcp_user_timeout=1234&application_name=mine"
    )
    with attached(role.url(query)) as database:
        assert _from_pool(database, "search_path") == "authz"
        assert _from_pool(database, "work_mem") == "5MB"
        assert _from_pool(database, "application_name") == "mine"
        parameters = database.connector.parameters()
    assert parameters["connect_timeout"] == "9"
    assert parameters["keepalives_idle"] == "77"
    assert parameters["tcp_user_timeout"] == "1234"
    assert parameters["keepalives_count"] == 3


def test_the_name_of_the_application_is_set_again_behind_a_pooler(
    postgresql, postgresql_url, monkeypatch
):
    """A pooler sets it when it lends a session, before the session begins with nothing."""
    with pgbouncer(postgresql, postgresql_url, "session") as url:
        with attached(url) as database:
            assert _from_pool(database, "application_name") == "authz-server"
        with attached(f"{url}?application_name=it's%2050%25") as database:
            assert _from_pool(database, "application_name") == "it's 50%"
        monkeypatch.setenv("PGAPPNAME", "of the environment")
        with attached(url) as database:
            assert _from_pool(database, "application_name") == "of the environment"


def test_no_start_up_parameter_is_sent_that_a_pooler_refuses(role):
    """Case P208."""
    names = PostgresConnector(DatabaseSettings(url=role.url())).parameters().keys()
    assert not names & {"options", "client_encoding"}


@pytest.mark.parametrize("encoding", ["SQL_ASCII", "LATIN1"])
def test_a_database_in_another_encoding_is_refused_with_a_sentence(make_role, encoding):
    """Case P206."""
    role = make_role(encoding)
    with attached(role.url()) as database, pytest.raises(OperationalError) as refused:
        _from_pool(database, "server_encoding")
    assert encoding in str(refused.value.orig)
    assert "UTF8" in str(refused.value.orig)


def test_a_changed_password_file_is_read_at_the_next_connection(role, tmp_path):
    """Case P207."""
    file = tmp_path / "password"
    file.touch(0o600)
    file.write_text(role.password)
    password = SecretSource(tmp_path, {}, private_files=True).resolve({"file": "password"})
    with attached(role.url(password=False), password=password) as database:
        assert _from_pool(database, "server_encoding") == "UTF8"
        role.change_password("another")
        with pytest.raises(OperationalError, match="password authentication failed"):
            _from_pool(database, "server_encoding")
        file.write_text("another\n")
        assert _from_pool(database, "server_encoding") == "UTF8"
        role.end_sessions()
        file.unlink()
        with pytest.raises(OperationalError, match=r"database\.password.*cannot be read"):
            _from_pool(database, "server_encoding")
        file.touch(0o600)
        file.write_text("another")
        assert _from_pool(database, "server_encoding") == "UTF8"


def test_a_password_that_is_no_files_stays(role):
    settings = DatabaseSettings(url=role.url(password=False), password=Secret(b"x"))
    assert settings.current_password() == "x"


def test_of_several_hosts_the_one_that_answers_is_used(role, postgresql):
    """Case P201."""
    hosts = f"127.0.0.1:1,127.0.0.1:{postgresql.port}"
    url = role.url().replace(f"127.0.0.1:{postgresql.port}", hosts)
    with attached(url) as database:
        assert _from_pool(database, "server_encoding") == "UTF8"


@pytest.mark.parametrize("query", ["sslmode=bogus", "connect_timeout=abc", "service=absent"])
def test_parameters_that_libpq_cannot_use_do_not_pass_by_waiting(role, query):
    """Case R241."""
    connector = PostgresConnector(DatabaseSettings(url=f"{role.url()}?{query}"))
    with pytest.raises(DatabaseUnfitError, match="libpq cannot use"):
        connector.open()


def test_a_socket_where_no_server_listens_may_pass(tmp_path):
    connector = PostgresConnector(DatabaseSettings(url=f"postgresql:///d?host={tmp_path}"))
    with pytest.raises(psycopg.OperationalError, match="No such file") as failure:
        connector.open()
    assert find_unfitness(failure.value) is None


def test_a_certificate_in_a_home_that_cannot_be_entered_is_not_looked_for(monkeypatch):
    """Case P203."""

    def refuse(*_arguments, **_named):
        raise PermissionError

    settings = DatabaseSettings(url="postgresql://h/db")
    assert "sslcertmode" not in PostgresConnector(settings).parameters()
    monkeypatch.setattr("authz_server.database.connector.os.stat", refuse)
    assert PostgresConnector(settings).parameters()["sslcertmode"] == "disable"
    named = DatabaseSettings(url="postgresql://h/db?sslcert=mine.crt")
    assert "sslcertmode" not in PostgresConnector(named).parameters()


def test_a_connection_that_is_refused_is_closed(make_role):
    role = make_role("LATIN1")
    connector = PostgresConnector(DatabaseSettings(url=role.url()))
    with pytest.raises(psycopg.OperationalError):
        connector.open()
    deadline = time.monotonic() + 60
    while role.access.execute("SELECT 1 FROM pg_stat_activity WHERE usename = %s", role.name):
        assert time.monotonic() < deadline
