"""A server whose Vault role gives tokens of a few requests: clients notice nothing."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from support.openbao import DevServer
from support.vault_site import VaultFixture

USES = 10


@pytest.fixture
def site(openbao: DevServer, sqlite_url, tmp_path) -> Iterator[VaultFixture]:
    with VaultFixture(tmp_path, sqlite_url, openbao) as site:
        role = f"auth/approle/role/{site.mount}-server"
        site.admin.call("POST", role, {"token_num_uses": USES})
        site.side.end_tokens()
        yield site


def test_every_token_is_issued_and_no_policy_is_blamed(site: VaultFixture):
    site.ask()  # the token that was ended is replaced
    with site.new_records() as records, ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda _: site.ask().status, range(60)))
    assert answers == [200] * 60
    assert [each for each in records() if each["event"] == "key.alarm"] == []
    assert site.readiness()["status"] == "ready"
    assert site.server.log().count(f"is good for {USES} requests") == 1
