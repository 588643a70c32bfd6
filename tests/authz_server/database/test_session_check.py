"""A session that does not hold is noticed: poolers by transaction, commits that lag."""

import pytest
from sqlalchemy import text

from authz_server.database.connector import PostgresConnector
from authz_server.database.postgresql import DatabaseUnfitError
from authz_server.database.session_check import SessionReadiness, require_session
from authz_server.settings import DatabaseSettings
from support.pgbouncer import pgbouncer
from support.roles import attached


def connector(url: str) -> PostgresConnector:
    return PostgresConnector(DatabaseSettings(url=url))


def test_a_database_without_a_pooler_passes(postgresql_url):
    """Case P208."""
    require_session(connector(postgresql_url).open)


@pytest.mark.parametrize("settings", [{}, {"server_reset_query": ""}], ids=["reset", "kept"])
def test_a_pooler_by_session_passes_and_serves(postgresql, postgresql_url, settings):
    """Case P208. Case P205: also one that lends what the client before left in its session."""
    with pgbouncer(postgresql, postgresql_url, "session", **settings) as url:
        for _ in range(2):
            _ask_often(url)
        require_session(connector(url).open)
        with attached(url) as database:
            for _ in range(8):  # more often than a statement runs before it is prepared
                assert database.prepared_queries.fetch_one(
                    "SELECT value FROM revision WHERE id = ?", "1"
                ) == (0,)
                with database.reading() as session:
                    assert session.execute(text("SHOW statement_timeout")).scalar() == "2s"


def _ask_often(url: str) -> None:
    """Leave prepared statements of the driver and of the prepared queries in the session."""
    with attached(url) as database:
        for _ in range(8):
            assert database.prepared_queries.fetch_one(
                "SELECT value FROM revision WHERE id = ?", "1"
            ) == (0,)
            with database.reading() as session:
                session.execute(text("SET search_path = public"))
                session.execute(text("SELECT value FROM revision"))


@pytest.mark.parametrize(
    ("mode", "settings"),
    [
        ("transaction", {}),
        ("transaction", {"default_pool_size": "1"}),
        ("transaction", {"server_reset_query_always": "1"}),
        ("transaction", {"server_round_robin": "1", "min_pool_size": "4"}),
        ("statement", {}),
    ],
)
def test_a_pooler_that_keeps_no_session_is_named(postgresql, postgresql_url, mode, settings):
    """Case P208."""
    with (
        pgbouncer(postgresql, postgresql_url, mode, **settings) as url,
        pytest.raises(DatabaseUnfitError, match=f"one {mode} at a time.*pool_mode = session"),
    ):
        require_session(connector(url).open)


def test_a_commit_that_does_not_wait_is_named(postgresql_url):
    """Case Q222."""

    def connect():
        connection = connector(postgresql_url).open()
        connection.execute("SET synchronous_commit = off")
        connection.commit()
        return connection

    with pytest.raises(DatabaseUnfitError, match="synchronous_commit is off"):
        require_session(connect)


def test_readiness_looks_now_and_then_and_keeps_the_answer(postgresql_url):
    """Case P208."""
    opened, seconds = [], [0.0]

    def connect():
        opened.append(True)
        connection = connector(postgresql_url).open()
        if broken:
            connection.execute("SET synchronous_commit = off")
            connection.commit()
        return connection

    broken = False
    readiness = SessionReadiness(connect, monotonic=lambda: seconds[0])
    for _ in range(3):
        readiness.require()
    assert len(opened) == 2
    seconds[0], broken = readiness.GOOD_SECONDS, True
    for _ in range(3):
        with pytest.raises(DatabaseUnfitError):
            readiness.require()
    assert len(opened) == 4
    seconds[0], broken = readiness.GOOD_SECONDS + readiness.BAD_SECONDS, False
    readiness.require()
    assert len(opened) == 6
