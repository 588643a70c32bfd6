"""Commands at a Vault that has not caught up with each of their logins (412)."""

from time import monotonic

import pytest

from support.vault_installation import VaultInstallation
from support.vault_proxy import ProxyAnswer, VaultProxy

LAG_SECONDS = 0.15


@pytest.fixture
def lagging(cli, bao_mount, tmp_path):
    """The command line at a Vault whose node lags behind for a while after each login."""
    until = 0.0

    def answer(_method: str, path: str) -> ProxyAnswer | None:
        nonlocal until
        if path.endswith("/login"):
            until = monotonic() + LAG_SECONDS
        elif monotonic() < until:
            return ProxyAnswer(412, {"errors": ["required index state not present"]})
        return None

    bao_mount.admin.create_key("oidc-es256", mount=bao_mount.mount)
    with VaultProxy(bao_mount.server.address) as proxy:
        proxy.answer = answer
        made = VaultInstallation(
            proxy.address, bao_mount.admin, bao_mount.mount, tmp_path, drive="self"
        )
        cli.config = made.settings(cli.database_url)
        yield cli


def test_no_command_fails_by_it(lagging):
    lagging.must("keys", "init")
    lagging.must("keys", "rotate", "--reason", "CHG-1")
    lagging.must("keys", "tick")
    (ring,) = lagging.json("keys", "status")["rings"]
    assert ring["at_backend"]["usable"] is True
    assert [key["state"] for key in ring["keys"]] == ["active", "published", "published"]
    done = lagging.run("keys", "revoke", ring["keys"][0]["kid"], "--reason", "INC-1")
    assert done.exit_code == 0, done.output
    assert "NOT DONE" not in done.output
    assert "nothing below version 2 signs any more" in done.output
    assert lagging.run("keys", "doctor").exit_code == 0
