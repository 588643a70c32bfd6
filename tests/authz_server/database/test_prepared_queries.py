"""Look-ups: kept connections that never outnumber their limit, and are replaced when they die."""

import os
import sqlite3
import threading
from contextlib import closing

import pytest
from psycopg import sql
from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError

from authz_server.database.orm import open_database
from authz_server.settings import DatabaseSettings
from support.postgresql_access import database_name

QUESTION = "SELECT value FROM revision WHERE id = ?"


@pytest.fixture
def database(database_url):
    settings = DatabaseSettings(url=database_url, pool_size=2, pool_timeout_milliseconds=200)
    database = open_database(settings)
    yield database
    database.close()


def test_a_question_has_a_row_or_nothing(database):
    assert database.prepared_queries.fetch_one(QUESTION, 1) == (0,)
    assert database.prepared_queries.fetch_one(QUESTION, 2) is None


def test_questions_of_several_kinds_take_turns(database):
    """Numbers, texts and bytes, each prepared once on its connection."""
    by_text = "SELECT count(*) FROM revoked_token WHERE jti = ?"
    by_bytes = "SELECT count(*) FROM reference_token WHERE token_hash = ?"
    for _ in range(3):
        assert database.prepared_queries.fetch_one(QUESTION, 1) == (0,)
        assert database.prepared_queries.fetch_one(by_text, "J\N{SNOWMAN}' OR 1=1") == (0,)
        assert database.prepared_queries.fetch_one(by_bytes, b"\0\xff") == (0,)


def test_bytes_come_back_as_they_are(postgresql_url):
    database = open_database(DatabaseSettings(url=postgresql_url))
    try:
        assert database.prepared_queries.fetch_one("SELECT ?::bytea", b"\0\xff") == (b"\0\xff",)
    finally:
        database.close()


def test_a_text_with_nul_is_refused_and_never_cut(postgresql_url):
    database = open_database(DatabaseSettings(url=postgresql_url))
    try:
        with pytest.raises(SQLAlchemyError):
            database.prepared_queries.fetch_one("SELECT ?::text", "a\0b")
    finally:
        database.close()


def test_a_broken_question_is_a_database_error_and_harms_no_later_one(database):
    with pytest.raises(SQLAlchemyError):
        database.prepared_queries.fetch_one("SELECT nothing FROM nowhere WHERE id = ?", 1)
    assert database.prepared_queries.fetch_one(QUESTION, 1) == (0,)


def test_an_insertion_is_committed_on_whichever_connection(sqlite_url):
    """Also on one that SQLAlchemy has used with its own transactions and without."""
    database = open_database(DatabaseSettings(url=sqlite_url))
    try:
        with database.engine.connect() as used:
            used.execution_options(isolation_level="AUTOCOMMIT").execute(text("SELECT 1"))
        statement = "INSERT INTO single_use (digest, expires_at) VALUES (?1, 1)"
        assert database.prepared_queries.insert(statement, b"value")
        with closing(sqlite3.connect(database.engine.url.database)) as other:
            assert other.execute("SELECT digest FROM single_use").fetchall() == [(b"value",)]
    finally:
        database.close()


def test_many_threads_share_few_connections(database):
    answers = []
    threads = [
        threading.Thread(
            target=lambda: answers.extend(
                database.prepared_queries.fetch_one(QUESTION, 1) for _ in range(50)
            )
        )
        for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == [(0,)] * 400
    assert 1 <= database.prepared_queries.kept <= 2


def test_what_another_transaction_committed_is_seen_at_once(database):
    assert database.prepared_queries.fetch_one(QUESTION, 1) == (0,)
    with database.transaction() as session:
        session.connection().exec_driver_sql("UPDATE revision SET value = 5")
    assert database.prepared_queries.fetch_one(QUESTION, 1) == (5,)


def test_connections_that_died_unnoticed_are_replaced(postgresql_url, postgresql):
    database = open_database(DatabaseSettings(url=postgresql_url))
    try:
        assert database.prepared_queries.fetch_one(QUESTION, 1) == (0,)
        name = sql.Literal(database_name(postgresql_url))
        ending = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = {}"
        postgresql.execute(sql.SQL(ending).format(name))
        assert database.prepared_queries.fetch_one(QUESTION, 1) == (0,)
    finally:
        database.close()


def test_a_forked_process_speaks_on_connections_of_its_own(database):
    database.prepared_queries.fetch_one(QUESTION, 1)
    kept = database.prepared_queries.kept
    child = os.fork()
    if child == 0:
        fresh = database.prepared_queries.kept == 0
        os._exit(0 if fresh and database.prepared_queries.fetch_one(QUESTION, 1) == (0,) else 1)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 0
    assert database.prepared_queries.kept == kept == 1
    assert database.prepared_queries.fetch_one(QUESTION, 1) == (0,)
