"""The printed settings for Dovecot at work: users of IMAP log in with access tokens."""

import json
import re
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import jwt
import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from requests.certs import where

from support.dovecot import Dovecot, dovecot
from support.live_server import call_cli
from support.parties import RESOURCE_SERVERS
from support.printed_settings import Scene, scene
from support.printed_verifiers import replaced
from support.source_tree import ROOT

__all__ = ["scene"]


@pytest.fixture(scope="module")
def mail(scene: Scene) -> Iterator[Dovecot]:
    """Dovecot with the printed settings and the secret of the resource server."""
    settings = replaced(
        scene.snippet("dovecot"),
        ("mapper:SECRET@", 1, f"mapper:{scene.demo.mapper.secret}@"),
        ("/etc/ssl/certs/ca-certificates.crt", 1, where()),
    )
    with tempfile.TemporaryDirectory() as place:
        # Other users run its parts.
        Path(place).chmod(0o755)
        with dovecot(Path(place), settings) as server:
            yield server


@pytest.mark.parametrize("mechanism", ["OAUTHBEARER", "XOAUTH2"])
def test_the_client_of_a_token_with_the_scope_logs_in(scene, mail, mechanism):
    for scope in ("mapper/link", "mapper/resolve mapper/link"):
        accepted = mail.log_in(scene.demo.post.id, scene.token(scope), mechanism)
        assert accepted, mail.log_path.read_text()


@pytest.mark.parametrize("mechanism", ["OAUTHBEARER", "XOAUTH2"])
def test_other_tokens_and_other_users_do_not_log_in(scene, mail, mechanism):
    token, user = scene.token("mapper/link"), scene.demo.post.id
    for refused in (
        "invented",
        token + "x",
        scene.token("disburse/disburse"),
        scene.token("mapper/resolve"),
        scene.bound_token("mapper/link"),
    ):
        assert not mail.log_in(user, refused, mechanism)
    assert not mail.log_in(scene.demo.basic.id, token, mechanism)
    assert mail.log_in(user, token, mechanism), mail.log_path.read_text()


def run(scene: Scene, *command: str) -> str:
    """Run a command on the server; return its output."""
    done = call_cli(*command, config=scene.server.settings_path)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_resource_server_whose_id_has_a_colon(scene):
    """Dovecot's process ends at a user name with a colon. Case A8."""
    name, scope = ("--name", "Mail"), ("--scope", "mail/read")
    identifier = ("--identifier", "https://mail.example.org")
    run(scene, "scope", "add", "mail/read")
    mail_id = "urn:mail/v1@x"
    made = run(scene, "resource-server", "create", mail_id, *name, *identifier, *scope, "--json")
    client = json.loads(run(scene, "client", "create", *name, *scope, "--json"))
    settings = replaced(
        scene.snippet("dovecot", mail_id),
        (":SECRET@", 1, f":{json.loads(made)['secret']}@"),
        ("/etc/ssl/certs/ca-certificates.crt", 1, where()),
    )
    form = {"grant_type": "client_credentials", "scope": "mail/read"}
    form |= {"client_id": client["id"], "client_secret": client["secret"]}
    deadline = time.monotonic() + 30
    while (answer := httpx.post(f"{scene.server.base_url}/oauth2/token", data=form)).is_error:
        assert time.monotonic() < deadline, answer.text
        time.sleep(0.1)
    with tempfile.TemporaryDirectory() as place:
        # Other users run its parts.
        Path(place).chmod(0o755)
        with dovecot(Path(place), settings) as server:
            accepted = server.log_in(client["id"], answer.json()["access_token"], "OAUTHBEARER")
            assert accepted, server.log_path.read_text()


@pytest.fixture
def local(scene: Scene) -> Iterator[tuple[Dovecot, Path]]:
    """Dovecot with the documented settings for signatures, and the folder of the keys."""
    text = (ROOT / "docs" / "connecting.md").read_text(encoding="utf-8")
    found = re.findall(r"^```text\n(introspection_mode.*?)^```$", text, re.MULTILINE | re.DOTALL)
    (block,) = found
    changed = call_cli(
        *("resource-server", "update", "mapper", "--token-type", "JWT"),
        config=scene.server.settings_path,
    )
    assert changed.returncode == 0, changed.stderr
    while jwt.get_unverified_header(scene.token("mapper/link"))["typ"] != "JWT":
        time.sleep(0.05)
    keys = httpx.get(f"{scene.server.base_url}/.well-known/jwks.json").json()["keys"]
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        folder.chmod(0o755)
        files = folder / "keys" / "default" / "ES256"
        files.mkdir(parents=True)
        for jwk in keys:
            public = jwt.PyJWK(jwk).key.public_bytes(
                Encoding.PEM, PublicFormat.SubjectPublicKeyInfo
            )
            (files / jwk["kid"]).write_bytes(public)
        settings = replaced(
            block,
            ("/etc/dovecot/keys", 1, f"{place}/keys"),
            ("https://auth.example.org", 1, scene.server.base_url),
            ("https://mapper.example.org", 1, RESOURCE_SERVERS["mapper"]),
        )
        with dovecot(folder, settings) as server:
            yield server, files


def test_by_signature_a_key_is_used_until_its_file_is_gone_and_dovecot_reloads(scene, local):
    mail, files = local
    user, token = scene.demo.post.id, scene.token("mapper/link")
    assert mail.log_in(user, token), mail.log_path.read_text()
    head, payload, signature = token.split(".")
    altered = ("B" if signature[0] == "A" else "A") + signature[1:]
    for refused in (
        "invented",
        f"{head}.{payload}.{altered}",
        f"{head}.{payload}.",
        scene.token("disburse/disburse"),
        scene.token("mapper/resolve"),
    ):
        assert not mail.log_in(user, refused)
    assert not mail.log_in(scene.demo.basic.id, token)
    assert mail.log_in(user, scene.bound_token("mapper/link"))
    scene.revoke(token)
    assert mail.log_in(user, token)
    (files / jwt.get_unverified_header(token)["kid"]).unlink()
    assert mail.log_in(user, token)
    mail.reload()
    deadline = time.monotonic() + 60
    while mail.log_in(user, token):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_no_token_logs_in_when_it_or_its_key_is_revoked_or_the_server_is_away(scene, mail):
    user, token = scene.demo.post.id, scene.token("mapper/link")
    assert mail.log_in(user, token)
    scene.revoke(token)
    assert not mail.log_in(user, token)
    token = scene.token("mapper/link")
    assert mail.log_in(user, token)
    scene.server.stop()
    away = mail.log_in(user, token)
    scene.server.start()
    assert not away
    assert mail.log_in(user, token)
    revoked = call_cli(
        *("keys", "revoke", "es256", "--reason", "the key leaked", "--yes"),
        config=scene.server.settings_path,
    )
    assert revoked.returncode == 0, revoked.stderr
    deadline = time.monotonic() + 60
    while mail.log_in(user, token):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert mail.log_in(user, scene.token("mapper/link"))
