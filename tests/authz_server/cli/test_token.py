import pytest

from authz_server.assembly import utc_now
from authz_server.assembly.server import ServerServices
from authz_server.database.orm import open_database
from authz_server.settings import load_settings
from authz_server.waiting import run


@pytest.fixture
def issued(registered, tmp_path):
    """The command line, and a token of the client `ministry` in a file."""
    settings = load_settings(registered.config)
    database = open_database(settings.database)
    services = ServerServices(settings, database, utc_now)
    services.feed.poll()
    client = services.directory.find("ministry")
    granted = services.rules.decide(client, "client_credentials", "mapper/link", ())
    token = run(services.issuer.issue(granted, None))
    database.close()
    file = tmp_path / "token"
    file.write_text(f"{token.access_token}\n")
    return registered, file, token


def test_a_token_is_shown_with_its_worth(issued):
    cli, file, token = issued
    shown = cli.json("token", "inspect", file)
    assert (shown["state"], shown["client_id"], shown["scope"]) == (
        *("active", "ministry", "mapper/link"),
    )
    assert (shown["jti"], shown["kid"]) == (token.jti, token.kid)
    assert token.jti in cli.must("token", "inspect", input=file.read_text())
    cli.must("client", "disable", "ministry")
    assert "disabled" in cli.json("token", "inspect", file)["state"]


def test_a_token_is_revoked_once_and_stays_so(issued):
    """Case H98. Case F67."""
    cli, file, token = issued
    first, second = cli.json("token", "revoke", file), cli.json("token", "revoke", file)
    assert (first["changed"], second["changed"]) == (True, False)
    assert first["jti"] == token.jti
    assert cli.json("token", "inspect", file)["state"] == "revoked"
    assert [each[1:] for each in cli.audit_records()].count(("token.revoked", token.jti)) == 1


def test_a_token_is_revoked_by_its_id_alone(issued):
    cli, file, token = issued
    assert token.jti in cli.must("token", "revoke", "--jti", token.jti)
    assert cli.json("token", "inspect", file)["state"] == "revoked"


def test_what_is_no_token_of_ours_is_said_to_be_none(issued, tmp_path):
    cli, file, _ = issued
    (tmp_path / "other").write_text("eyJ.e.x")
    assert "unknown" in cli.json("token", "inspect", tmp_path / "other")["state"]
    assert "nothing to revoke" in cli.refused("token", "revoke", tmp_path / "other")
    assert "no token" in cli.refused("token", "inspect", input=" \n")
    assert "--jti" in cli.refused("token", "revoke", file, "--jti", "x")
    assert "--jti" in cli.refused("token", "revoke", "--jti", "é")
