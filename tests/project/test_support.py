"""The test suite's own foundations: the real servers and the watch over secrets."""

import psycopg
import pytest

from support.postgresql import PostgresServer
from support.postgresql_access import database_name


def plain(url: str) -> str:
    return url.replace("postgresql+psycopg", "postgresql")


def test_shared_postgresql_gives_databases_of_ones_own(postgresql):
    first, second = postgresql.create_database(), postgresql.create_database()
    with psycopg.connect(plain(first)) as connection:
        connection.execute("CREATE TABLE only_here (id int)")
    with psycopg.connect(plain(second)) as connection:
        assert connection.execute("SELECT to_regclass('only_here')").fetchone() == (None,)
    postgresql.drop_database(first)
    postgresql.drop_database(second)
    with pytest.raises(psycopg.OperationalError, match="does not exist"):
        psycopg.connect(plain(first))


def test_copied_database_has_what_the_template_had(postgresql):
    template = postgresql.create_database()
    with psycopg.connect(plain(template)) as connection:
        connection.execute("CREATE TABLE copied (id int)")
    postgresql.close_database(template)
    copy = postgresql.create_database(database_name(template))
    with psycopg.connect(plain(copy)) as connection:
        assert connection.execute("SELECT to_regclass('copied')").fetchone() == ("copied",)
    postgresql.drop_database(copy)


def test_own_server_survives_a_crash_and_a_pause():
    with PostgresServer(durable=True) as server:
        with psycopg.connect(plain(server.url())) as connection:
            connection.execute("CREATE TABLE kept AS SELECT 7 AS number")
        server.restart(immediate=True)
        assert server.execute("SELECT number FROM kept") == [(7,)]
        with server.paused(), pytest.raises(psycopg.errors.ConnectionTimeout):
            psycopg.connect(plain(server.url()), connect_timeout=2)
        assert server.execute("SHOW fsync") == [("on",)]
        directory = server.directory
    assert not directory.exists()


def test_cut_connections_are_noticed_by_their_clients():
    with PostgresServer() as server, psycopg.connect(plain(server.url())) as connection:
        server.cut_connections()
        with pytest.raises(psycopg.OperationalError):
            connection.execute("SELECT 1")
