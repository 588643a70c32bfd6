"""Spring Security's resource server with the printed settings, at work.

Maven fetches what it needs into its own cache; without Maven, this is named as not run.
"""

import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from authz_verifier.probing.attacks import read_sound
from support.live_server import run_cli
from support.printed_settings import Scene, scene
from support.probing import documented, probe
from support.spring import running_spring, spring_program

__all__ = ["scene", "spring_program"]

# The first build fetches some 40 MB.
pytestmark = pytest.mark.timeout(600)

SCOPE = "mapper/link"


@dataclass(frozen=True)
class Apis:
    """The API with each decoder, for the same resource server."""

    default: str
    documented: str


def update(scene: Scene, *options: str) -> None:
    config = scene.server.settings_path
    run = run_cli("resource-server", "update", "mapper", *options, config=config)
    assert run.returncode == 0, run.stderr


def status(url: str, token: str | None) -> int:
    headers = {} if token is None else {"Authorization": f"Bearer {token}"}
    return httpx.post(url, headers=headers, timeout=30).status_code


def token_of_type(scene: Scene, token_type: str | None) -> str:
    """Return a token once the server has read the registration with this `typ`; None: no JWT."""
    deadline = time.monotonic() + 10
    while read_sound(token := scene.token(SCOPE)).header.get("typ") != token_type:
        assert time.monotonic() < deadline
        time.sleep(0.1)
    return token


@pytest.fixture(scope="module")
def apis(scene: Scene, spring_program: Path) -> Iterator[Apis]:
    printed = scene.snippet("spring")
    with ExitStack() as stack:
        profiles = ((), ("documented",))
        started = (
            running_spring(spring_program, scene, printed, SCOPE, *each) for each in profiles
        )
        yield Apis(*map(stack.enter_context, started))


def test_the_decoder_of_spring_boot_needs_the_type_jwt_and_the_documented_one_does_not(scene, apis):
    token = token_of_type(scene, "at+jwt")
    assert status(apis.default, token) == 401
    assert status(apis.documented, token) == 200
    update(scene, "--token-type", "JWT")
    token = token_of_type(scene, "JWT")
    assert status(apis.default, token) == 200
    assert status(apis.documented, token) == 401
    for refused in (None, "invented", token + "x", scene.token("disburse/disburse")):
        assert status(apis.default, refused) == 401
    assert status(apis.default, scene.token("mapper/resolve")) == 403
    # It verifies signatures: a revocation of one token takes effect when the token expires.
    scene.revoke(token)
    assert status(apis.default, token) == 200
    update(scene, "--token-type", "at+jwt")
    token_of_type(scene, "at+jwt")


def test_the_documented_decoder_lets_through_what_the_document_says(scene, apis, tmp_path):
    for refused in (None, "invented", scene.token("disburse/disburse")):
        assert status(apis.documented, refused) == 401
    assert status(apis.documented, scene.token("mapper/resolve")) == 403
    found = probe(scene, apis.documented, tmp_path, "POST")
    assert found == documented("Spring Security, JWT")


def test_introspection_refuses_a_revoked_token_at_once(scene, spring_program, tmp_path):
    update(scene, "--token-format", "reference")
    token = token_of_type(scene, None)
    with running_spring(spring_program, scene, scene.snippet("spring"), SCOPE) as url:
        assert status(url, token) == 200
        for refused in (None, "invented", scene.token("disburse/disburse")):
            assert status(url, refused) == 401
        assert status(url, scene.token("mapper/resolve")) == 403
        scene.revoke(token)
        assert status(url, token) == 401
        scene.server.stop()
        unavailable = status(url, token)
        scene.server.start()
        assert unavailable >= 401
        update(scene, "--token-format", "jwt")
        token_of_type(scene, "at+jwt")
        found = probe(scene, url, tmp_path, "POST")
    assert found == documented("Spring Security, introspection")
