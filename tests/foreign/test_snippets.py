"""The printed settings at work: nginx with njs, Apache and APIs in Python."""

import asyncio
import subprocess
from collections.abc import Iterator
from functools import partial
from typing import Any

import httpx
import pytest
from django.conf import settings as django_settings
from django.test import RequestFactory

from support.apache import Apache
from support.printed_settings import Answered, Scene, api_port, scene
from support.printed_verifiers import nginx_command, nginx_url, printed_apache, printed_openidc

__all__ = ["api_port", "nginx_command", "nginx_url", "scene"]


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
def nginx(nginx_url):
    """A function of an `Authorization` header: the answer of the API behind nginx."""
    with httpx.Client(base_url=nginx_url) as client:

        def call(authorization: str | None) -> Answered:
            answer = client.post("/", headers=headers_of(authorization))
            known = answer.text if answer.status_code == 200 else None
            return Answered(answer.status_code, answer.headers.get("WWW-Authenticate"), known)

        yield call


@pytest.fixture(scope="module", params=["apache", "mod_auth_openidc"])
def apache(scene, request) -> Iterator[Apache]:
    """Apache with the settings that are printed for a module."""
    running = {
        "apache": partial(printed_apache, scene, "apache", ["oauth2", "rewrite"]),
        "mod_auth_openidc": partial(printed_openidc, scene),
    }
    with running[request.param]() as apache:
        yield apache


CALLS = ("flask_api", "django_api", "fastapi_api", "nginx")


@pytest.fixture(params=CALLS)
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


def test_a_token_that_is_bound_to_a_key_is_refused(scene, call):
    answered = call(f"Bearer {scene.bound_token('mapper/link')}")
    assert answered == (401, 'Bearer error="invalid_token"', None)


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


def test_nothing_is_let_in_while_the_server_is_away(scene, request):
    calls = {name: request.getfixturevalue(name) for name in CALLS}
    token = scene.token("mapper/link")
    scene.server.stop()
    away = {name: call(f"Bearer {token}") for name, call in calls.items()}
    scene.server.start()
    for name, call in calls.items():
        assert (away[name].status >= 500, away[name].client) == (True, None), name
        assert call(f"Bearer {token}").status == 200, name


def test_apache_lets_in_what_the_printed_settings_permit(scene, apache):
    def status(authorization: str | None) -> int:
        url = f"{apache.base_url}/list.txt"
        return httpx.get(url, headers=headers_of(authorization)).status_code

    revoked = scene.token("mapper/link")
    scene.revoke(revoked)
    for accepted in ("mapper/link", "mapper/resolve mapper/link"):
        assert status(f"Bearer {scene.token(accepted)}") == 200, apache.log_path.read_text()
    for refused, expected in (
        (None, {401}),
        ("Bearer invented", {401}),
        (f"Bearer {revoked}", {401}),
        (f"Bearer {scene.token('disburse/disburse')}", {401}),
        (f"Bearer {scene.token('mapper/resolve')}", {401, 403}),
    ):
        assert status(refused) in expected, apache.log_path.read_text()
