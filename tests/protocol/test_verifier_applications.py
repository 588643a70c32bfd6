"""authz-verifier in Flask, FastAPI and Django against a real server: rotation, revocation, outage.

Each application uses one mode: Flask verifies offline, FastAPI also queries the server for money,
Django queries the server for every token.
"""

import asyncio
import json
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import django
import fastapi
import flask
import httpx
import pytest
from django.conf import settings as django_settings
from django.core.handlers.wsgi import WSGIHandler
from django.http import JsonResponse
from django.urls import path as django_path
from werkzeug.serving import make_server

from authz_server.settings import load_settings
from authz_verifier import AsyncVerifier, Verifier, current_token
from authz_verifier import django as django_skin
from authz_verifier import flask as flask_skin
from authz_verifier import starlette as starlette_skin
from authz_verifier.cli import main
from support.databases import copied_database
from support.live_server import LiveServer, call_cli
from support.parties import RESOURCE_SERVERS, Demo, Parties, make_demo
from support.secrets_watch import SecretsWatch
from support.settings_file import write_settings

AUDIENCE = RESOURCE_SERVERS["mapper"]
LINK, RESOLVE = "mapper/link", "mapper/resolve"
#: The maximum age of the JWKS, which bounds how long a revoked key is accepted offline.
JWKS_SECONDS = 5
Call = Callable[[str, str], httpx.Response]


@dataclass(frozen=True)
class Scene:
    server: LiveServer
    demo: Demo
    folder: Path

    @property
    def issuer(self) -> str:
        return self.server.base_url

    def token(self, scope: str = f"{LINK} {RESOLVE}") -> str:
        form = {"grant_type": "client_credentials", "scope": scope} | self.demo.post.form()
        answer = httpx.post(f"{self.issuer}/oauth2/token", data=form)
        return answer.json()["access_token"]

    def revoke(self, token: str):
        form = {"token": token} | self.demo.post.form()
        assert httpx.post(f"{self.issuer}/oauth2/revoke", data=form).status_code == 200

    def keys(self, *arguments: str):
        run = call_cli("keys", *arguments, "--yes", config=self.server.settings_path)
        assert run.returncode == 0, run.stderr

    @property
    def introspection(self) -> dict[str, str]:
        return {"client_id": self.demo.mapper.id, "client_secret": self.demo.mapper.secret}


@pytest.fixture(scope="module")
def scene(request, tmp_path_factory) -> Iterator[Scene]:
    """A live server on SQLite: what an API makes of it does not depend on the database."""
    folder = tmp_path_factory.mktemp("verifier")
    with copied_database(request, "sqlite", folder) as url:

        def write(server) -> Path:
            issuer = f"http://127.0.0.1:{server['port']}"
            keys = {"jwks_maximum_age_seconds": JWKS_SECONDS}
            return write_settings(folder, url, {"issuer": issuer, "server": server, "keys": keys})

        server = LiveServer(write, folder)
        parties = Parties(load_settings(server.settings_path), SecretsWatch())
        parties.create_first_keys()
        demo = make_demo(parties)
        with server:
            yield Scene(server, demo, folder)


def make_flask(verifier: Verifier) -> flask.Flask:
    app = flask.Flask("jwt")
    flask_skin.protect(app, verifier)

    @app.post("/mapper/link")
    @flask_skin.requires(LINK)
    def link():
        return {"client": current_token().client_id}

    @app.post("/mapper/resolve")
    @flask_skin.requires(RESOLVE)
    def resolve():
        return {"client": current_token().client_id}

    return app


def make_fastapi(verifier: AsyncVerifier) -> fastapi.FastAPI:
    app = fastapi.FastAPI()
    starlette_skin.protect(app, verifier)

    @app.post("/mapper/link")
    @starlette_skin.requires(LINK)
    async def link():
        return {"client": current_token().client_id}

    @app.post("/mapper/resolve")
    @starlette_skin.requires(RESOLVE)
    def resolve():
        return {"client": current_token().client_id}

    return app


def make_django(verifier: Verifier) -> WSGIHandler:
    if not django_settings.configured:
        django_settings.configure(ALLOWED_HOSTS=["*"])
        django.setup()

    @django_skin.requires(LINK)
    def link(_):
        return JsonResponse({"client": current_token().client_id})

    @django_skin.requires(RESOLVE)
    async def resolve(_):
        return JsonResponse({"client": current_token().client_id})

    django_settings.AUTHZ_VERIFIER = verifier
    urls = ModuleType("urls")
    urls.urlpatterns = [django_path("mapper/link", link), django_path("mapper/resolve", resolve)]
    django_settings.ROOT_URLCONF = urls
    django.urls.clear_url_caches()
    return WSGIHandler()


def headers(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


@pytest.fixture
def calls(scene) -> Iterator[dict[str, Call]]:
    """For each mode, a function of path and token: the application's response."""
    offline = Verifier(scene.issuer, AUDIENCE)
    hybrid = AsyncVerifier(
        scene.issuer, AUDIENCE, mode="hybrid", money_scopes=[LINK], **scene.introspection
    )
    asking = Verifier(scene.issuer, AUDIENCE, mode="introspection", **scene.introspection)
    by_flask, by_django = (
        httpx.Client(transport=httpx.WSGITransport(app), base_url=AUDIENCE)
        for app in (make_flask(offline), make_django(asking))
    )
    application = make_fastapi(hybrid)

    async def send(path: str, token: str) -> httpx.Response:
        transport = httpx.ASGITransport(application)
        async with httpx.AsyncClient(transport=transport, base_url=AUDIENCE) as client:
            return await client.post(path, headers=headers(token))

    with asyncio.Runner() as runner, by_flask, by_django, offline, asking:
        yield {
            "jwt": lambda path, token: by_flask.post(path, headers=headers(token)),
            "hybrid": lambda path, token: runner.run(send(path, token)),
            "introspection": lambda path, token: by_django.post(path, headers=headers(token)),
        }
        runner.run(hybrid.aclose())


def statuses(calls: dict[str, Call], token: str, path: str = "/mapper/link") -> dict[str, int]:
    return {mode: call(path, token).status_code for mode, call in calls.items()}


def accepted_for(call: Call, token: str, limit: float) -> float:
    """Return after how many seconds the application refuses a token."""
    started = time.monotonic()
    while call("/mapper/link", token).status_code == 200:
        assert time.monotonic() - started < limit
        time.sleep(0.05)
    return time.monotonic() - started


def test_tokens_with_and_without_the_scope(scene, calls):
    for path in ("/mapper/link", "/mapper/resolve"):
        assert set(statuses(calls, scene.token(), path).values()) == {200}
    assert set(statuses(calls, scene.token(RESOLVE)).values()) == {403}
    assert set(statuses(calls, scene.token("disburse/disburse")).values()) == {401}


def test_a_revoked_token_is_refused_by_the_modes_that_query_the_server(scene, calls):
    token = scene.token()
    assert set(statuses(calls, token).values()) == {200}
    scene.revoke(token)
    assert statuses(calls, token) == {"jwt": 200, "hybrid": 401, "introspection": 401}
    other = statuses(calls, token, "/mapper/resolve")
    assert other == {"jwt": 200, "hybrid": 200, "introspection": 401}


def test_tokens_stay_valid_through_a_rotation(scene, calls):
    before = scene.token()
    assert set(statuses(calls, before).values()) == {200}
    scene.keys("rotate", "es256")
    assert set(statuses(calls, before).values()) == {200}
    assert set(statuses(calls, scene.token()).values()) == {200}


def test_an_emergency_is_noticed_within_the_bound_of_each_mode(scene, calls, record_property):
    before = scene.token()
    assert set(statuses(calls, before).values()) == {200}
    scene.keys("revoke", "es256", "--reason", "the key leaked")
    limits = {"introspection": 3, "hybrid": 3, "jwt": JWKS_SECONDS + 3}
    measured = {mode: accepted_for(calls[mode], before, limits[mode]) for mode in limits}
    for mode, seconds in measured.items():
        record_property(f"revoked key accepted, {mode}", f"{seconds:.1f} s")
    assert set(statuses(calls, scene.token()).values()) == {200}


def test_an_outage_stops_only_the_modes_that_query_the_server(scene, calls):
    token = scene.token()
    assert set(statuses(calls, token).values()) == {200}
    scene.server.stop()
    try:
        assert statuses(calls, token) == {"jwt": 200, "hybrid": 503, "introspection": 503}
        assert calls["hybrid"]("/mapper/resolve", token).status_code == 200
    finally:
        scene.server.start()
    assert set(statuses(calls, token).values()) == {200}


@pytest.mark.parametrize("mode", ["jwt", "hybrid"])
def test_the_probe_finds_what_each_mode_accepts(scene, tmp_path, capsys, mode):
    settings = {"mode": mode, "money_scopes": [LINK]} if mode == "hybrid" else {}
    credentials = scene.introspection if mode == "hybrid" else {}
    secret = tmp_path / "client.secret"
    secret.write_text(scene.demo.post.secret)
    with Verifier(scene.issuer, AUDIENCE, **settings, **credentials) as verifier:
        server = make_server("127.0.0.1", 0, make_flask(verifier), threaded=True)
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        url = f"http://127.0.0.1:{server.server_port}/mapper/link"
        try:
            status = main(
                [
                    *("probe", url, "--method", "POST", "--token-from", "client"),
                    *("--issuer", scene.issuer, "--client-id", scene.demo.post.id),
                    *("--client-secret-file", str(secret), "--scope", LINK, "--format", "json"),
                ]
            )
        finally:
            server.shutdown()
            thread.join()
            server.server_close()
    report = json.loads(capsys.readouterr().out)
    accepted = [each["name"] for each in report["attacks"] if each["verdict"] != "refused"]
    assert accepted == (["revoked a moment ago"] if mode == "jwt" else [])
    assert status == (1 if mode == "jwt" else 0)
    assert sum(each["group"] == "proof" for each in report["attacks"]) > 40
