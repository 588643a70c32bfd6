"""The printed settings for HAProxy at work, with the job that fetches its keys."""

import subprocess

import httpx
import pytest

from support.printed_settings import api_port, scene
from support.printed_verifiers import haproxy_command, key_job, running

__all__ = ["api_port", "haproxy_command", "key_job", "scene"]


@pytest.fixture(scope="module")
def haproxy(scene, haproxy_command):
    """A function of an `Authorization` header: the answer of the API behind HAProxy."""
    with (
        running(*haproxy_command, scene.folder / "haproxy.log") as url,
        httpx.Client(base_url=url) as client,
    ):

        def call(authorization: str | None) -> tuple[int, str | None]:
            headers = {"X-Client-Id": "unknown"}
            headers |= {} if authorization is None else {"Authorization": authorization}
            answer = client.post("/", headers=headers)
            return answer.status_code, answer.headers.get("WWW-Authenticate")

        yield call


def test_haproxy_accepts_the_printed_file(haproxy_command):
    command, _ = haproxy_command
    checked = subprocess.run([*command, "-c"], capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stderr
    assert "WARNING" not in checked.stderr


def test_haproxy_checks_the_signature_and_does_not_see_a_revocation(scene, haproxy):
    token = scene.token("mapper/link")
    head, payload, signature = token.split(".")
    altered = ("B" if signature[0] == "A" else "A") + signature[1:]
    assert haproxy(f"Bearer {token}") == (200, None)
    assert haproxy(None) == (401, "Bearer")
    for wrong in (
        "invented",
        f"{head}.{payload}.{altered}",
        f"{head}.{payload}.",
        scene.token("disburse/disburse"),
    ):
        assert haproxy(f"Bearer {wrong}") == (401, "Bearer")
    refused = haproxy(f"Bearer {scene.token('mapper/resolve')}")
    assert refused == (403, 'Bearer error="insufficient_scope"')
    scene.revoke(token)
    assert haproxy(f"Bearer {token}") == (200, None)


def test_the_job_for_haproxy_reports_whether_a_key_changed(scene, key_job, haproxy_command):
    del haproxy_command
    assert subprocess.run(key_job, check=False).returncode == 3
    (scene.folder / "1.pem").write_text("another key")
    assert subprocess.run(key_job, check=False).returncode == 0
