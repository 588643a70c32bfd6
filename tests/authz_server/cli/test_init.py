import json
import re
from pathlib import Path

import pytest
from click.testing import CliRunner

from authz_server.cli.root import main
from authz_server.settings import load_settings

ISSUER = "https://auth.example.org"


def _init(directory, *options):
    return CliRunner().invoke(main, ["init", str(directory), *options])


def _steps(result):
    assert result.exit_code == 0, result.output
    return {step["what"]: step["made"] for step in json.loads(result.stdout)["steps"]}


def test_it_makes_everything_that_a_server_needs(tmp_path, empty_database_url):
    """Case G85."""
    directory = tmp_path / "site"
    options = ("--issuer", ISSUER, "--database-url", empty_database_url, "--import", "g2p-connect")
    steps = _steps(_init(directory, *options, "--json"))
    assert all(steps.values())
    assert any("signing keys of the ring es256" in what for what in steps)
    assert any("signing keys of the ring rs256" in what for what in steps)
    assert (directory / "secrets").stat().st_mode & 0o777 == 0o700
    for name in ("pepper", "key-encryption-key"):
        assert (directory / "secrets" / name).stat().st_mode & 0o777 == 0o600
    settings = load_settings(directory / "authz-server.toml")
    assert (settings.issuer, settings.environment) == (ISSUER, "production")
    config = ["--config", str(directory / "authz-server.toml")]
    keys = CliRunner().invoke(main, [*config, "keys", "list", "--json"])
    signing = {key["ring"] for key in json.loads(keys.stdout) if key["signs"]}
    assert signing == {"es256", "rs256"}
    scopes = CliRunner().invoke(main, [*config, "scope", "list", "--json"])
    assert len(json.loads(scopes.stdout)) == 35


def test_a_second_run_says_what_exists_and_changes_nothing(tmp_path, empty_database_url):
    options = ("--issuer", ISSUER, "--database-url", empty_database_url)
    _steps(_init(tmp_path / "site", *options, "--json"))
    before = _contents(tmp_path / "site")
    config = ["--config", str(tmp_path / "site" / "authz-server.toml")]
    keys = CliRunner().invoke(main, [*config, "keys", "list", "--json"]).stdout
    assert not any(_steps(_init(tmp_path / "site", *options, "--json")).values())
    again = _init(tmp_path / "site")
    assert again.exit_code == 0
    assert re.search(r"exists +pepper", again.stdout)
    assert _contents(tmp_path / "site") == before
    assert CliRunner().invoke(main, [*config, "keys", "list", "--json"]).stdout == keys


def test_force_writes_the_settings_anew_and_leaves_every_key(tmp_path):
    directory = tmp_path / "site"
    _steps(_init(directory, "--issuer", ISSUER, "--json"))
    before = _contents(directory)
    config = directory / "authz-server.toml"
    config.write_text("not = [toml")
    assert _init(directory).exit_code != 0
    assert _init(directory, "--force").exit_code != 0
    assert config.read_text() == "not = [toml"
    steps = _steps(_init(directory, "--issuer", ISSUER, "--force", "--json"))
    assert [what for what, made in steps.items() if made] == [f"settings file {config}"]
    assert _contents(directory) == before
    assert (directory / "authz-server.toml.bak").read_text() == "not = [toml"


def test_without_an_issuer_it_asks_for_one_and_makes_nothing(tmp_path):
    """Case H98."""
    result = _init(tmp_path / "site")
    assert result.exit_code != 0
    assert "--issuer" in result.stderr
    assert not (tmp_path / "site").exists()


@pytest.mark.parametrize("issuer", ["http://auth.example.org", "https://a.example/?q", "nonsense"])
def test_an_issuer_that_cannot_be_is_refused(tmp_path, issuer):
    """Case L129."""
    result = _init(tmp_path / "site", "--issuer", issuer)
    assert result.exit_code != 0
    assert "issuer" in result.stderr
    assert "Traceback" not in result.output
    assert not (tmp_path / "site").exists()


def test_a_database_url_that_cannot_be_is_refused(tmp_path):
    """Case L129."""
    options = ("--issuer", ISSUER, "--database-url", "mongodb://db.example")
    result = _init(tmp_path / "site", *options)
    assert result.exit_code != 0
    assert "url" in result.stderr
    assert not (tmp_path / "site").exists()


def test_the_next_steps_are_printed_as_commands_that_exist(tmp_path):
    result = _init(tmp_path / "site", "--development")
    commands = re.findall(r"^  authz-server (.+)$", result.stdout, re.MULTILINE)
    assert [command.split()[0] for command in commands] == [
        "serve",
        "scope",
        "resource-server",
        "client",
    ]
    for command in commands:
        words = [word for word in command.split() if re.fullmatch(r"[a-z0-9-]+", word)][:2]
        names = words if words[0] != "serve" else words[:1]
        assert CliRunner().invoke(main, [*names, "--help"]).exit_code == 0


def test_the_issuers_path_becomes_the_mount_prefix(tmp_path):
    issuer = f"{ISSUER}/namespace/v1.0.0"
    _steps(_init(tmp_path / "site", "--issuer", issuer, "--port", "9000", "--json"))
    server = load_settings(tmp_path / "site" / "authz-server.toml").server
    assert server.mount_prefix == "/namespace/v1.0.0"
    assert (server.port, server.health_port) == (9000, 9001)


def _contents(directory: Path):
    return {
        path.name: path.read_bytes()
        for path in sorted(directory.rglob("*"))
        if path.is_file() and not path.name.endswith((".bak", "-wal", "-shm", ".db"))
    }
