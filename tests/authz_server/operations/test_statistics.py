"""Statistics of tables, by which PostgreSQL plans its queries."""

import secrets

import pytest
from sqlalchemy import create_engine, text

from authz_server.database.schema import downgrade_database, upgrade_database
from authz_server.database.statistics import gather_statistics
from authz_server.operations.declarative.apply import apply_declaration
from authz_server.operations.declarative.document import read_declaration
from authz_server.settings import DatabaseSettings

TABLES = {
    "audit_name",
    "audit_record",
    "client",
    "client_grant",
    "client_secret",
    "client_text",
    "scope_use",
}


@pytest.fixture
def postgresql_url(postgresql_url):
    """A database without statistics: a copy that another test used may have some."""
    engine = create_engine(postgresql_url)
    with engine.begin() as connection:
        connection.execute(text("UPDATE pg_class SET reltuples = -1 WHERE relkind = 'r'"))
    engine.dispose()
    return postgresql_url


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request):
    return request.getfixturevalue(f"{request.param}_url")


def analyzed(engine):
    """Return those of the tables of which PostgreSQL has statistics."""
    if engine.dialect.name == "sqlite":
        with engine.connect() as connection:
            assert not connection.dialect.has_table(connection, "sqlite_stat1")
        return set()
    query = "SELECT relname FROM pg_class WHERE relkind = 'r' AND reltuples >= 0"
    with engine.connect() as connection:
        return TABLES & set(connection.scalars(text(query)))


def expected(engine):
    return set() if engine.dialect.name == "sqlite" else TABLES


def test_statistics_are_gathered_after_many_changes(operator, tmp_path, monkeypatch):
    """Not after few changes, which autovacuum covers, nor after a dry run."""
    many = 40
    monkeypatch.setattr("authz_server.database.statistics.MANY_CHANGES", many)
    engine = operator.services.database.engine
    file = tmp_path / "a.toml"

    def apply(number, *, dry_run=False):
        clients = (
            f'[clients.own-{each}]\nname = "C"\nallowed_scopes = ["mapper/link"]\n'
            for each in range(number)
        )
        file.write_text("".join(clients), encoding="utf-8")
        declaration = read_declaration([file])
        apply_declaration(operator.services, declaration, actor=operator.actor, dry_run=dry_run)

    apply(1)
    assert analyzed(engine) == set()
    apply(many + 1, dry_run=True)
    assert analyzed(engine) == set()
    apply(many + 1)
    assert analyzed(engine) == expected(engine)


def test_statistics_are_gathered_after_an_upgrade_of_what_was_there(empty_database_url):
    settings = DatabaseSettings(url=empty_database_url)
    engine = create_engine(empty_database_url)
    upgrade_database(settings)
    assert analyzed(engine) == set()
    upgrade_database(settings)
    assert analyzed(engine) == set()
    downgrade_database(settings, "0023")
    upgrade_database(settings)
    assert analyzed(engine) == expected(engine)
    engine.dispose()


def test_a_role_that_owns_no_table_gathers_none_and_fails_nothing(postgresql_url, caplog):
    """Nor does a database that takes no answer in time: a warning is logged."""
    owner = create_engine(postgresql_url, isolation_level="AUTOCOMMIT")
    role = f"reader_{secrets.token_hex(4)}"
    with owner.connect() as connection:
        connection.execute(text(f"CREATE ROLE {role}"))
        try:
            of_role = create_engine(f"{postgresql_url}?options=-c%20role%3D{role}")
            gather_statistics(of_role)
            of_role.dispose()
            assert (analyzed(owner), caplog.records) == (set(), [])
        finally:
            connection.execute(text(f"DROP ROLE {role}"))
    blocked = create_engine(f"{postgresql_url}?options=-c%20statement_timeout%3D300")
    with owner.execution_options(isolation_level="READ COMMITTED").begin() as connection:
        connection.execute(text("LOCK TABLE client"))
        gather_statistics(blocked)
    blocked.dispose()
    (record,) = caplog.records
    assert record.levelname == "WARNING"
    assert "SQLSTATE 57014" in record.getMessage()
    gather_statistics(owner)
    assert analyzed(owner) == TABLES
    owner.dispose()
