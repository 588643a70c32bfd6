"""A server that starts while its Vault is away: it issues nothing, makes no key, and waits."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest
from hvac.exceptions import InvalidPath

from support.openbao import RaftServer
from support.vault_side import await_that
from support.vault_site import VaultFixture

RINGS = {"remote": {"prepublication_seconds": 10, "drive": "self"}}
KEYS = {"jwks_maximum_age_seconds": 5}


@pytest.fixture
def make_site(raft_server: RaftServer, tmp_path, sqlite_url):
    """A function of rings that gives a prepared site whose server is not started."""

    def make(**rings) -> VaultFixture:
        return VaultFixture(tmp_path, sqlite_url, raft_server, rings=RINGS | rings, keys=KEYS)

    return make


def restart_without_vault(site: VaultFixture, fault: str, look: Callable[[], None]) -> None:
    """Start the server while its Vault is away; `look`, bring it back, await readiness."""
    site.server.stop()
    {"unreachable": site.proxy.refuse, "silent": site.proxy.silence}[fault]()

    def look_and_heal() -> None:
        try:
            look()
        finally:
            site.proxy.heal()

    with ThreadPoolExecutor(1) as pool:
        # Beside: the server ends with the thread that starts it, and that thread waits for it.
        looking = pool.submit(look_and_heal)
        site.server.start()
        looking.result()


def health(site: VaultFixture) -> dict:
    try:
        return site.readiness()
    except httpx.TransportError:
        return {}


def hear(site: VaultFixture, said: list[dict]) -> dict:
    """Return what the health listener says, and remember it."""
    said.append(health(site))
    return said[-1]


@pytest.mark.timeout(120)
@pytest.mark.parametrize("fault", ["unreachable", "silent"])
def test_a_server_with_no_other_keys_is_not_ready(make_site, fault: str):
    """Case G82."""
    with make_site(local=None) as site:
        token, jwks = site.ask().token, site.fetch_jwks().body
        versions = site.latest_version("remote")

        def look() -> None:
            reasons = {"keys": "no ring can sign: remote"}
            told = {"status": "not ready", "failed": ["keys"], "reasons": reasons}
            said = []
            await_that(lambda: hear(site, said) == told, "it says that it is not ready", 40)
            # A balancer that believed a first moment's guess would send it clients.
            assert {each.get("status") for each in said} <= {None, "not ready"}
            answer = site.ask()
            assert (answer.status, int(answer.headers["Retry-After"]) >= 1) == (503, True)
            # What needs no Vault is there from the first moment.
            assert site.fetch_jwks().body == jwks
            assert site.introspect(token).body["active"] is True
            assert site.revoke(token).status == 200
            assert site.introspect(token).body["active"] is False

        restart_without_vault(site, fault, look)
        assert await_that(lambda: site.ask().status == 200, "it issues unaided") < 20
        assert site.latest_version("remote") == versions
        assert site.fetch_jwks().body == jwks


def test_a_server_with_other_keys_issues_from_them(make_site):
    """Case G79, Case G82."""
    with make_site() as site:
        degraded = ["keys:remote its backend does not answer"]

        def look() -> None:
            await_that(lambda: health(site).get("degraded") == degraded, "it is of use", 40)
            assert (site.ask().status, site.ask("beside/read").status) == (503, 200)

        restart_without_vault(site, "unreachable", look)
        await_that(lambda: site.ask().status == 200, "it issues unaided")


def test_a_vault_that_has_lost_its_keys_is_given_no_new_ones(make_site):
    """Case G82."""
    with make_site() as site:
        site.admin.configure_key("remote", mount=site.mount, deletion_allowed=True)
        before = site.fetch_jwks().body
        with site.new_records() as records:
            site.admin.call("DELETE", f"{site.mount}/keys/remote")
            await_that(lambda: "backend.disabled" in str(records()), "an alarm is raised")
        answer = site.ask()
        assert (answer.status, "Retry-After" in answer.headers) == (503, True)
        assert site.fetch_jwks().body == before
        with pytest.raises(InvalidPath):
            site.latest_version("remote")
