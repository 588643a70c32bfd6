"""Commands on keys while the Vault refuses connections: the reason is printed once."""

import pytest

from support.live_server import run_command
from support.ports import release_port, reserve_port

RING = """
[keys.vaults.main]
addresses = ["http://127.0.0.1:{port}"]
[keys.vaults.main.login]
method = "token"
token_file = "token"
[keys.rings.es256]
algorithm = "ES256"
[keys.rings.rs256]
algorithm = "RS256"
[keys.rings.remote]
algorithm = "ES256"
backend = "transit://main/transit/remote"
"""


@pytest.fixture(scope="module")
def installation(tmp_path_factory):
    """An installation with a further ring in a Vault that is away."""
    folder = tmp_path_factory.mktemp("installation")
    status, printed = run_command("init", "--development", directory=folder)
    assert status == 0, printed
    (folder / "token").touch(0o600)
    (folder / "token").write_text("invented", encoding="ascii")
    port = reserve_port()
    with (folder / "authz-server.toml").open("a", encoding="utf-8") as settings:
        settings.write(RING.format(port=port))
    yield folder
    release_port(port)


@pytest.mark.parametrize("command", [["init"], ["tick"], ["doctor"], ["init", "--dry-run"]])
def test_the_reason_is_printed_once(installation, command):
    _, printed = run_command("keys", *command, directory=installation)
    assert printed.count("Connection refused") == 1, printed


@pytest.mark.parametrize("command", ["init", "doctor"])
def test_a_login_that_cannot_be_read_is_named_once(installation, command):
    """The error of the command names it, and no log line besides."""
    token = installation / "token"
    token.rename(installation / "elsewhere")
    try:
        _, printed = run_command("keys", command, directory=installation)
    finally:
        (installation / "elsewhere").rename(token)
    assert printed.count("cannot be read") == 1, printed


def test_with_debug_the_log_is_printed_too(installation):
    _, printed = run_command("--debug", "keys", "init", directory=installation)
    assert "the Vault at" in printed
