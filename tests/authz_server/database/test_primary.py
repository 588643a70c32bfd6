"""Fail-over: a former primary decides nothing, and a replica is never used."""

import threading
import time
from contextlib import ExitStack

import pytest
from sqlalchemy import text
from sqlalchemy.exc import OperationalError, SQLAlchemyError

from authz_server.database import primary
from authz_server.database.connector import PostgresConnector
from authz_server.database.postgresql import NotPrimaryError
from authz_server.settings import DatabaseSettings
from support.fail_over import FailOverPair
from support.roles import attached

QUESTION = "SELECT value FROM revision WHERE id = ?"


@pytest.fixture
def pair():
    with ExitStack() as stack:
        yield FailOverPair(stack)


@pytest.fixture(scope="module")
def steady_pair():
    """A pair whose first server stays the primary, for the tests that leave it so."""
    with ExitStack() as stack:
        yield FailOverPair(stack)


def ask_pool(database):
    with database.reading() as session:
        return session.execute(text("SELECT value FROM revision")).scalar()


def ask_prepared(database):
    return database.prepared_queries.fetch_one(QUESTION, "1")[0]


def change(database):
    with database.transaction() as session:
        session.execute(text("UPDATE revision SET value = value + 1"))


def test_a_connection_that_has_become_read_only_is_dropped(postgresql_url, monkeypatch):
    """Case Q221: default_transaction_read_only, set and loaded by an operator."""
    monkeypatch.setattr(primary, "CHECK_SECONDS", 0.0)
    with attached(postgresql_url) as database:
        with database.reading() as session:
            session.execute(text("SET default_transaction_read_only = on"))
        change(database)
        assert ask_pool(database) == 1


def test_connections_to_a_former_primary_that_goes_on_are_dropped(pair):
    """Case Q221: it has not noticed; the timeline tells."""
    with attached(pair.url) as database:
        assert (ask_pool(database), ask_prepared(database)) == (0, 0)
        pair.fail_over()
        pair.write(7)
        assert ask_prepared(database) == 0  # what would go on for ever
        deadline = time.monotonic() + primary.LOOK_SECONDS + 2
        while ask_pool(database) != 7:
            assert time.monotonic() < deadline
            time.sleep(0.25)  # as the change feed asks
        assert ask_prepared(database) == 7
        change(database)
        assert ask_prepared(database) == 8


def test_a_new_connection_to_a_former_primary_is_refused(pair):
    """Case Q221."""
    connector = PostgresConnector(DatabaseSettings(url=pair.url))
    connector.open().close()
    pair.fail_over()
    connector.open().close()
    pair.proxy.target_port = pair.first.port
    with pytest.raises(NotPrimaryError, match="no longer the primary"):
        connector.open()


def test_a_replica_is_refused_by_name_and_found_again_when_promoted(pair):
    """Case Q221."""
    for query in ("", "?target_session_attrs=any"):
        with attached(pair.second.url(pair.name) + query) as database:
            with pytest.raises(OperationalError, match="takes no writes"):
                ask_pool(database)
            with pytest.raises(SQLAlchemyError):
                ask_prepared(database)
    with attached(pair.second.url(pair.name)) as database:
        with pytest.raises(OperationalError):
            ask_pool(database)
        pair.second.promote()
        change(database)
        assert ask_prepared(database) == 1


def value_in(pair):
    """Return what the primary of the pair has."""
    with attached(pair.first.url(pair.name)) as database:
        return ask_pool(database)


def test_of_two_hosts_the_primary_is_used(steady_pair):
    """Case P201. Case Q221."""
    pair = steady_pair
    before = value_in(pair)
    hosts = f"127.0.0.1:{pair.second.port},127.0.0.1:{pair.first.port}"
    url = pair.first.url(pair.name).replace(f"127.0.0.1:{pair.first.port}", hosts)
    with attached(url) as database:
        change(database)
        assert ask_prepared(database) == before + 1


def test_a_pooled_connection_whose_server_became_a_replica_is_not_used(steady_pair, monkeypatch):
    """Case Q221: a pooler in between keeps the connection and leads it to the replica."""
    before = value_in(steady_pair)
    monkeypatch.setattr(primary, "CHECK_SECONDS", 0.0)
    with attached(steady_pair.url) as database:
        assert (ask_pool(database), ask_prepared(database)) == (before, before)
        with database.engine.connect() as used:
            monkeypatch.setattr(primary, "_takes_no_writes", _replica_once())
            assert ask_pool(database) == before
            # The connections in use and those kept for questions have ended with it.
            with pytest.raises(SQLAlchemyError):
                used.execute(text("SELECT 1"))
        assert ask_prepared(database) == before


def _replica_once():
    answers = iter([True])
    return lambda _connection: next(answers, False)


def test_a_server_that_takes_no_writes_loses_every_connection(steady_pair, monkeypatch):
    """Case Q221: SQLSTATE 25006 alone, no check in between."""
    pair = steady_pair
    monkeypatch.setattr(primary, "CHECK_SECONDS", 3_600.0)
    monkeypatch.setattr(primary, "LOOK_SECONDS", 3_600.0)
    before = value_in(pair)
    with attached(pair.first.url(pair.name)) as database:
        assert (ask_pool(database), ask_prepared(database)) == (before, before)
        pair.first.execute("ALTER SYSTEM SET default_transaction_read_only = on")
        pair.first.execute("SELECT pg_reload_conf()")
        deadline = time.monotonic() + 60
        while _can_write(database):
            assert time.monotonic() < deadline
        # Nothing of before is left: a new connection finds that it cannot write.
        with pytest.raises(SQLAlchemyError):
            ask_prepared(database)
        pair.first.execute("ALTER SYSTEM RESET ALL")
        pair.first.execute("SELECT pg_reload_conf()")
        while not _can_write(database):
            assert time.monotonic() < deadline
        assert ask_prepared(database) > before


def _can_write(database) -> bool:
    try:
        change(database)
    except SQLAlchemyError:
        return False
    return True


def test_a_look_that_takes_long_holds_up_no_question(postgresql_url, monkeypatch):
    """Case Q221: where new connections are lost on the way and the present ones work."""
    held, release = threading.Event(), threading.Event()

    def look(_connector) -> None:
        held.set()
        release.wait(30)

    monkeypatch.setattr(primary, "LOOK_SECONDS", 0.0)
    monkeypatch.setattr(PostgresConnector, "look", look)
    with attached(postgresql_url) as database:
        began = time.monotonic()
        for _ in range(3):
            assert ask_pool(database) == 0
        assert held.wait(10)
        assert time.monotonic() - began < 5
        release.set()


def test_all_connections_are_dropped_by_one_call(postgresql_url):
    """Case Q221."""
    with attached(postgresql_url) as database:
        assert (ask_pool(database), ask_prepared(database)) == (0, 0)
        with database.engine.connect() as used:
            assert database.connector.opened.drop_all() == 2
            with pytest.raises(SQLAlchemyError):
                used.execute(text("SELECT 1"))
        assert (ask_pool(database), ask_prepared(database)) == (0, 0)
