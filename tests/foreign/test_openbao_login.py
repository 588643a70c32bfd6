"""Clients log in to OpenBao by access tokens, with the commands of docs/connecting.md."""

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import jwt
import pytest

from support.documents import shell_blocks
from support.live_server import call_cli
from support.openbao_process import DevServer, find_binary
from support.parties import RESOURCE_SERVERS
from support.printed_settings import Scene, scene
from support.printed_verifiers import replaced

__all__ = ["scene"]

Shell = Callable[..., subprocess.CompletedProcess[str]]
Login = Callable[[str], subprocess.CompletedProcess[str]]


def commands(scene: Scene) -> tuple[str, str]:
    """Return the commands of the document for the scene: those of an operator, and the log-in."""
    (block,) = shell_blocks("docs/connecting.md", "## OpenBao and Vault", dialect="sqlite")
    block = replaced(
        block,
        ("https://auth.example.org", 2, scene.server.base_url),
        ("https://mapper.example.org", 1, RESOURCE_SERVERS["mapper"]),
    )
    *prepare, login = block.splitlines(keepends=True)
    return "".join(prepare), login


@pytest.fixture(scope="module")
def shell(scene: Scene) -> Iterator[Shell]:
    """A function that runs commands beside an OpenBao of its own, as its root."""
    with DevServer() as server:
        environment = os.environ | {
            "BAO_ADDR": server.address,
            "BAO_TOKEN": server.token,
            "HOME": str(scene.folder),
            "PATH": f"{Path(find_binary()).parent}:{os.environ['PATH']}",
        }

        def run(text: str, **variables: str) -> subprocess.CompletedProcess[str]:
            return subprocess.run(
                ["sh", "-e", "-c", text],
                env=environment | variables,
                capture_output=True,
                text=True,
                timeout=60,
                check=False,
            )

        yield run


@pytest.fixture(scope="module")
def login(scene: Scene, shell: Shell) -> Login:
    """A function that logs in with a token."""
    prepare, command = commands(scene)
    done = shell(prepare)
    assert done.returncode == 0, done.stderr
    return lambda token: shell(command, TOKEN=token)


def test_a_token_with_the_scope_logs_in(scene: Scene, shell: Shell, login: Login):
    done = login(scene.token("mapper/link"))
    assert done.returncode == 0, done.stderr
    shown = shell("bao token lookup -format=json", BAO_TOKEN=done.stdout.strip()).stdout
    assert f'"display_name": "jwt-{scene.demo.post.id}"' in shown
    assert '"creation_ttl": 900' in shown


def test_other_tokens_are_refused(scene: Scene, login: Login):
    for scope in ("mapper/resolve", "disburse/disburse"):
        assert login(scene.token(scope)).returncode == 2
    head, payload, signature = scene.token("mapper/link").split(".")
    assert login(f"{head}.{payload}.{signature[::-1]}").returncode == 2


def test_a_revoked_key_is_accepted_until_the_configuration_is_written_again(
    scene: Scene, shell: Shell, login: Login
):
    token = scene.token("mapper/link")
    # OpenBao reads the key set at the first log-in.
    assert login(token).returncode == 0
    key = jwt.get_unverified_header(token)["kid"]
    options = ("--yes", "--reason", "a test")
    revoked = call_cli("keys", "revoke", key, *options, config=scene.server.settings_path)
    assert revoked.returncode == 0, revoked.stderr
    assert login(token).returncode == 0
    (configure,) = (line for line in commands(scene)[0].splitlines() if "auth/jwt/config" in line)
    assert shell(configure).returncode == 0
    assert login(token).returncode == 2
