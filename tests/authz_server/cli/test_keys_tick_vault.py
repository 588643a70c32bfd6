import json

import pytest
from sqlalchemy import create_engine, text

from keys.backends.vault.policy import VaultRole


@pytest.fixture
def database_url(sqlite_url):
    """One database is enough where the Vault is what matters."""
    return sqlite_url


def states(cli):
    return [(key["version"], key["state"]) for key in cli.json("keys", "list")]


def remove_server_login(installation):
    for file in installation.directory.glob("server-*-secret-id"):
        file.unlink()


def test_the_rotator_needs_its_own_login_alone(cli, installation):
    remove_server_login(installation)
    made = cli.json("keys", "rotate", "es256")
    assert made["created"]["version"] == 3
    assert cli.json("keys", "tick")[0]["failures"] == []
    assert cli.json("keys", "status")["rings"][0]["at_backend"]["usable"] is True


def test_a_missing_standby_is_made_by_the_rotator(cli, installation):
    standby = cli.json("keys", "list")[1]["kid"]
    cli.must("keys", "activate", standby, "--reason", "drill", "--emergency")
    assert states(cli)[-1] == (2, "active")
    (ticked,) = cli.json("keys", "tick")
    assert ticked["created"]["version"] == 3
    assert states(cli)[-1] == (3, "published")
    shown = installation.admin.read_key("oidc-es256", mount=installation.mount)
    assert shown["latest_version"] == 3


def test_a_followed_ring_is_adopted_and_nothing_is_asked_of_its_backend(cli, installation):
    """Case G75."""
    ring = {"keys": {"rings": {"es256": {"drive": "follow"}}}}
    cli.config = installation.settings(cli.database_url, ring)
    installation.admin.rotate_key("oidc-es256", mount=installation.mount)
    (ticked,) = cli.json("keys", "tick")
    assert ticked["at_backend"] == []
    assert ticked["created"] is None
    events = [each["event"] for each in ticked["changes"]]
    assert events[:1] == ["key.published"]
    second = cli.json("keys", "list")[1]
    # The former standby takes over, no sooner than verifiers know it.
    assert second["activate_at"] > second["published_at"]
    assert "is under way" in cli.refused("keys", "rotate", "es256")


def test_an_order_that_the_vault_refuses_changes_nothing(cli, installation):
    allowed = installation.admin.client.sys.read_acl_policy(f"{installation.mount}-rotator")
    text_ = allowed["data"]["policy"].replace("keys/oidc-es256/rotate", "keys/other/rotate")
    installation.admin.write_policy(f"{installation.mount}-rotator", text_)
    before = states(cli)
    result = cli.run("keys", "rotate", "es256")
    assert result.exit_code == 1
    assert "denies" in result.stderr
    assert states(cli) == before
    # The claim on the next version is given back.
    installation.admin.write_policy(f"{installation.mount}-rotator", allowed["data"]["policy"])
    cli.must("keys", "rotate", "es256")


def test_a_fence_that_fails_is_done_in_part(cli, installation):
    """Case G83."""
    cli.config = installation.settings(cli.database_url, {"keys": {"clock_tolerance_seconds": 1}})
    name = f"{installation.mount}-rotator"
    allowed = installation.admin.client.sys.read_acl_policy(name)["data"]["policy"]
    narrow = allowed.replace("keys/oidc-es256/config", "keys/other/config")
    installation.admin.write_policy(name, narrow)
    first = cli.json("keys", "list")[0]["kid"]
    result = cli.run("keys", "revoke", first, "--reason", "stolen", "--json")
    assert result.exit_code == 3
    record = json.loads(result.stdout)
    assert (record["written"], record["fenced"]) == (True, None)
    assert "not fenced" in result.stderr
    assert states(cli)[0] == (1, "revoked")
    installation.admin.write_policy(name, allowed)
    while cli.json("keys", "tick")[0]["fenced"] is None:
        pass
    shown = installation.admin.read_key("oidc-es256", mount=installation.mount)
    assert shown["min_encryption_version"] == 2


def test_a_backend_that_is_away_is_left_for_the_next_tick(cli, installation):
    installation.address = "http://127.0.0.1:9"
    cli.config = installation.settings(cli.database_url)
    result = cli.run("keys", "tick")
    assert result.exit_code == 3
    assert "does not answer" in result.stderr
    status = cli.json("keys", "status")["rings"][0]
    assert status["at_backend"]["usable"] is False
    first = cli.json("keys", "list")[0]["kid"]
    # The store is what introspection and the JWKS follow.
    result = cli.run("keys", "revoke", first, "--reason", "stolen")
    assert result.exit_code == 3
    assert states(cli)[0] == (1, "revoked")


def expire(cli, version):
    """Have a retired key's last token expire long ago, as if time had passed."""
    engine = create_engine(cli.database_url)
    with engine.begin() as connection:
        connection.execute(
            text("UPDATE signing_key SET remove_after = :at, stopped_at = :at WHERE version = :v"),
            {"at": "2020-01-01 00:00:00+00:00", "v": version},
        )
    engine.dispose()


def test_a_key_is_removed_then_destroyed_in_the_vault(cli, installation, bao_mount, monkeypatch):
    """Case G76."""
    cli.config = installation.settings(cli.database_url, {"keys": {"clock_tolerance_seconds": 1}})
    standby = cli.json("keys", "list")[1]["kid"]
    cli.must("keys", "activate", standby, "--reason", "drill", "--emergency")
    assert cli.json("keys", "prune")[0]["written"] is False
    while cli.json("keys", "list")[0]["fenced_at"] is None:
        cli.must("keys", "tick")
    expire(cli, 1)
    planned = cli.json("keys", "prune", "es256", "--dry-run")
    assert [change["event"] for change in planned[0]["changes"]] == ["key.removed"]
    assert cli.json("keys", "prune", "es256")[0]["written"] is True
    assert states(cli)[0] == (1, "removed")
    # The rotator may not delete.
    assert "denies" in cli.refused("keys", "destroy", "es256", "--reason", "tidy")
    assert states(cli)[0] == (1, "removed")
    monkeypatch.setenv(
        "VAULT_TOKEN", bao_mount.admin.create_token([installation.write_policy(VaultRole.DESTROY)])
    )
    planned = cli.json("keys", "destroy", "es256", "--reason", "tidy", "--dry-run")
    assert planned["at_backend"] == [{"act": "destroy", "version": 2}]
    assert cli.json("keys", "destroy", "es256", "--reason", "tidy")["written"] is True
    assert states(cli)[0] == (1, "destroyed")
    shown = installation.admin.read_key("oidc-es256", mount=installation.mount)
    assert "1" not in shown["keys"]
    assert shown["min_available_version"] == 2


def test_an_order_does_not_wait_for_a_file_of_the_rotator(cli, installation):
    """Case G83."""
    for file in installation.directory.glob("rotator-*-secret-id"):
        file.unlink()
    first = cli.json("keys", "list")[0]["kid"]
    result = cli.run("keys", "revoke", first, "--reason", "stolen")
    assert result.exit_code == 3
    assert "is asked as the server" in result.stderr
    assert "not fenced" in result.stderr
    assert states(cli)[0] == (1, "revoked")
    # What a clock starts has nobody to notice that.
    assert "rotator_login" in cli.refused("keys", "tick")


def test_an_operators_token_is_whose_powers_count(cli, installation, bao_mount, monkeypatch):
    token = bao_mount.admin.create_token([installation.write_policy(VaultRole.SERVER)])
    monkeypatch.setenv("VAULT_TOKEN", token)
    assert cli.json("keys", "status")["asked_as"] == "operator"
    assert "denies" in cli.refused("keys", "rotate", "es256")
    token = bao_mount.admin.create_token([installation.write_policy(VaultRole.EMERGENCY)])
    monkeypatch.setenv("VAULT_TOKEN", token)
    first = cli.json("keys", "list")[0]["kid"]
    made = cli.json("keys", "revoke", first, "--all-versions", "--reason", "all leaked")
    assert (made["fenced"], made["failures"]) == (3, [])
    assert set(made["seconds"]) >= {"created", "written", "fenced"}
    assert made["created"]["version"] == 3
