"""Declarative files, passkeys and broken glass at a server, beyond the output of the commands."""

import json
import re
from datetime import UTC, datetime
from errno import EIO
from pathlib import Path

import pytest

from authz_server.assembly.operator import operator_services
from authz_server.cli.remote.connection import RemoteError
from authz_server.cli.remote.declarations import _write_all
from authz_server.database.operator_sessions import OperatorPasskey
from authz_server.operations.clients import create_client
from authz_server.operations.declarative import secret_directory
from authz_server.settings import load_settings
from support.parties import ACTOR
from support.remote_site import leaves, losing_an_answer
from support.source_tree import ROOT

MONEY = "disburse/disburse"


def write(folder: Path, name: str, scope: str = "mapper/link") -> Path:
    path = folder / f"{name}.toml"
    path.write_text(f'[clients.{name}]\nname = "X"\nallowed_scopes = ["{scope}"]\n')
    return path


def with_catalogue(site) -> None:
    assert site.local("scope", "import", "g2p-connect").exit_code == 0


def file(site, folder: Path, name: str) -> str:
    """Apply a file that grants money; return the id of the change that waits."""
    waiting = site.remote("apply", write(folder, name, MONEY), "--yes")
    assert (waiting.exit_code, waiting.stdout) == (4, ""), waiting.output
    assert site.local("client", "show", name).exit_code == 1
    return waiting.stderr.rpartition("changes approve ")[2].strip("`.\n")


def test_files_that_wait_are_applied_by_their_approval(site, tmp_path):
    """The exit status is 4; the plan is shown before where it is asked for."""
    with_catalogue(site)
    change = file(site, tmp_path, "approved")
    planned = site.remote("apply", tmp_path / "approved.toml", "--dry-run")
    assert planned.exit_code == 0
    assert f"! grants scopes of risk money: {MONEY}" in planned.stdout
    shown = site.remote("changes", "show", change)
    assert "client approved:" in shown.stdout
    approved = site.remote("changes", "approve", change, token=site.token("second"))
    assert approved.stdout == f"The change {change} is approved.\n"
    assert site.local("client", "show", "approved").exit_code == 0
    again = site.remote("apply", tmp_path / "approved.toml", "--yes")
    assert "nothing to change" in again.stdout


def test_the_secrets_of_files_that_wait_are_written_here(site, tmp_path):
    """They work once a second person has approved the application."""
    with_catalogue(site)
    path, folder = write(tmp_path, "waiting-secret", MONEY), tmp_path / "secrets"
    waiting = site.remote("apply", path, "--yes", "--secret-directory", folder)
    assert waiting.exit_code == 4, waiting.output
    secret = folder / "waiting-secret"
    assert secret.stat().st_mode & 0o777 == 0o600
    change = waiting.stderr.rpartition("changes approve ")[2].strip("`.\n")
    assert secret.read_text().strip() not in site.local("changes", "show", change).stdout
    approved = site.remote("changes", "approve", change, token=site.token("second"))
    assert approved.exit_code == 0, approved.output
    listed = site.local("client", "secret", "list", "waiting-secret", "--json").stdout
    assert len(json.loads(listed)) == 1


def test_files_larger_than_the_bodies_of_other_requests_are_read(site, tmp_path):
    """By the listener too."""
    with_catalogue(site)
    path = write(tmp_path, "large")
    path.write_text(f"{path.read_text()}# {'x' * 200_000}\n")
    planned = site.remote("apply", path, "--dry-run")
    assert planned.exit_code == 0, planned.output


def test_the_requester_breaks_the_glass(site, tmp_path):
    """With a reason; a second person confirms it. On the server's machine it works as well."""
    with_catalogue(site)
    for name, run in (("broken-there", site.remote), ("broken-here", site.local)):
        change = file(site, tmp_path, name)
        missing = run("changes", "break-glass", change)
        assert (missing.exit_code, missing.stdout) == (2, "")
        done = run("changes", "break-glass", change, "--reason", "flood")
        text = f"The change {change} is carried out, and waits for a confirmation.\n"
        assert done.stdout == text, done.output
        assert site.local("client", "show", name).exit_code == 0
        confirmed = site.remote("changes", "confirm", change, token=site.token("second"))
        assert confirmed.exit_code == 0, confirmed.output


def test_a_client_asks_for_the_permissions_of_the_sections(site, tmp_path):
    """No more than the files and the export need."""
    with_catalogue(site)
    wanted = ("clients:read", "clients:write", "resource-servers:read", "scopes:read")
    with operator_services(load_settings(site.config)) as services:
        made = create_client(services, actor=ACTOR, id="applier", name="A", allowed_scopes=wanted)
    secret = tmp_path / "secret"
    secret.write_text(made.secret.value)
    site.renew_tokens()
    access = ("--client-id", "applier", "--issuer", site.server.base_url)
    access += ("--client-secret-file", secret)

    def run(*words: object):
        return site.remote(*access, *words, token="")

    done = run("apply", write(tmp_path, "by-a-client"), "--yes")
    assert done.exit_code == 0, done.output
    assert "[clients.by-a-client]" in run("export").stdout
    with_scope = tmp_path / "scope.toml"
    with_scope.write_text('[scopes."forests/read"]\nrisk = "read"\n')
    refused = run("apply", with_scope, "--yes")
    assert refused.exit_code == 1
    assert "applier gets no token for scopes:write" in refused.stderr


def test_secrets_are_written_here_or_named(site, tmp_path):
    """A new file (0600) each; a file in the way is named before the server does anything."""
    with_catalogue(site)
    folder = tmp_path / "secrets"
    words = ("--yes", "--secret-directory", folder)
    done = site.remote("apply", write(tmp_path, "written"), *words)
    assert done.exit_code == 0, done.output
    secret = folder / "written"
    assert secret.stat().st_mode & 0o777 == 0o600
    assert secret.read_text().strip() not in done.output
    (folder / "in-the-way").touch()
    (tmp_path / "file").touch()
    path = write(tmp_path, "in-the-way")
    for others in (words, ("--yes", "--secret-directory", tmp_path / "file" / "below")):
        kept = site.remote("apply", path, *others)
        assert kept.exit_code == 1, kept.output
        assert "Traceback" not in kept.stderr
        assert site.local("client", "show", "in-the-way").exit_code == 1
    assert sorted(each.name for each in folder.iterdir()) == ["in-the-way", "written"]
    path = write(tmp_path, "lost-secret")
    with losing_an_answer(site) as (between, _):
        lost = site.remote("apply", path, *words, url=between.address)
    again = site.remote("apply", path, "--yes")
    assert lost.exit_code == 1
    assert "its secrets are lost then" in lost.stderr
    assert again.exit_code == 0, again.output
    assert not (folder / "lost-secret").exists()


def test_lost_secrets_are_named_though_the_disk_fails_too(tmp_path, monkeypatch):
    def fail(_: object) -> None:
        raise OSError(EIO, "the disk fails")

    monkeypatch.setattr(secret_directory, "sync_files", fail)
    (tmp_path / "one").touch()
    with pytest.raises(RemoteError) as raised:
        _write_all(tmp_path, {"one": "s", "other": "s"})
    assert f"not in {tmp_path}: one." in str(raised.value)
    assert "the disk fails" in str(raised.value)
    assert (tmp_path / "other").read_text() == "s\n"


def test_secrets_are_imported_from_here(site, tmp_path):
    with_catalogue(site)
    folder = tmp_path / "imported"
    folder.mkdir()
    (folder / "brought").write_text("a-secret-of-another-system-5281\n")
    path = write(tmp_path, "brought")
    done = site.remote("apply", path, "--yes", "--imported-secrets", folder)
    assert "the secret in the folder is imported" in done.stdout, done.output
    listed = json.loads(site.local("client", "secret", "list", "brought", "--json").stdout)
    assert [each["imported"] for each in listed] == [True]
    (folder / "binary").write_bytes(b"\xff" * 30)
    refused = site.remote("apply", write(tmp_path, "binary"), "--yes", "--imported-secrets", folder)
    assert "not UTF-8" in refused.stderr


def test_passkeys_are_listed_and_removed(site):
    """Here and there; an operator of that name or passkey has to exist."""
    for name, run in (("here", site.local), ("there", site.remote)):
        operator = f"with-passkey-{name}"
        made = json.loads(site.local("operator", "create", operator, "--json").stdout)
        row = OperatorPasskey(
            credential_id=operator.encode(),
            operator_id=made["id"],
            name="laptop",
            public_key=b"key",
            sign_count=0,
            transports=[],
            created_at=datetime(2026, 1, 1, tzinfo=UTC),
        )
        settings = load_settings(site.config)
        with operator_services(settings) as services, services.transaction() as session:
            session.add(row)
        (passkey,) = json.loads(run("operator", "passkey", "list", operator, "--json").stdout)
        assert passkey["name"] == "laptop"
        assert "laptop" in run("operator", "passkey", "list", operator).stdout
        remove = ("operator", "passkey", "remove", operator, passkey["id"])
        kept = run(*remove, input="n\n")
        assert kept.exit_code == 1
        done = run(*remove, "--yes")
        assert done.stdout == f"The passkey {passkey['id']} of {operator} is removed.\n"
        assert run(*remove, "--yes").exit_code == 1
        assert run("operator", "passkey", "list", operator, "--json").stdout.strip() == "[]"
    assert site.remote("operator", "passkey", "list", "unknown").exit_code == 1


def test_every_other_command_gives_the_reason_of_its_refusal(site):
    """One sentence: why, and where to run it instead. The document has them too."""
    others = {" ".join(path): command for path, command in leaves() if not command.remote}
    assert [path for path, command in others.items() if not command.here] == []
    text = (ROOT / "docs" / "administration.md").read_text(encoding="utf-8")
    _, _, section = text.partition("\n## On the server's machine alone\n")
    rows = re.findall(r"^\| (`[^|]*) \|", section.partition("\n## ")[0], re.MULTILINE)
    named = {name for row in rows for name in re.findall("`([^`]+)`", row)}
    assert named == {"db" if path.startswith("db ") else path for path in others}
    for words in (("keys", "doctor"), ("keys", "drill"), ("keys", "policy"), ("db", "check")):
        refused = site.remote(*words)
        assert refused.exit_code == 2
        sentence = refused.stderr.splitlines()[-1]
        assert "works on the server's machine alone, because it" in sentence.replace(
            "a policy", "it"
        )
        assert "run it there, without --server and AUTHZ_SERVER_URL." in sentence


def test_a_stop_and_a_revocation_whose_answers_are_lost_are_done_once(site):
    """A stop that was set is no conflict; a link is to be requested again."""
    create = ("client", "create", "leaking", "--name", "Leaking", "--scope", "mapper/link")
    assert site.local(*create).exit_code == 0
    assert site.local("operator", "create", "lena").exit_code == 0
    for words in (
        ("stop", "client", "leaking", "--reason", "leaked", "--yes"),
        ("revoke", "--client", "leaking", "--yes"),
    ):
        with losing_an_answer(site, requests=3) as (between, lost):
            result = site.remote(*words, url=between.address)
        assert b" 201 " in lost[0]
        assert result.exit_code == 0, result.output
    with losing_an_answer(site) as (between, lost):
        result = site.remote("operator", "enrol", "lena", url=between.address)
    assert result.exit_code == 1, result.output
    assert "the answer that showed it once was lost" in result.stderr
