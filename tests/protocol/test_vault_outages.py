"""The Vault goes away under requests, in every way that it can, and comes back."""

import json
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from support.claims import header_of
from support.databases import copied_database
from support.openbao import CertificateAuthority, RaftServer
from support.vault_side import audit_device_away, await_that
from support.vault_site import Answer, VaultFixture, verifies

# A call to the Vault takes 1.5 s at most; the rest is what a busy test machine adds.
LIMIT_SECONDS = 3.0
UNTOUCHED_SECONDS = 1.0
#: What is told of first where it is not the outage itself.
ALARMS = {"denying": "vault.denied"}
FAULTS = (
    "sealed",
    "killed",
    "stopped",
    "unreachable",
    "silent",
    "denying",
    "login refused",
    "throttling",
    "audit device",
)


@pytest.fixture(scope="module")
def site(raft_server: RaftServer, request, tmp_path_factory) -> Iterator[VaultFixture]:
    directory = tmp_path_factory.mktemp("site")
    # So short that the server asks the Vault every second what it holds.
    rings = {
        "remote": {"prepublication_seconds": 10},
        "kept": {"backend": "kv://{mount}-kv/kept", "drive": "rotator"},
    }
    keys = {"jwks_maximum_age_seconds": 5}
    with (
        copied_database(request, "sqlite", directory) as url,
        VaultFixture(
            *(directory, url, raft_server),
            rings=rings,
            resource_servers={"custody": "kept"},
            keys=keys,
        ) as site,
    ):
        yield site


@contextmanager
def away(site: VaultFixture, fault: str) -> Iterator[None]:
    vault = site.vault
    blocks = {
        "stopped": vault.paused,
        "denying": site.side.paused_policy,
        "login refused": site.side.without_login,
        "throttling": site.side.throttled,
        "audit device": lambda: audit_device_away(vault),
    }
    if fault in blocks:
        with blocks[fault]():
            yield
        return
    begin, end = {
        "sealed": (vault.seal, vault.unseal),
        "killed": (vault.kill, vault.start),
        "unreachable": (site.proxy.refuse, site.proxy.heal),
        "silent": (site.proxy.silence, site.proxy.heal),
    }[fault]
    begin()
    try:
        yield
    finally:
        end()


def require_unavailable(answer: Answer) -> None:
    assert answer.status == 503, answer.body
    assert 1 <= int(answer.headers["Retry-After"]) <= 20
    assert answer.headers["Cache-Control"] == "no-store"
    assert answer.body["error"] in {"temporarily_unavailable", "server_error"}
    assert "access_token" not in answer.body
    assert answer.seconds < LIMIT_SECONDS


@pytest.mark.timeout(120)
@pytest.mark.parametrize("fault", FAULTS)
def test_an_outage_stops_new_tokens_of_its_ring_and_nothing_else(site: VaultFixture, fault: str):
    """Case G79, Case G80."""
    await_that(lambda: site.ask().status == 200, "the outage before is over", 40)
    before, ended = site.ask().token, site.ask().token
    beside = site.ask("beside/read").token
    jwks, versions = site.fetch_jwks(), site.latest_version("remote")
    site.revoke(ended)
    with site.new_records() as records, away(site, fault):
        await_that(lambda: site.ask().status == 503, "the outage is felt")
        with ThreadPoolExecutor(8) as pool:
            asked = [pool.submit(site.ask) for _ in range(16)]
            # What needs no Vault is answered meanwhile as if nothing were.
            for _ in range(5):
                for party in ("beside", "custody"):
                    token = site.ask(f"{party}/read").token
                    assert verifies(token, jwks.body, f"https://{party}.example")
                for presented, active in ((before, True), (ended, False)):
                    answer = site.introspect(presented)
                    assert (answer.status, answer.body["active"]) == (200, active)
            for answer in asked:
                # A quota lets one through now and then; nothing else does.
                if fault != "throttling" or answer.result().status != 200:
                    require_unavailable(answer.result())
        calm = [
            site.fetch_jwks(),
            site.introspect(beside, "beside"),
            site.revoke(beside),
            site.introspect(beside, "beside"),
        ]
        assert [answer.status for answer in calm] == [200] * 4
        assert calm[0].body == jwks.body
        # Whoever wants the answer signed has to wait for the key, as for a token.
        signed = site.introspect(before, accept="application/token-introspection+jwt")
        assert fault == "throttling" or signed.status == 503
        assert (calm[1].body["active"], calm[3].body["active"]) == (True, False)
        assert max(answer.seconds for answer in calm) < UNTOUCHED_SECONDS
        verify_told(site, ALARMS.get(fault, "backend.down"), records)
        if fault == "login refused":
            # A dead token is not taken for one that may do too little.
            assert "the token is alive" not in str(records())
        # The command asks as the rotator, whom these do not concern.
        usable = fault in {"denying", "login refused"}
        status = site.command("keys", "status", "remote", "--json")
        (told,) = json.loads(status.stdout)["rings"]
        assert told["at_backend"]["usable"] is usable, told["at_backend"]
        assert told["active"]["version"] == 1
    await_that(lambda: site.ask().status == 200, "it recovers unaided", 40)
    assert header_of(site.ask().token)["kid"] == header_of(before)["kid"]
    assert site.introspect(before).body["active"] is True
    await_that(lambda: site.readiness()["status"] == "ready", "it says that it is ready again", 40)
    assert site.metrics()[site.sample("authz_server_key_backend_up", site.backend)] == 1
    # Nobody made a key meanwhile, there or here.
    assert (site.latest_version("remote"), site.fetch_jwks().body) == (versions, jwks.body)


def verify_told(site: VaultFixture, alarm: str, records) -> None:
    """The health listener, the metrics, the audit trail and the log tell of the outage."""
    degraded = "keys:remote its backend does not answer"
    await_that(lambda: degraded in site.readiness().get("degraded", ()), "readiness tells of it")
    assert site.metrics()[site.sample("authz_server_key_backend_up", site.backend)] == 0

    def alarms() -> list[str]:
        return [record["alarm"] for record in records() if record["event"] == "key.alarm"]

    # A process counts first and records then.
    await_that(lambda: alarm in alarms(), "the records tell of it")
    # Three alarms by each of two processes, and again where one call between others succeeds.
    assert len(alarms()) <= 12, "an outage is told of once, not at every request"
    refused = [record for record in records() if record["event"] == "token.refused"]
    # Beyond ten of a kind within a minute, they are counted in one record that comes later.
    assert all(record["reason"] for record in refused)


@pytest.fixture
def tls_site(request, tmp_path) -> Iterator[VaultFixture]:
    """A site whose Vault is reached by TLS."""
    with (
        RaftServer(authority=CertificateAuthority(tmp_path)) as vault,
        copied_database(request, "sqlite", tmp_path) as url,
        VaultFixture(tmp_path, url, vault) as site,
    ):
        yield site


@pytest.mark.timeout(120)
def test_a_vault_with_the_certificate_of_another_authority_gets_nothing(tls_site: VaultFixture):
    """Case G79."""
    site, vault = tls_site, tls_site.vault
    assert site.ask().status == 200
    # A token that was ended is replaced within the request that finds it dead.
    assert site.side.end_tokens() >= 1
    assert site.ask().status == 200
    known = vault.authority
    (site.directory / "other").mkdir()
    certify_anew(vault, CertificateAuthority(site.directory / "other"), site.directory)
    answer = site.ask()
    require_unavailable(answer)
    assert "CERTIFICATE_VERIFY_FAILED" in site.server.log()
    assert site.fetch_jwks().status == 200
    certify_anew(vault, known, site.directory)
    await_that(lambda: site.ask().status == 200, "it recovers unaided", 40)


def certify_anew(vault: RaftServer, authority: CertificateAuthority, folder: Path) -> None:
    """Restart a Vault with a certificate of that authority in the place of its own."""
    vault.kill()
    made, name = authority.certify("another"), f"openbao-{vault.port}"
    for path in (made.certificate_path, made.private_key_path):
        shutil.copyfile(path, folder / f"{name}{path.suffix}")
    vault.authority = authority
    vault.start()
