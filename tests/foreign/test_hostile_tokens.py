"""Tokens that the printed settings of nginx, HAProxy and Apache accept, and for how long.

The tables of docs/connecting.md are held to what is found here.
"""

import subprocess
import time
from collections.abc import Iterator

import httpx
import pytest

from support.live_server import call_cli
from support.printed_settings import Scene, api_port, scene
from support.printed_verifiers import (
    haproxy_command,
    key_job,
    nginx_command,
    nginx_url,
    printed_apache,
    printed_openidc,
    running,
)
from support.probing import documented, probe

__all__ = ["api_port", "haproxy_command", "key_job", "nginx_command", "nginx_url", "scene"]
#: Seconds for which Apache uses an answer here, in place of the printed ten.
CACHED = 2


@pytest.fixture(scope="module")
def mod_oauth2(scene: Scene) -> Iterator[str]:
    shortened = ("expiry=10", 1, f"expiry={CACHED}")
    with printed_apache(scene, "apache", ["oauth2", "rewrite"], shortened) as apache:
        yield f"{apache.base_url}/list.txt"


@pytest.fixture(scope="module")
def mod_auth_openidc(scene: Scene) -> Iterator[str]:
    shortened = ("IntrospectionInterval 10", 1, f"IntrospectionInterval {CACHED}")
    with printed_openidc(scene, shortened) as apache:
        yield f"{apache.base_url}/list.txt"


@pytest.fixture
def haproxy(scene, key_job, haproxy_command) -> Iterator[str]:
    subprocess.run(key_job, check=False)
    with running(*haproxy_command, scene.folder / "haproxy.log") as url:
        yield url


#: The fixtures of the verifiers that query the server, by their names in the document.
ASKING = {
    "nginx with njs": "nginx_url",
    "mod_oauth2": "mod_oauth2",
    "mod_auth_openidc": "mod_auth_openidc",
}


@pytest.fixture(scope="module")
def asking(request) -> dict[str, str]:
    """The addresses of the verifiers that query the server."""
    return {name: request.getfixturevalue(fixture) for name, fixture in ASKING.items()}


@pytest.mark.parametrize(("verifier", "fixture"), [*ASKING.items(), ("HAProxy", "haproxy")])
def test_each_lets_through_what_the_document_says(scene, tmp_path, request, verifier, fixture):
    url = request.getfixturevalue(fixture)
    found = probe(scene, url, tmp_path, method_for(url))
    assert found == documented(verifier)


def method_for(url: str) -> str:
    """Return the method for an API, or for a file behind Apache."""
    return "GET" if url.endswith(".txt") else "POST"


def status(url: str, token: str) -> int:
    headers = {"Authorization": f"Bearer {token}"}
    return httpx.request(method_for(url), url, headers=headers).status_code


def accepted_for(urls: dict[str, str], token: str) -> dict[str, float]:
    """Return after how many seconds each refuses a token."""
    started, found = time.monotonic(), {}
    while len(found) < len(urls):
        for name, url in urls.items():
            if name not in found and status(url, token) != 200:
                found[name] = time.monotonic() - started
        assert time.monotonic() - started < CACHED + 5, found
        time.sleep(0.05)
    return found


def test_a_revoked_token_is_accepted_while_an_answer_about_it_is_kept(
    scene, asking, haproxy, record_property
):
    token = scene.token("mapper/link")
    for url in (*asking.values(), haproxy):
        assert status(url, token) == 200
    scene.revoke(token)
    found = accepted_for(asking, token)
    for name, seconds in found.items():
        record_property(f"revoked token accepted, {name}", f"{seconds:.1f} s")
    assert found.pop("nginx with njs") < 1
    for seconds in found.values():
        assert CACHED - 1.5 < seconds < CACHED + 1.5
    assert status(haproxy, token) == 200


def test_the_key_of_an_emergency_is_accepted_until_the_answer_or_the_file_is_replaced(
    scene, asking, haproxy_command, key_job
):
    token = scene.token("mapper/link")
    log = scene.folder / "haproxy.log"
    with running(*haproxy_command, log) as haproxy:
        for url in (*asking.values(), haproxy):
            assert status(url, token) == 200
        revoked = call_cli(
            *("keys", "revoke", "es256", "--reason", "the key leaked", "--yes"),
            config=scene.server.settings_path,
        )
        assert revoked.returncode == 0, revoked.stderr
        found = accepted_for(asking, token)
        assert found["nginx with njs"] < 3
        assert max(found.values()) < CACHED + 3
        assert status(haproxy, token) == 200
    assert subprocess.run(key_job, check=False).returncode == 0
    with running(*haproxy_command, log) as haproxy:
        assert status(haproxy, token) == 401
        assert status(haproxy, scene.token("mapper/link")) == 200
