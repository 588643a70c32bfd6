"""The records of signatures against the audit file of a real OpenBao with raft storage."""

import base64
import gzip
import json
import secrets
import threading
from contextlib import contextmanager
from pathlib import Path

import hvac.exceptions
import pytest

from authz_server.app import EXTENSION, create_app
from authz_server.settings import load_settings
from support.vault_installation import VaultInstallation


@pytest.fixture
def database_url(sqlite_url):
    """One database is enough where the Vault is what matters."""
    return sqlite_url


@pytest.fixture
def installation(cli, raft_server, tmp_path, monkeypatch):
    """The command line on a ring in the transit engine of a Vault that keeps an audit file."""
    admin, mount = raft_server.admin(), f"transit-{secrets.token_hex(4)}"
    admin.enable_transit(mount)
    made = VaultInstallation(raft_server.address, admin, mount, tmp_path)
    cli.config = made.settings(cli.database_url)
    monkeypatch.setenv("VAULT_TOKEN", raft_server.token)
    cli.must("keys", "init")
    monkeypatch.delenv("VAULT_TOKEN")
    cli.must("scope", "import", "g2p-connect")
    cli.must(
        *("resource-server", "create", "mapper", "--name", "Mapper", "--scope", "mapper/*"),
        *("--identifier", "https://mapper.example"),
    )
    cli.must(
        *("client", "create", "ministry", "--name", "Ministry", "--scope", "mapper/link"),
        *("--secret-output", tmp_path / "client-secret"),
    )
    return made


@contextmanager
def serving(cli):
    app = create_app(load_settings(cli.config))
    try:
        yield app
    finally:
        app.extensions[EXTENSION].maintenance.stop()
        app.extensions[EXTENSION].database.close()
        app.extensions[EXTENSION].sink.close()


def ask(app, directory):
    secret = (directory / "client-secret").read_text().strip()
    form = {"grant_type": "client_credentials", "scope": "mapper/link"}
    form |= {"client_id": "ministry", "client_secret": secret}
    return app.test_client().post("/oauth2/token", data=form)


def issue(cli, directory, count=1):
    with serving(cli) as app:
        for _ in range(count):
            reply = ask(app, directory)
            assert reply.status_code == 200, reply.text


def issue_at_once(cli, directory, count):
    with serving(cli) as app:
        ask(app, directory)
        threads = [threading.Thread(target=ask, args=(app, directory)) for _ in range(count)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()


def reconcile(cli, log, *options, status=0):
    result = cli.run(
        *("keys", "audit", "reconcile", "--vault-log", log, "--until", "+1m", "--json"), *options
    )
    assert result.exit_code == status, result.output
    return json.loads(result.stdout)


def test_every_signature_is_accounted_for(cli, installation, raft_server, tmp_path):
    issue(cli, tmp_path, 3)
    # What drills and doctors sign is recorded too, and what is refused signed nothing.
    cli.must("keys", "drill")
    cli.run("keys", "doctor")
    found = reconcile(cli, raft_server.audit_path)
    assert (found["unaccounted_count"], found["unseen_count"], found["taken"]) == (0, 0, [])
    assert found["signatures"] == found["recorded"] == 5
    assert found["log"]["unreadable"] == 0
    told = cli.must(
        *("keys", "audit", "reconcile", "--vault-log", raft_server.audit_path),
        *("--until", "+1m", "--vault", "main"),
    )
    assert "Every signature is accounted for." in told
    assert installation.mount


def test_the_time_that_was_judged_is_told_and_what_it_left_out(cli, installation, raft_server):
    issue(cli, installation.directory, 2)
    command = ("keys", "audit", "reconcile", "--vault-log", raft_server.audit_path)
    judged = cli.json(*command)["judged"]
    assert judged["unjudged_seconds"] == 10
    assert judged["left_out"] >= 2
    told = cli.must(*command).splitlines()[0]
    assert told.startswith(("Judged: from 20", "Judged: to 20"))
    assert "; the last 10 s are not judged, " in told
    assert told.endswith(" calls in the log were left out.")
    whole = cli.json(*command, "--until", "+1m")["judged"]
    assert (whole["unjudged_seconds"], whole["left_out"]) == (0, 0)
    assert whole["since"] < whole["until"]


def test_signatures_in_one_call_are_accounted_for(cli, installation, raft_server, tmp_path):
    issue_at_once(cli, tmp_path, 12)
    found = reconcile(cli, raft_server.audit_path)
    assert found["signatures"] == found["recorded"] == 13
    assert found["calls"] <= found["signatures"]
    assert (found["unaccounted_count"], found["surplus"]) == (0, [])
    assert installation.mount


def test_a_forged_signature_is_found(cli, installation, raft_server, tmp_path):
    issue(cli, tmp_path)
    admin = installation.admin
    admin.write_policy("thief", f'path "{installation.mount}/*" {{ capabilities = ["update"] }}')
    token = admin.create_token(["thief"], display_name="thief")
    thief = type(admin)(raft_server.address, token)
    header = base64.b64encode(b"eyJ.eyJ").decode()
    path = f"{installation.mount}/sign/oidc-es256"
    thief.call("POST", path, {"input": header})
    thief.call("POST", f"{path}/sha2-256", {"batch_input": [{"input": header}] * 2})
    thief.close()
    found = reconcile(cli, raft_server.audit_path, status=1)
    assert (found["unaccounted_count"], found["unseen_count"]) == (2, 0)
    assert [each["signatures"] for each in found["unaccounted"]] == [1, 2]
    assert {each["identity"] for each in found["unaccounted"]} == {"token-thief"}
    assert {each["identity_is_ours"] for each in found["unaccounted"]} == {False}
    result = cli.run(
        *("keys", "audit", "reconcile", "--vault-log", raft_server.audit_path, "--until", "+1m")
    )
    assert result.exit_code == 1
    assert "an unknown identity" in result.stdout
    recorded = (tmp_path / "audit.jsonl").read_text()
    assert recorded.count('"alarm":"signature.unaccounted"') == 4


def test_a_key_that_was_taken_is_found(cli, installation, raft_server):
    mount = installation.mount
    installation.admin.configure_key("oidc-es256", mount=mount, exportable=True)
    installation.admin.call("GET", f"{mount}/export/signing-key/oidc-es256/1")
    found = reconcile(cli, raft_server.audit_path, status=1)
    assert [each["path"] for each in found["taken"]] == [f"{mount}/export/signing-key/oidc-es256/1"]


def test_what_is_refused_signed_nothing(cli, installation, raft_server):
    path = f"{installation.mount}/sign/oidc-es256"
    stranger = type(installation.admin)(raft_server.address, "no-token")
    for admin, body in (
        (stranger, {"input": "AAAA"}),
        (installation.admin, {"input": "AAAA", "key_version": 99}),
    ):
        with pytest.raises(hvac.exceptions.VaultError):
            admin.call("POST", path, body)
    batch = {"batch_input": [{"input": "AAAA"}], "key_version": 99}
    answered = installation.admin.call("POST", path, batch)
    assert "error" in answered["data"]["batch_results"][0]
    stranger.close()
    found = reconcile(cli, raft_server.audit_path)
    assert (found["calls"], found["unaccounted_count"]) == (0, 0)


def test_a_log_that_is_not_whole_is_told(cli, installation, raft_server, tmp_path):
    issue(cli, tmp_path, 2)
    lines = Path(raft_server.audit_path).read_bytes().splitlines(keepends=True)
    signed = [line for line in lines if f'"{installation.mount}/sign/'.encode() in line]
    partial = tmp_path / "vault-audit.log.gz"
    with gzip.open(partial, "wb") as file:
        file.writelines([line for line in lines if line not in signed[-2:]])
        file.write(b'{"time":"broken off')
    found = reconcile(cli, partial)
    assert (found["unseen_count"], found["unaccounted_count"]) == (1, 0)
    assert found["unseen"][0]["kid"] == cli.json("keys", "list")[0]["kid"]
    assert found["signatures"] == 1


def test_records_of_several_nodes_count_together(cli, installation, raft_server, tmp_path):
    issue(cli, tmp_path, 4)
    lines = (tmp_path / "audit.jsonl").read_text().splitlines(keepends=True)
    (tmp_path / "node-1.jsonl").write_text("".join(lines[::2]))
    (tmp_path / "node-2.jsonl").write_text("".join(lines[1::2]))
    one = reconcile(cli, raft_server.audit_path, "--records", tmp_path / "node-1.jsonl", status=1)
    assert one["unaccounted_count"] > 0
    assert {each["identity_is_ours"] for each in one["unaccounted"]} == {True}
    both = reconcile(
        *(cli, raft_server.audit_path, "--records", tmp_path / "node-1.jsonl"),
        *("--records", tmp_path / "node-2.jsonl"),
    )
    assert (both["signatures"], both["unaccounted_count"]) == (4, 0)
    assert installation.mount


def test_a_period_leaves_the_rest_out(cli, installation, raft_server, tmp_path):
    issue(cli, tmp_path)
    found = reconcile(cli, raft_server.audit_path, "--since", "+1m")
    assert (found["signatures"], found["recorded"], found["unseen_count"]) == (0, 0, 0)
    # The last seconds are left out: what is signed this moment is not recorded yet.
    result = cli.run(
        *("keys", "audit", "reconcile", "--vault-log", raft_server.audit_path, "--json")
    )
    assert (result.exit_code, json.loads(result.stdout)["signatures"]) == (0, 0)
    assert installation.mount


def test_what_cannot_be_compared_is_refused(cli, installation, raft_server, tmp_path):
    log = ("keys", "audit", "reconcile", "--vault-log", raft_server.audit_path)
    assert "Name the --vault" in cli.refused(*log, "--vault", "other")
    missing = cli.run("keys", "audit", "reconcile")
    assert (missing.exit_code, "--vault-log" in missing.stderr) == (2, True)
    cli.config = installation.settings(cli.database_url, {"audit": {"destination": "stderr"}})
    assert "--records" in cli.refused(*log)
    assert tmp_path
