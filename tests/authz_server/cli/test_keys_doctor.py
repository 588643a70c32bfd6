import json

import pytest
from sqlalchemy import create_engine, text

from keys.backends.vault.policy import VaultRole
from support.settings_file import write_secret
from support.vault_installation import VaultInstallation

ONLY_SIGNS = """
path "{mount}/sign/oidc-es256" {{ capabilities = ["update"] }}
path "{mount}/keys/oidc-es256" {{ capabilities = ["read"] }}
path "auth/token/lookup-self" {{ capabilities = ["read"] }}
path "sys/capabilities-self" {{ capabilities = ["update"] }}
"""


@pytest.fixture
def database_url(sqlite_url):
    """One database is enough where the Vault is what matters."""
    return sqlite_url


@pytest.fixture
def installation(cli, installation):
    """The same, moved on once by its rotator."""
    cli.must("keys", "tick")
    return installation


def examine(cli, *, safe):
    result = cli.run("keys", "doctor", "--json")
    shown = json.loads(result.stdout)
    assert (result.exit_code, shown["safe"]) == (0 if safe else 1, safe), result.output
    return shown["findings"]


def failures(findings):
    return {(each["check"], each["subject"]) for each in findings if each["level"] == "failure"}


def levels(findings, check):
    return [each["level"] for each in findings if each["check"] == check]


@pytest.mark.usefixtures("installation")
def test_the_printed_policies_are_enough_and_no_more(cli):
    findings = examine(cli, safe=True)
    assert failures(findings) == set()
    # As the server, and as the rotator.
    assert levels(findings, "privilege.least") == ["ok", "ok"]
    assert levels(findings, "privilege.sufficient") == ["ok", "ok"]
    assert levels(findings, "privilege.pinned") == ["ok"]
    assert levels(findings, "privilege.floors") == ["ok"]
    assert levels(findings, "ring.signature") == ["ok"]
    assert levels(findings, "key.exportable") == ["ok"]
    assert "ok " in cli.must("keys", "doctor")


@pytest.mark.usefixtures("installation")
def test_its_own_proofs_look_like_no_faults(cli, caplog):
    """What it tries and is refused is what it hopes for."""
    caplog.clear()
    result = cli.run("keys", "doctor")
    assert (result.exit_code, result.stderr) == (0, "")
    assert [record.getMessage() for record in caplog.records if "denies" in record.message] == []


def test_the_limits_of_a_login_are_told(cli, installation):
    name = "limited-server"
    made = installation.admin.create_approle(
        name,
        [f"{installation.mount}-server"],
        token_num_uses=4,
        token_ttl="1h",
        token_explicit_max_ttl="2h",
    )
    file = installation.directory / "limited"
    write_secret(file, made.secret_id)
    login = {"method": "approle", "role_id": made.role_id, "secret_id_file": str(file)}
    vault = {"keys": {"vaults": {"main": {"login": login}}}}
    cli.config = installation.settings(cli.database_url, vault)
    findings = examine(cli, safe=True)
    (uses,) = (each for each in findings if each["check"] == "token.num_uses")
    assert uses["level"] == "warning"
    assert uses["detail"].startswith("a token is good for 4 requests")
    assert levels(findings, "token.explicit_max_ttl") == ["note"]
    assert failures(findings) == set()


def test_each_power_too_many_is_named(cli, installation):
    mount = installation.mount
    wide = ONLY_SIGNS.format(mount=mount) + f'path "{mount}/*" {{ capabilities = ["update"] }}\n'
    installation.admin.write_policy(f"{mount}-server", wide)
    found = failures(examine(cli, safe=False))
    for path in ("keys/oidc-es256/rotate", "keys/oidc-es256/config", "backup/oidc-es256"):
        assert ("privilege.too_wide", f"{mount}/{path}") in found
    assert ("privilege.too_wide", f"{mount}/sign/oidc-es256/sha2-256") in found
    recorded = (installation.directory / "audit.jsonl").read_text()
    assert '"alarm":"privilege.too_wide"' in recorded


def test_signing_without_a_version_is_too_wide_and_is_accounted_for(cli, installation):
    mount = installation.mount
    installation.admin.write_policy(f"{mount}-server", ONLY_SIGNS.format(mount=mount))
    findings = examine(cli, safe=False)
    assert failures(findings) == {("privilege.too_wide", f"{mount}/sign/oidc-es256")}
    recorded = (installation.directory / "audit.jsonl").read_text()
    assert recorded.count('"purpose":"doctor"') == 2


def test_what_is_missing_is_named(cli, installation):
    mount = installation.mount
    narrow = ONLY_SIGNS.format(mount=mount).replace(f"{mount}/sign", "elsewhere/sign")
    installation.admin.write_policy(f"{mount}-server", narrow)
    found = failures(examine(cli, safe=False))
    assert ("privilege.too_narrow", f"{mount}/sign/oidc-es256") in found
    assert ("ring.signature", "es256") in found


def test_a_key_that_signs_nothing_is_told_where_rights_cannot_be_examined(cli, installation):
    """The least important right must not hide that there are no tokens."""
    mount, admin = installation.mount, installation.admin
    policies = admin.client.sys
    held = policies.read_acl_policy(f"{mount}-server")["data"]["policy"]
    admin.write_policy(f"{mount}-server", held.replace("sys/capabilities-self", "elsewhere"))
    found = examine(cli, safe=False)
    assert failures(found) == {("vault.examined", "main as the server")}
    assert levels(found, "ring.signature") == ["ok"]
    admin.soft_delete_key("oidc-es256", mount=mount)
    found = failures(examine(cli, safe=False))
    assert {("vault.examined", "main as the server"), ("ring.signature", "es256")} <= found


def test_a_rotator_that_may_configure_anything_is_too_wide(cli, installation):
    mount = installation.mount
    allowed = 'allowed_parameters = {\n    "min_encryption_version" = []\n  }'
    policies = installation.admin.client.sys
    held = policies.read_acl_policy(f"{mount}-rotator")["data"]["policy"]
    assert allowed in held
    installation.admin.write_policy(f"{mount}-rotator", held.replace(allowed, ""))
    found = failures(examine(cli, safe=False))
    assert found == {("privilege.too_wide", f"{mount}/keys/oidc-es256/config")}
    assert installation.admin.read_key("oidc-es256", mount=mount)["exportable"] is False


def test_a_token_of_root_is_too_wide(cli, installation, bao_mount):
    file = installation.directory / "root-token"
    file.touch(0o600)
    file.write_text(bao_mount.server.token)
    login = {"method": "token", "token_file": str(file)}
    login |= {"role_id": None, "secret_id_file": None}
    vault = {"vaults": {"main": {"login": login, "rotator_login": login}}}
    cli.config = installation.settings(cli.database_url, {"keys": vault})
    assert ("privilege.too_wide", "main") in failures(examine(cli, safe=False))


def test_a_key_that_can_leave_is_unsafe(cli, installation):
    installation.admin.configure_key("oidc-es256", mount=installation.mount, exportable=True)
    found = failures(examine(cli, safe=False))
    assert ("key.exportable", f"{installation.mount}/oidc-es256") in found


def test_a_followed_key_that_nothing_rotates_is_told(cli, installation):
    mount = installation.mount
    ring = {"keys": {"rings": {"es256": {"drive": "follow"}}}}
    cli.config = installation.settings(cli.database_url, ring)
    assert levels(examine(cli, safe=True), "key.auto_rotate_period") == ["warning"]
    installation.admin.configure_key("oidc-es256", mount=mount, auto_rotate_period="24h")
    assert levels(examine(cli, safe=True), "key.auto_rotate_period") == ["ok"]
    cli.config = installation.settings(cli.database_url)
    assert levels(examine(cli, safe=True), "key.auto_rotate_period") == ["warning"]


def test_a_server_that_rotates_itself_is_told(cli, installation):
    installation.drive = "self"
    cli.config = installation.settings(cli.database_url)
    findings = examine(cli, safe=True)
    assert levels(findings, "ring.drive") == ["note"]
    assert levels(findings, "privilege.floors") == ["ok"]


def test_a_vault_that_is_away_is_a_failure_and_not_a_crash(cli, installation):
    installation.address = "http://127.0.0.1:9"
    cli.config = installation.settings(cli.database_url)
    found = failures(examine(cli, safe=False))
    assert ("vault.examined", "main as the server") in found


def test_a_login_without_its_file_is_a_failure(cli, installation):
    for file in installation.directory.glob("server-*-secret-id"):
        file.unlink()
    found = failures(examine(cli, safe=False))
    assert ("vault.examined", "main as the server") in found


def test_a_broken_chain_of_events_is_a_failure(cli):
    cli.must("keys", "init")
    engine = create_engine(cli.database_url)
    with engine.begin() as connection:
        connection.execute(text("UPDATE key_event SET reason = 'nothing happened'"))
    engine.dispose()
    assert failures(examine(cli, safe=False)) == {("events.chain", "es256")}


def test_a_local_key_that_cannot_be_opened_is_a_failure(cli):
    cli.must("keys", "init")
    assert levels(examine(cli, safe=True), "ring.signature") == ["ok"]
    engine = create_engine(cli.database_url)
    with engine.begin() as connection:
        connection.execute(text("DELETE FROM encrypted_private_key WHERE version = 1"))
    engine.dispose()
    assert failures(examine(cli, safe=False)) == {("ring.signature", "es256")}


def test_a_ring_without_keys_and_a_short_publication_are_told(cli):
    assert failures(examine(cli, safe=False)) == {("ring.keys", "es256")}
    cli.must("keys", "init")
    engine = create_engine(cli.database_url)
    with engine.begin() as connection:
        connection.execute(text("UPDATE key_ring SET prepublication_seconds = 1000"))
    engine.dispose()
    assert levels(examine(cli, safe=True), "ring.prepublication") == ["warning"]


def test_secrets_in_kv_are_examined_alike(cli, openbao, tmp_path, monkeypatch):
    admin = openbao.admin()
    admin.enable_kv("kv-doctor")
    made = VaultInstallation(openbao.address, admin, "kv-doctor", tmp_path, scheme="kv")
    cli.config = made.settings(cli.database_url)
    monkeypatch.setenv("VAULT_TOKEN", openbao.token)
    cli.must("keys", "init")
    monkeypatch.delenv("VAULT_TOKEN")
    assert levels(examine(cli, safe=True), "privilege.least") == ["ok", "ok"]
    wide = 'path "kv-doctor/*" { capabilities = ["read", "list", "create", "update", "delete"] }'
    name = made.write_policy(VaultRole.SERVER)
    held = admin.client.sys.read_acl_policy(name)["data"]["policy"]
    admin.write_policy(name, f"{held}\n{wide}\n")
    found = failures(examine(cli, safe=False))
    assert ("privilege.too_wide", "kv-doctor/destroy/oidc-es256/1") in found
    admin.disable_engine("kv-doctor")


def test_policies_are_printed_for_the_rings_of_a_vault(cli, installation):
    policies = cli.json("keys", "policy")
    assert [each["role"] for each in policies] == ["server", "rotator", "emergency", "destroy"]
    assert all(each["rings"] == ["es256"] for each in policies)
    text = cli.must("keys", "policy", "--role", "server", "--vault", "main")
    assert f'path "{installation.mount}/sign/oidc-es256"' in text
    assert "rotate" not in text
    assert 'required_parameters = ["key_version"]' in text
    assert "No ring" in cli.refused("keys", "policy", "--vault", "other")
