"""Errors that an operator can cause are reported by a sentence, never as unexpected."""

import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner
from sqlalchemy import create_engine, text

from authz_server.cli import main
from authz_server.operations.documents import find_documents
from support.settings_file import write_settings

SURROGATE = "caf\udce9"  # Latin-1 on the command line
ARGUMENTS = {
    "show": ("client", "show", SURROGATE),
    "create": ("client", "create", "--name", "N", "--scope", SURROGATE),
    "name": ("client", "create", "--name", SURROGATE, "--scope", "mapper/link"),
    "delete": ("client", "delete", SURROGATE, "--yes"),
    "resource-server": ("resource-server", "show", SURROGATE),
    "scope": ("scope", "show", SURROGATE),
    "revoke": ("revoke", "--client", SURROGATE, "--yes"),
    "revoke scope": ("revoke", "--scope", SURROGATE, "--yes"),
    "schema": ("db", "downgrade", "--yes", "--to", ""),
    "lifetime": ("client", "create", "--name", "N", "--scope", "s", "--lifetime", "9" * 30),
    "time": ("revoke", "--before", "+999999999d", "--yes"),
    "key": ("keys", "taint", SURROGATE, "--reason", "r"),
}


@pytest.mark.parametrize("arguments", ARGUMENTS.values(), ids=ARGUMENTS)
def test_hostile_arguments(shared_cli, arguments):
    """Case R242."""
    assert "unexpected" not in shared_cli.refused(*arguments)


def test_a_terminal_that_knows_few_characters_shows_the_others_escaped(shared_cli):
    """Case R242."""
    named = ("--name", "Zürich", "--identifier", "https://zurich.example")
    made = shared_cli.json("resource-server", "create", *named)
    arguments = ["--config", str(shared_cli.config), "resource-server", "show", made["id"]]
    shown = CliRunner(charset="ascii").invoke(main, arguments)
    shared_cli.must("resource-server", "delete", made["id"], "--yes")
    assert shown.exit_code == 0, shown.output
    assert r"Z\xfcrich" in shown.stdout


def test_help_that_cannot_be_written_is_an_error_in_one_line():
    """Case R242."""
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(
            [sys.executable, "-m", "authz_server", "--help"],
            stdout=full,
            stderr=subprocess.PIPE,
            check=False,
        )
    assert (done.returncode, done.stderr) == (1, b"Error: No space left on device.\n")


def test_a_database_that_refuses_is_one_sentence_and_the_remedy(tmp_path):
    url = "postgresql://authz@127.0.0.1:1/authz"
    config = write_settings(tmp_path, url, {})
    result = CliRunner().invoke(main, ["--config", str(config), "client", "list"])
    assert result.exit_code == 1
    assert result.stderr == (
        "Error: The database refused or did not answer: connection failed: connection to server at "
        '"127.0.0.1", port 1 failed: Connection refused. See that it runs and that database.url is '
        "right; `authz-server db check` tries it.\n"
    )


SETTINGS = {
    "a NUL in a path": ({"g2p": {"catalogue_directory": "a\0b"}}, "g2p.catalogue_directory"),
    "a NUL in the audit file": ({"audit": {"destination": "a\0b"}}, "audit.destination"),
    "a NUL in the URL": ({"database": {"url": "sqlite:///a\0b"}}, "database.url"),
    "a NUL in a list": ({"server": {"hosts": ["a\0b"]}}, "server.hosts[0]"),
    "a string for a number": ({"server": {"port": "8080"}}, "a whole number, not a string"),
    "a number for a string": ({"issuer": 1}, "a string in quotes, not a whole number"),
    "a string for a list": ({"server": {"hosts": "a"}}, "a list, not a string"),
    "a number for a boolean": ({"revocation": {"enabled": 1}}, "true or false, not a whole"),
    "a list for a table": ({"keys": {"rings": []}}, "a table, not a list"),
    "a key misspelt": ({"server": {"heath_port": 1}}, "Did you mean server.health_port?"),
    "a table misspelt": ({"sever": {"port": 1}}, "Did you mean server?"),
    "a key of a ring misspelt": (
        {"keys": {"rings": {"es256": {"algoritm": "ES256"}}}},
        "Did you mean keys.rings.es256.algorithm?",
    ),
    "a key like no other": (
        {"server": {"zzz": 1}},
        f"there is no such key. See {find_documents()}/docs/configuration.md.",
    ),
}


@pytest.mark.parametrize(("overrides", "named"), SETTINGS.values(), ids=SETTINGS)
def test_hostile_settings(shared_cli, make_cli, tmp_path, overrides, named):
    """Case R242. Case L129."""
    url = shared_cli.database_url
    cli = make_cli(tmp_path, url, **overrides)
    for command in (("config", "check"), ("client", "list"), ("serve",)):
        refusal = cli.refused(*command)
        assert named in refusal
        assert "unexpected" not in refusal


def test_a_file_of_endless_brackets(cli):
    """Case R242."""
    cli.config.write_text(f"a = {'[' * 100_000}")
    assert "not TOML" in cli.refused("config", "check")


@pytest.mark.parametrize("command", [("client", "list"), ("scope", "list"), ("db", "purge")])
def test_a_table_that_is_missing(cli, command):
    """Case R242."""
    engine = create_engine(cli.database_url)
    with engine.begin() as connection:
        for table in ("client", "scope", "clock_mark"):
            connection.execute(text(f"ALTER TABLE {table} RENAME TO {table}_of_old"))
    engine.dispose()
    refusal = cli.refused(*command)
    assert "authz-server db check" in refusal
    assert "unexpected" not in refusal


def test_a_role_without_rights(cli, postgresql, tmp_path):
    """Case R242."""
    from support.roles import Role  # noqa: PLC0415

    role = Role(postgresql)
    try:
        role.access.execute(f"ALTER DATABASE {role.name} OWNER TO authz")
        cli.config = write_settings(tmp_path, role.url(), {})
        refusal = cli.refused("db", "upgrade")
        assert "permission denied" in refusal
        assert "unexpected" not in refusal
    finally:
        role.drop()
