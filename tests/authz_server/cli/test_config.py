import json
import socket
import tomllib
from pathlib import Path

import pytest

from authz_server.cli.serve import require_prepared
from authz_server.settings import load_settings
from support.settings_file import write_settings, write_settings_beside

VAULT = {
    "addresses": ["https://vault.example:8200"],
    "login": {"method": "approle", "role_id": "role", "secret_id_file": "not-there"},
}

#: For what no database decides.
whatever_the_database = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)


def test_usable_settings_pass_the_check(keyed):
    """Case R241."""
    checked = keyed.json("config", "check")
    assert checked["usable"] is True
    assert checked["problems"] == []
    assert checked["issuer"] in keyed.must("config", "check")


@whatever_the_database
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


@whatever_the_database
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


@whatever_the_database
def test_no_settings_file_points_at_init(cli, tmp_path):
    cli.config = tmp_path / "nothing.toml"
    assert "authz-server init" in cli.refused("config", "check")


@whatever_the_database
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


@whatever_the_database
def test_the_settings_file_may_be_named_behind_the_command_or_in_the_environment(
    keyed, monkeypatch, tmp_path
):
    config, keyed.config = keyed.config, tmp_path / "nothing.toml"
    assert keyed.json("config", "check", "--config", config)["usable"] is True
    monkeypatch.setenv("AUTHZ_SERVER_CONFIG", str(config))
    monkeypatch.chdir(tmp_path)
    from click.testing import CliRunner  # noqa: PLC0415

    from authz_server.cli.root import main  # noqa: PLC0415

    assert CliRunner().invoke(main, ["config", "check"]).exit_code == 0


def _cli_at(cli, tmp_path, name, **overrides):
    """Have the command line use the same database and secrets under other settings."""
    url = overrides.pop("url", cli.database_url)
    cli.config = write_settings_beside(tmp_path, name, url, overrides)
    return cli


def _both_refuse(cli, *named):
    """Assert that the check and the server refuse, with these words and by their own accord."""
    for command in (("config", "check"), ("serve",)):
        refusal = cli.refused(*command)
        for word in named:
            assert word in refusal
        assert "unexpected" not in refusal


def test_a_database_without_keys_is_refused(cli):
    """Case R241."""
    _both_refuse(cli, "es256 has no keys", "authz-server init")


def test_a_ring_without_keys_is_refused(keyed, tmp_path):
    """Case R241."""
    rings = {"es256": {"algorithm": "ES256"}, "extra": {"algorithm": "EdDSA"}}
    _both_refuse(_cli_at(keyed, tmp_path, "other", keys={"rings": rings}), "extra has no keys")


def test_another_key_encryption_key_is_refused(keyed, tmp_path):
    """Case R241."""
    cli = _cli_at(keyed, tmp_path, "other")
    (cli.config.parent / "key-encryption-key").write_text("ab" * 16 + "0123456789abcdef" * 2)
    _both_refuse(cli, "keys.key_encryption_key", "another key-encryption key")


def test_another_key_encryption_key_of_a_file_is_refused(keyed, tmp_path):
    """Case R241."""
    rings = {"es256": {"algorithm": "ES256"}, "kept": {"backend": f"file://{tmp_path}/keys.json"}}
    cli = _cli_at(keyed, tmp_path, "other", keys={"rings": rings})
    cli.must("keys", "init")
    cli.must("config", "check")
    document = json.loads((tmp_path / "keys.json").read_text())
    assert document
    (cli.config.parent / "key-encryption-key").write_text("ab" * 16 + "0123456789abcdef" * 2)
    _both_refuse(cli, "keys.key_encryption_key")


@whatever_the_database
def test_a_missing_database_is_refused(keyed, tmp_path):
    """Case R241. Case P209."""
    cli = _cli_at(keyed, tmp_path, "other", url=f"sqlite:///{tmp_path}/mistyped.db")
    _both_refuse(cli, f"{tmp_path}/mistyped.db")
    assert not (tmp_path / "mistyped.db").exists()


@whatever_the_database
def test_a_database_that_does_not_answer_is_named_with_the_drivers_words(keyed, tmp_path):
    """Case R241: the server waits for it."""
    url = "postgresql://authz:very-secret@127.0.0.1:1/authz"
    refusal = _cli_at(keyed, tmp_path, "other", url=url).refused("config", "check")
    assert "database.url" in refusal
    assert "port 1 failed: Connection refused." in refusal
    assert "?" not in refusal
    assert "very-secret" not in refusal


@whatever_the_database
@pytest.mark.parametrize("place", ["missing-folder/audit.jsonl", "folder"])
def test_an_audit_file_that_cannot_be_opened_is_refused(keyed, tmp_path, place):
    """Case R241."""
    (tmp_path / "folder").mkdir()
    cli = _cli_at(keyed, tmp_path, "other", audit={"destination": str(tmp_path / place)})
    _both_refuse(cli, "audit.destination", place)


@whatever_the_database
@pytest.mark.parametrize("name", ["key-encryption-key", "authz-server.toml", "keys.json", "data"])
def test_an_audit_file_with_other_data_is_refused_and_stays_as_it_is(keyed, tmp_path, name):
    """Case R241: a key would be lost with the first record."""
    place = tmp_path / "other" / name
    cli = _cli_at(keyed, tmp_path, "other", audit={"destination": str(place)})
    if not place.exists():
        place.write_bytes(b'{"keys":[]}' if name == "keys.json" else b"\0SQLite")
    before = place.read_bytes()
    _both_refuse(cli, "audit.destination", "something else than audit records")
    assert "something else" in cli.refused("keys", "freeze", "es256", "--reason", "a drill")
    assert place.read_bytes() == before


@whatever_the_database
def test_an_audit_device_that_is_full_is_refused(keyed, tmp_path):
    """Case R241."""
    cli = _cli_at(keyed, tmp_path, "other", audit={"destination": "/dev/full"})
    _both_refuse(cli, "audit.destination", "No space left on device")


@whatever_the_database
def test_the_check_makes_no_audit_file(keyed, tmp_path):
    """Case R241: its owner would be who checks, not who serves."""
    cli = _cli_at(keyed, tmp_path, "other", audit={"destination": str(tmp_path / "new.jsonl")})
    cli.must("config", "check")
    assert not (tmp_path / "new.jsonl").exists()


@whatever_the_database
@pytest.mark.parametrize("key", ["host", "health_host"])
def test_an_address_of_another_machine_is_refused(keyed, tmp_path, key):
    """Case R241."""
    cli = _cli_at(keyed, tmp_path, "other", server={key: "192.0.2.1"})
    refusal = cli.refused("config", "check")
    assert f"server.{key}" in refusal
    assert "192.0.2.1" in refusal


@whatever_the_database
def test_a_port_that_this_server_may_hold_is_a_warning(keyed, tmp_path):
    """Case R241."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        cli = _cli_at(keyed, tmp_path, "other", server={"port": port})
        checked = cli.run("config", "check")
    assert checked.exit_code == 0
    assert f"server.host: 127.0.0.1 port {port} is in use" in checked.stderr


@whatever_the_database
def test_a_certificate_that_cannot_be_used_is_refused(keyed, tmp_path):
    """Case R241."""
    (tmp_path / "tls.pem").write_text("not a certificate")
    (tmp_path / "tls.pem").chmod(0o600)
    files = dict.fromkeys(("tls_certificate", "tls_private_key"), str(tmp_path / "tls.pem"))
    _both_refuse(_cli_at(keyed, tmp_path, "other", server=files), "server.tls_certificate")
    _both_refuse(
        _cli_at(keyed, tmp_path, "admin", admin=files | {"enabled": True}), "admin.tls_certificate"
    )


OPENID = {
    "issuer": "https://provider.example:80",
    "client_id": "console",
    "client_secret": {"file": "pepper"},
}


def _webhooks(folder, **receiver):
    right = {"url": "https://siem.example", "events": ["client.*"], "signing_ring": ""}
    settings = {"queue": str(folder / "webhooks.db"), "receivers": {"siem": right | receiver}}
    return {"enabled": ["webhooks"], "settings": {"webhooks": settings}}


@whatever_the_database
def test_what_the_server_would_trust_is_opened(keyed, tmp_path, caplog):
    """Case R241: a file with something else in it, or an address that is never fetched from."""
    other = tmp_path / "other.pem"
    other.write_text("not a certificate, nor keys nor UTF-8: \udce9", errors="surrogateescape")
    wrong, issuer = str(other), {"issuer": "https://issuer.example"}
    (tmp_path / "webhooks.db").mkdir()
    named = [
        ("queue: ", {"plugins": _webhooks(tmp_path)}),
        ("outbound.ca_file", {"outbound": {"ca_file": str(tmp_path)}}),
        ("issuers.a.ca_file", {"issuers": {"a": issuer | {"ca_file": wrong}}}),
        ("issuers.a.jwks_file", {"issuers": {"a": issuer | {"jwks_file": wrong}}}),
        ("issuers.a.jwks_uri", {"issuers": {"a": issuer | {"jwks_uri": "http://issuer.example"}}}),
        ("issuers.a.issuer", {"issuers": {"a": {"issuer": "https://issuer.example:70000"}}}),
        ("issuers.a.token_file", {"issuers": {"a": issuer | {"token_file": f"{wrong}.absent"}}}),
        ("admin.openid.issuer", {"admin": {"openid": OPENID}}),
        ("g2p.catalogue_directory", {"g2p": {"catalogue_directory": wrong}}),
        (
            "plugins.settings.webhooks.receivers.siem.signing_ring: there is no keys.rings.other",
            {"plugins": _webhooks(tmp_path, signing_ring="other")},
        ),
        ("receivers.siem.ca_file", {"plugins": _webhooks(tmp_path, ca_file=wrong)}),
        ("receivers.siem.url", {"plugins": _webhooks(tmp_path, url="https://siem.example:80")}),
    ]
    for position, (key, overrides) in enumerate(named):
        cli = _cli_at(keyed, tmp_path, f"trust-{position}", **overrides)
        assert key in cli.refused("config", "check", "--offline")
        # The server starts, and what depends on the value is refused.
        require_prepared(load_settings(cli.config))
        assert key in caplog.text
        caplog.clear()


@whatever_the_database
def test_authorities_of_clients_are_opened_where_they_are_used(keyed, tmp_path):
    """Case R241."""
    (tmp_path / "other.pem").write_text("not a certificate")
    table = {"ca_file": str(tmp_path / "other.pem")}
    _cli_at(keyed, tmp_path, "off", client_certificates=table).must("config", "check", "--offline")
    server = {"trusted_proxies": ["127.0.0.1"]}
    table |= {"source": "nginx"}
    cli = _cli_at(keyed, tmp_path, "nginx", client_certificates=table, server=server)
    _both_refuse(cli, "client_certificates.ca_file")


def test_a_ring_that_signs_and_is_not_in_the_settings_is_named(keyed, tmp_path):
    """Case R241: a first table under keys.rings drops the default rings."""
    rings = {"es256": None, "x": {"algorithm": "ES256"}}
    keys = {"rings": rings, "default_ring": "x"}
    cli = _cli_at(keyed, tmp_path, "other", keys=keys)
    cli.must("keys", "init")
    refusal = cli.refused("config", "check")
    assert "keys.rings.es256" in refusal
    assert "signs now and is not in the settings" in refusal


def test_a_default_ring_that_cannot_sign_yet_is_named(keyed, tmp_path):
    """Case R241: the hurried cure, which ends in 503 for a day."""
    rings = {"es256": {"algorithm": "ES256"}, "x": {"algorithm": "ES256"}}
    cli = _cli_at(keyed, tmp_path, "other", keys={"rings": rings})
    cli.must("keys", "init")
    cli.must("config", "check")
    cli = _cli_at(keyed, tmp_path, "hurried", keys={"rings": rings, "default_ring": "x"})
    refusal = cli.refused("config", "check")
    assert "keys.default_ring" in refusal
    assert "es256 can" in refusal


def test_a_ring_that_was_moved_may_leave_the_settings(keyed, tmp_path):
    """Case R241."""
    rings = {"es256": {"algorithm": "ES256"}, "x": {"algorithm": "ES256"}}
    cli = _cli_at(keyed, tmp_path, "other", keys={"rings": rings})
    cli.must("keys", "init")
    cli.must("keys", "move", "es256", "--to", "x", "--reason", "plan")
    keys = {"rings": {"es256": None, "x": {"algorithm": "ES256"}}, "default_ring": "x"}
    cli = _cli_at(keyed, tmp_path, "moved", keys=keys)
    assert "not in the settings" not in cli.run("config", "check").stderr


def test_a_schema_that_is_not_this_versions_is_refused(keyed):
    """Case R241. Case P210."""
    keyed.must("db", "downgrade", "--yes")
    _both_refuse(keyed, "authz-server db upgrade")


@whatever_the_database
def test_offline_it_looks_at_files_alone(cli, tmp_path):
    """Case R241."""
    cli = _cli_at(cli, tmp_path, "other", url="postgresql://nobody@127.0.0.1:1/none")
    assert cli.json("config", "check", "--offline")["usable"] is True
    (cli.config.parent / "folder").mkdir()
    cli = _cli_at(cli, tmp_path, "again", audit={"destination": str(tmp_path / "no/audit.jsonl")})
    assert "audit.destination" in cli.refused("config", "check", "--offline")


@whatever_the_database
def test_all_problems_are_listed_at_once(keyed, tmp_path):
    """Case R241."""
    server = {"health_host": "192.0.2.1"}
    audit = {"destination": str(tmp_path / "no" / "audit.jsonl")}
    cli = _cli_at(keyed, tmp_path, "other", server=server, audit=audit)
    result = cli.run("config", "check", "--json")
    assert result.exit_code == 1
    found = json.loads(result.stdout)
    assert found["usable"] is False
    assert len(found["problems"]) == 2


@whatever_the_database
def test_a_byte_order_mark_is_read_over(keyed, tmp_path):
    """Case R243: in the settings file and in files of secrets."""
    for name in ("authz-server.toml", "pepper", "key-encryption-key"):
        file = tmp_path / name
        file.write_text(file.read_text(), encoding="utf-8-sig")
        assert file.read_bytes().startswith(b"\xef\xbb\xbf")
    keyed.must("config", "check")
    keyed.must("scope", "import", "g2p-connect")


@whatever_the_database
def test_settings_in_another_encoding_are_named(keyed, tmp_path):
    """Case R243."""
    file = tmp_path / "authz-server.toml"
    file.write_text(file.read_text(), encoding="utf-16")
    assert "not UTF-8" in keyed.refused("config", "check")


@whatever_the_database
def test_the_example_is_a_settings_file_with_every_setting(cli):
    settings = tomllib.loads(cli.must("config", "example"))
    assert settings["audit"]["keep_days"] == 400


@whatever_the_database
def test_the_documents_are_where_the_command_prints(cli):
    folder = Path(cli.must("docs").strip())
    for name in ("README.md", "config.example.toml", "docs/operations.md", "deploy/alerts.yaml"):
        assert (folder / name).is_file()
