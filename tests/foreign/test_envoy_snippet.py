"""The printed settings for Envoy at work, and what they let through."""

import time

import httpx
import pytest

from support.live_server import call_cli
from support.printed_settings import api_port, scene
from support.printed_verifiers import ENVOY_KEYS_SECONDS, envoy_url
from support.probing import documented, probe

__all__ = ["api_port", "envoy_url", "scene"]


def call(url: str, token: str | None, scheme: str = "Bearer") -> httpx.Response:
    headers = {} if token is None else {"Authorization": f"{scheme} {token}"}
    return httpx.post(url, headers=headers)


def test_envoy_lets_through_what_the_document_says(scene, envoy_url, tmp_path):
    assert probe(scene, envoy_url, tmp_path, "POST") == documented("Envoy")


def test_envoy_checks_the_signature_and_does_not_see_a_revocation(scene, envoy_url):
    token = scene.token("mapper/link")
    head, payload, signature = token.split(".")
    altered = ("B" if signature[0] == "A" else "A") + signature[1:]
    assert call(envoy_url, token).status_code == 200
    for refused in (None, "invented", f"{head}.{payload}.{altered}", f"{head}.{payload}."):
        answer = call(envoy_url, refused)
        assert answer.status_code == 401, answer.text
        assert answer.headers["WWW-Authenticate"].startswith("Bearer")
    for scope in ("disburse/disburse", "mapper/resolve"):
        assert call(envoy_url, scene.token(scope)).status_code == 403
    scene.revoke(token)
    assert call(envoy_url, token).status_code == 200


@pytest.mark.parametrize("name", ["access_token", "token"])
def test_envoy_reads_no_token_from_a_url(scene, envoy_url, name):
    """URLs are logged: RFC 9700, 4.3.2."""
    token = scene.token("mapper/link")
    assert call(f"{envoy_url}/?{name}={token}", None).status_code == 401


@pytest.mark.parametrize("scheme", ["Bearer", "DPoP"])
def test_envoy_refuses_a_token_that_is_bound_to_a_key(scene, envoy_url, scheme):
    """Envoy checks no proof, so a stolen token would be accepted (RFC 9449, 7.2)."""
    token = scene.bound_token("mapper/link")
    assert call(envoy_url, token, scheme).status_code in {401, 403}


def test_envoy_accepts_the_key_of_an_emergency_until_it_fetches_the_keys_again(scene, envoy_url):
    token = scene.token("mapper/link")
    assert call(envoy_url, token).status_code == 200
    revoked = call_cli(
        *("keys", "revoke", "es256", "--reason", "the key leaked", "--yes"),
        config=scene.server.settings_path,
    )
    assert revoked.returncode == 0, revoked.stderr
    deadline = time.monotonic() + ENVOY_KEYS_SECONDS + 5
    while call(envoy_url, token).status_code == 200:
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert call(envoy_url, scene.token("mapper/link")).status_code == 200
