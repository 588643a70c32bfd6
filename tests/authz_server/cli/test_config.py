import pytest

from support.settings_file import write_settings

VAULT = {
    "addresses": ["https://vault.example:8200"],
    "login": {"method": "approle", "role_id": "role", "secret_id_file": "not-there"},
}


def test_usable_settings_pass_the_check(cli):
    checked = cli.json("config", "check")
    assert checked["usable"] is True
    assert checked["issuer"] in cli.must("config", "check")


@pytest.mark.parametrize(
    ("overrides", "key"),
    [
        ({"server": {"prot": 1}}, "server.prot"),
        ({"server": {"port": "8080"}}, "server.port"),
        ({"issuer": "http://authz.example.org"}, "issuer"),
        ({"tokens": {"maximum_lifetime_seconds": 36_000}}, "tokens.maximum_lifetime_seconds"),
        ({"clients": {"secret_pepper": "in the open"}}, "clients.secret_pepper"),
    ],
)
def test_settings_that_cannot_be_used_are_refused_by_key(cli, tmp_path, overrides, key):
    """Case H98. Case L129."""
    folder = tmp_path / "other"
    folder.mkdir()
    cli.config = write_settings(folder, cli.database_url, overrides)
    for command in (("config", "check"), ("client", "list"), ("serve",)):
        assert key in cli.refused(*command)


@pytest.mark.parametrize(
    ("overrides", "named"),
    [
        ({"g2p": {"default_language": "sw"}}, "g2p.default_language"),
        ({"plugins": {"enabled": ["nobody_wrote_it"]}}, "nobody_wrote_it"),
        ({"keys": {"vaults": {"main": VAULT}}}, "keys.vaults.main.login.secret_id_file"),
    ],
)
def test_what_the_settings_name_is_tried_before_anything_starts(cli, tmp_path, overrides, named):
    """Case L129."""
    folder = tmp_path / "other"
    folder.mkdir()
    cli.config = write_settings(folder, cli.database_url, overrides)
    for command in (("config", "check"), ("serve",)):
        refusal = cli.refused(*command)
        assert named in refusal
        assert "unexpected" not in refusal


def test_no_settings_file_points_at_init(cli, tmp_path):
    cli.config = tmp_path / "nothing.toml"
    assert "authz-server init" in cli.refused("config", "check")


def test_settings_are_shown_without_secrets(cli):
    """Case L130."""
    rows = {row["key"]: row for row in cli.json("config", "show")}
    assert rows["server.port"] == {"key": "server.port", "value": 8080, "default": True}
    assert rows["clients.secret_pepper"]["value"] == "(set)"
    changed = {row["key"] for row in cli.json("config", "show", "--changed")}
    assert "issuer" in changed
    assert "server.port" not in changed
    pepper = (cli.config.parent / "pepper").read_text().strip()
    assert pepper not in cli.must("config", "show")
    assert pepper not in cli.must("config", "show", "--json")


def test_the_settings_file_may_be_named_behind_the_command_or_in_the_environment(
    cli, monkeypatch, tmp_path
):
    config, cli.config = cli.config, tmp_path / "nothing.toml"
    assert cli.json("config", "check", "--config", config)["usable"] is True
    monkeypatch.setenv("AUTHZ_SERVER_CONFIG", str(config))
    monkeypatch.chdir(tmp_path)
    from click.testing import CliRunner  # noqa: PLC0415

    from authz_server.cli.root import main  # noqa: PLC0415

    assert CliRunner().invoke(main, ["config", "check"]).exit_code == 0
