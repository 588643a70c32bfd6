"""Commands on keys while the Vault refuses connections: the reason is printed once."""

import subprocess
import sys

import pytest

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


def run(folder, *arguments):
    return subprocess.run(
        [sys.executable, "-m", "authz_server", *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture(scope="module")
def installation(tmp_path_factory):
    """An installation with a further ring in a Vault that is away."""
    folder = tmp_path_factory.mktemp("installation")
    assert run(folder, "init", "--development").returncode == 0
    (folder / "token").touch(0o600)
    (folder / "token").write_text("invented", encoding="ascii")
    port = reserve_port()
    with (folder / "authz-server.toml").open("a", encoding="utf-8") as settings:
        settings.write(RING.format(port=port))
    yield folder
    release_port(port)


@pytest.mark.parametrize("command", [["init"], ["tick"], ["doctor"], ["init", "--dry-run"]])
def test_the_reason_is_printed_once(installation, command):
    done = run(installation, "keys", *command)
    assert (done.stdout + done.stderr).count("Connection refused") == 1, done.stdout + done.stderr


def test_with_debug_the_log_is_printed_too(installation):
    done = run(installation, "--debug", "keys", "init")
    assert "the Vault at" in done.stderr
