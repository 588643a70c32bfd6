"""A command works where what it does not use is missing: a login, the audit file, a plugin."""

import builtins
import io
import os

import pytest

from support.settings_file import write_settings

#: What an operator does beside a server whose keys are in a Vault, without being logged in there.
COMMANDS = [
    ("client", "list"),
    ("client", "create", "office", "--name", "Office", "--scope", "mapper/link"),
    ("client", "disable", "ministry"),
    ("keys", "list"),
    ("resource-server", "list"),
    ("revoke", "--client", "ministry", "--yes"),
    ("scope", "list"),
    ("scope", "show", "mapper/link"),
    ("token", "revoke", "--jti", "0123456789"),
    ("db", "purge"),
]
READING = [
    ("client", "list"),
    ("client", "show", "ministry"),
    ("keys", "list"),
    ("resource-server", "list"),
    ("scope", "list"),
]


@pytest.fixture
def opened(monkeypatch):
    """The paths of the files that are opened during the test."""
    paths = []

    def noting(real):
        def note(path, *arguments, **options):
            paths.append(str(path))
            return real(path, *arguments, **options)

        return note

    for module in (builtins, io, os):
        monkeypatch.setattr(module, "open", noting(module.open))
    return paths


@pytest.fixture
def registered(cli, prepare):
    """The command line on a database with a client."""
    client = ("client", "create", "ministry", "--name", "M", "--scope", "mapper/link")
    prepare(cli, ("scope", "import", "g2p-connect"), client)
    return cli


def rewrite(cli, tmp_path, overrides):
    cli.config = write_settings(tmp_path, cli.database_url, overrides)


@pytest.fixture
def away(registered, tmp_path):
    """The command line under settings with a Vault whose login file is elsewhere."""
    login = {"method": "approle", "role_id": "server", "secret_id_file": "elsewhere"}
    vaults = {"main": {"addresses": ["http://127.0.0.1:1"], "login": login}}
    rings = {"es256": {"algorithm": "ES256", "backend": "transit://transit/oidc"}}
    rewrite(registered, tmp_path, {"keys": {"rings": rings, "vaults": vaults}})
    return registered


def test_a_command_that_needs_no_vault_needs_no_login(away):
    for arguments in COMMANDS:
        away.must(*arguments)
        assert away.run("client", "show", "ministry").exit_code == 0, arguments


def test_an_order_on_a_local_ring_needs_no_login_of_a_vault(registered, tmp_path):
    """An emergency waits for no file of another ring's login."""
    registered.must("keys", "init")
    login = {"method": "approle", "role_id": "server", "secret_id_file": "elsewhere"}
    vaults = {"main": {"addresses": ["http://127.0.0.1:1"], "login": login}}
    remote = {"algorithm": "ES256", "backend": "transit://transit/oidc"}
    rings = {"es256": {"algorithm": "ES256"}, "remote": remote}
    rewrite(registered, tmp_path, {"keys": {"rings": rings, "vaults": vaults}})
    registered.must("keys", "status", "es256")
    for command in ("rotate", "taint", "revoke"):
        registered.must("keys", command, "es256", "--reason", "INC-17", "--yes")
    assert "elsewhere" in registered.refused("keys", "tick")


def test_a_token_is_looked_into_without_a_login(away):
    result = away.run("token", "inspect", input="a.b.c")
    assert result.exit_code == 0, result.output
    assert "no token of this server" in result.stdout


def test_a_server_still_needs_the_login(away):
    assert "elsewhere" in away.refused("config", "check", "--offline")


def test_a_command_that_changes_nothing_needs_no_audit_file(registered, tmp_path):
    rewrite(registered, tmp_path, {"audit": {"destination": str(tmp_path / "no" / "audit.jsonl")}})
    for arguments in READING:
        registered.must(*arguments)


def test_a_change_that_cannot_be_recorded_is_not_made(registered, tmp_path):
    rewrite(registered, tmp_path, {"audit": {"destination": str(tmp_path / "no" / "audit.jsonl")}})
    before = registered.audit_records()
    for arguments in (
        ("client", "create", "office", "--name", "Office", "--scope", "mapper/link"),
        ("client", "disable", "ministry"),
        ("revoke", "--client", "ministry", "--yes"),
    ):
        assert "audit.jsonl cannot be opened" in registered.refused(*arguments)
    assert "audit.jsonl cannot be opened" in registered.refused("keys", "init")
    assert registered.audit_records() == before
    assert registered.json("keys", "list") == []
    assert [client["id"] for client in registered.json("client", "list")] == ["ministry"]


def test_a_command_that_calls_no_plugin_needs_none(registered, tmp_path):
    rewrite(registered, tmp_path, {"plugins": {"enabled": ["nobody_wrote_it"]}})
    for arguments in READING:
        registered.must(*arguments)


def test_a_change_that_cannot_be_reported_to_a_plugin_is_not_made(registered, tmp_path):
    rewrite(registered, tmp_path, {"plugins": {"enabled": ["nobody_wrote_it"]}})
    before = registered.audit_records()
    assert "nobody_wrote_it" in registered.refused("client", "disable", "ministry")
    assert "nobody_wrote_it" in registered.refused("revoke", "--client", "ministry", "--yes")
    assert registered.audit_records() == before


def test_the_settings_file_is_read_once(registered, opened):
    for arguments in (*COMMANDS, ("keys", "init"), ("config", "show")):
        opened.clear()
        registered.must(*arguments)
        assert opened.count(str(registered.config)) == 1, arguments
