"""A key that is no longer trusted is withdrawn by one command, on every node, with or without the
Vault."""

import re
import time
from base64 import b64encode
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from hvac.exceptions import VaultError

from support.claims import header_of
from support.databases import copied_database
from support.openbao import DevServer
from support.vault_side import await_that
from support.vault_site import VaultFixture

NODES = 2
REFRESH_SECONDS = 1
VAULT_TOKEN = re.compile(r"\b(hv)?s\.[A-Za-z0-9]{24}")
PRIVATE_KEY = re.compile(r'PRIVATE KEY|"d": ?"')


@pytest.fixture(params=["sqlite", "postgresql"])
def site(openbao: DevServer, request, tmp_path) -> Iterator[VaultFixture]:
    # The environment of a server that is forked is that of the tests.
    dialect, _, unforked = request.param.partition(" ")
    with (
        copied_database(request, dialect, tmp_path) as url,
        VaultFixture(tmp_path, url, openbao, nodes=NODES, unforked=bool(unforked)) as site,
    ):
        yield site


def may_sign(site: VaultFixture, version: int) -> bool:
    """Tell whether root itself could still sign with a version."""
    body = {"input": b64encode(b"forged").decode(), "key_version": version}
    with suppress(VaultError):
        return bool(site.admin.call("POST", f"{site.mount}/sign/remote", body))
    return False


@pytest.mark.timeout(120)
@pytest.mark.parametrize("site", ["sqlite unforked", "postgresql"], indirect=True)
def test_a_compromised_key_is_withdrawn_by_one_command(site: VaultFixture, record_property):
    """Case G83, Case G85."""
    tokens = [site.ask(node=node).token for node in range(NODES)]
    kid = header_of(tokens[0])["kid"]
    order = ("keys", "revoke", kid, "--reason", "seen on a paste site")
    planned = site.command_json(*order, "--dry-run")
    assert (planned["written"], planned["impact"]["tokens"] >= NODES) == (False, True)
    assert site.introspect(tokens[0]).body["active"] is True
    revoked = site.command_json(*order)
    done = time.monotonic()
    assert (revoked["written"], revoked["failures"]) == (True, [])
    for node in range(NODES):
        await_that(
            lambda node=node: (
                not any(site.introspect(token, node=node).body["active"] for token in tokens)
            ),
            "introspection refuses the key's tokens",
            REFRESH_SECONDS + 1,
        )
        jwks = site.fetch_jwks(node)
        assert kid not in [key["kid"] for key in jwks.body["keys"]]
        assert jwks.headers["Cache-Control"] == "public, max-age=60"
        fresh = site.ask(node=node).token
        assert header_of(fresh)["kid"] == site.ring("remote").keys[1].kid
        assert site.introspect(fresh, node=node).body["active"] is True
    record_property("seconds until in force everywhere", time.monotonic() - done)
    # The Vault refuses it too, whoever asks: what was stolen was not the key itself.
    assert (may_sign(site, 1), may_sign(site, 2)) == (False, True)
    changes = [record for record in site.records() if record["event"] == "key.changed"]
    (recorded,) = [record for record in changes if record["action"] == "key.revoked"]
    assert (recorded["kid"], recorded["reason"]) == (kid, "seen on a paste site")
    assert recorded["actor"].startswith("operator:")
    again = site.command(*order)
    assert again.returncode != 0
    assert "not in the JWKS" in again.stderr
    verify_no_secret_is_in_clear(site)


def verify_no_secret_is_in_clear(site: VaultFixture) -> None:
    """Search the database, logs, and what the system shows of each process."""
    texts = {path.name: path.read_text(errors="replace") for path in site.output_paths()}
    for path in Path(site.directory).glob("*.sqlite*"):
        texts[path.name] = path.read_bytes().decode("latin-1")
    for server in site.servers:
        for process_id in (server.process_id, *server.worker_process_ids()):
            for name in ("cmdline", "environ"):
                path = Path(f"/proc/{process_id}/{name}")
                texts[str(path)] = path.read_bytes().decode("latin-1")
    assert len(texts) >= NODES * 4 + 2
    site.watch.verify_absent(texts.items())
    for name, text in texts.items():
        assert VAULT_TOKEN.search(text) is None, name
        assert PRIVATE_KEY.search(text) is None, name


@pytest.mark.timeout(120)
def test_a_key_is_withdrawn_while_the_vault_is_away(site: VaultFixture):
    """Case G79, Case G83."""
    token = site.ask().token
    kid = header_of(token)["kid"]
    site.proxy.refuse()
    revoked = site.command("keys", "revoke", kid, "--reason", "a drill", "--json")
    assert revoked.returncode == 3, revoked.stderr
    assert "not fenced" in revoked.stderr
    for node in range(NODES):
        await_that(
            lambda node=node: site.introspect(token, node=node).body["active"] is False,
            "introspection refuses the key's tokens",
            REFRESH_SECONDS + 1,
        )
        assert kid not in site.published_kids(node)
    assert site.ask().status == 503
    site.proxy.heal()
    await_that(lambda: site.ask().status == 200, "the standby signs")
    # What could not be done in the Vault is done by the next tick.
    assert may_sign(site, 1) is True
    assert site.command("keys", "tick").returncode == 0
    assert may_sign(site, 1) is False
