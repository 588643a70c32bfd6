import pytest
from sqlalchemy import create_engine, inspect

from authz_server.database.schema import read_schema
from authz_server.settings import DatabaseSettings
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
