"""Applications of several parts: mounted ones, classes, websockets, bodies, a wrong order."""

import asyncio
import json

import django
import fastapi
import flask
import httpx
import pytest
from django.conf import settings as django_settings
from django.http import JsonResponse
from django.test import RequestFactory
from django.utils.decorators import method_decorator
from django.views import View
from fastapi import APIRouter, FastAPI, WebSocket
from fastapi.middleware.cors import CORSMiddleware
from flask.views import MethodView
from pydantic import BaseModel
from starlette.applications import Starlette
from starlette.endpoints import HTTPEndpoint
from starlette.middleware import Middleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.responses import JSONResponse as StarletteJson
from starlette.routing import Mount, Route, WebSocketRoute

from authz_verifier import AsyncVerifier, Verifier, current_token
from authz_verifier import asgi as asgi_skin
from authz_verifier import django as django_skin
from authz_verifier import flask as flask_skin
from authz_verifier import starlette as starlette_skin
from authz_verifier import wsgi as wsgi_skin
from authz_verifier.testing import DEFAULT_AUDIENCE, proof

SCOPE, OTHER = "mapper/link", "mapper/resolve"
METADATA = "/.well-known/oauth-protected-resource"


class Item(BaseModel):
    name: str


def answer() -> dict[str, str]:
    return {"client": current_token().client_id}


@pytest.fixture
def call():
    """A function of an ASGI application and a request: the response."""

    async def send(app, method, path, **request):
        transport = httpx.ASGITransport(app, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url=DEFAULT_AUDIENCE) as client:
            return await client.request(method, path, **request)

    return lambda app, method, path, **request: asyncio.run(send(app, method, path, **request))


def connect(app, path, headers) -> list[str]:
    """Return the types of the messages of a websocket."""
    sent = []

    async def receive():
        return {"type": "websocket.connect"}

    async def send(message):
        sent.append(message["type"])

    scope = {
        "type": "websocket",
        "path": path,
        "scheme": "ws",
        "headers": [(name.lower().encode(), value.encode()) for name, value in headers.items()],
        "query_string": b"",
        "server": ("api.example", 80),
    }
    asyncio.run(app(scope, receive, send))
    return sent


def make_fastapi(issuer):
    app, mounted, router, inner = FastAPI(), FastAPI(), APIRouter(), APIRouter()
    app.add_middleware(CORSMiddleware, allow_origins=["*"])
    starlette_skin.protect(app, AsyncVerifier(issuer.url, DEFAULT_AUDIENCE))

    @app.post("/items")
    @starlette_skin.requires(SCOPE)
    async def add(item: Item, number: int = 1):
        return answer() | {"item": item.name, "number": number}

    @mounted.get("/link")
    @starlette_skin.requires(SCOPE)
    def link(sent: fastapi.Request):
        return answer() | {"method": sent.method}

    @app.websocket("/updates")
    @starlette_skin.requires(SCOPE)
    async def updates(socket: WebSocket):
        await socket.accept()
        await socket.close()

    @inner.post("/items/{kind}")
    @starlette_skin.requires(OTHER)
    async def add_kind(kind: str, item: Item):
        return answer() | {"item": item.name, "kind": kind}

    app.mount("/mounted", mounted)
    router.include_router(inner, prefix="/inner")
    app.include_router(router, prefix="/router")
    return app


def test_the_routes_of_a_router_are_guarded_like_those_of_the_application(issuer, call):
    """Before the body is read; their scopes are in the metadata."""
    app, path = make_fastapi(issuer), "/router/inner/items/a"
    assert call(app, "POST", path, content=b"[").status_code == 401
    wrong = issuer.authorization(SCOPE)
    assert call(app, "POST", path, content=b"[", headers=wrong).status_code == 403
    headers = issuer.authorization(OTHER)
    assert call(app, "POST", path, json={}, headers=headers).status_code == 422
    served = call(app, "POST", path, json={"name": "b"}, headers=headers)
    assert served.json() == {"client": "test-client", "item": "b", "kind": "a"}
    assert call(app, "GET", METADATA).json()["scopes_supported"] == [SCOPE, OTHER]


def test_fastapi_refuses_before_it_reads_the_body(issuer, call):
    app = make_fastapi(issuer)
    refused = call(app, "POST", "/items", content=b"[", headers={"Origin": "https://a.example"})
    assert refused.status_code == 401
    assert refused.headers["Access-Control-Allow-Origin"] == "*"
    headers = issuer.authorization(SCOPE)
    assert call(app, "POST", "/items", json={}, headers=headers).status_code == 422
    served = call(app, "POST", "/items?number=3", json={"name": "a"}, headers=headers)
    assert served.json() == {"client": "test-client", "item": "a", "number": 3}


def test_a_mounted_application_has_the_same_verifier(issuer, call, authz_proof_key):
    app = make_fastapi(issuer)
    refused = call(app, "GET", "/mounted/link")
    assert refused.status_code == 401
    assert refused.headers["WWW-Authenticate"].startswith("Bearer")
    served = call(app, "GET", "/mounted/link", headers=issuer.authorization(SCOPE))
    assert served.json() == {"client": "test-client", "method": "GET"}
    token = issuer.token(SCOPE, proof_key=authz_proof_key)
    made = proof(authz_proof_key, "GET", f"{DEFAULT_AUDIENCE}/mounted/link", token)
    bound = {"Authorization": f"DPoP {token}", "DPoP": made}
    assert call(app, "GET", "/mounted/link", headers=bound).status_code == 200


@pytest.mark.parametrize("middleware", [[], [Middleware(GZipMiddleware)]], ids=["bare", "wrapped"])
def test_a_mounted_application_that_is_protected_itself_has_its_own_verifier(
    issuer, call, authz_proof_key, middleware
):
    """Its audience may be another one, and a proof is used once although there are two guards."""
    app, mounted = FastAPI(), FastAPI()

    @mounted.get("/link")
    @starlette_skin.requires(SCOPE)
    async def link():
        return answer()

    other = "https://other.example"
    starlette_skin.protect(app, AsyncVerifier(issuer.url, DEFAULT_AUDIENCE))
    starlette_skin.protect(mounted, AsyncVerifier(issuer.url, other))
    app.router.routes.append(Mount("/mounted", mounted, middleware=middleware))
    path, url = "/mounted/link", f"{DEFAULT_AUDIENCE}/mounted/link"
    refused = call(app, "GET", path, headers=issuer.authorization(SCOPE))
    assert refused.status_code == 401
    assert f'resource_metadata="{other}' in refused.headers["WWW-Authenticate"]
    token = issuer.token(SCOPE, aud=other, proof_key=authz_proof_key)
    headers = {"Authorization": f"DPoP {token}", "DPoP": proof(authz_proof_key, "GET", url, token)}
    assert call(app, "GET", path, headers=headers).json() == {"client": "test-client"}
    assert call(app, "GET", path, headers=headers).status_code == 401


def test_a_websocket_is_accepted_with_a_token_alone(issuer):
    @starlette_skin.requires(SCOPE)
    async def updates(socket):
        await socket.accept()
        await socket.close()

    plain = Starlette(routes=[WebSocketRoute("/updates", updates)])
    starlette_skin.protect(plain, AsyncVerifier(issuer.url, DEFAULT_AUDIENCE))
    for app in (make_fastapi(issuer), plain):
        headers = issuer.authorization(SCOPE)
        assert connect(app, "/updates", headers) == ["websocket.accept", "websocket.close"]
        assert connect(app, "/updates", {}) == ["websocket.close"]
        other = issuer.authorization("other")
        assert connect(app, "/updates", other) == ["websocket.close"]


def test_methods_of_classes_are_guarded(issuer, call):
    class Link(HTTPEndpoint):
        @starlette_skin.requires(SCOPE)
        async def get(self, request):
            return StarletteJson(answer() | {"path": request.url.path})

    inner = Starlette(routes=[Route("/link", Link)])
    app = Starlette(routes=[Route("/link", Link), Mount("/mounted", inner)])
    starlette_skin.protect(app, AsyncVerifier(issuer.url, DEFAULT_AUDIENCE))
    for path in ("/link", "/mounted/link"):
        assert call(app, "GET", path).status_code == 401
        served = call(app, "GET", path, headers=issuer.authorization(SCOPE))
        assert served.json() == {"client": "test-client", "path": path}


def make_flask(issuer):
    app = flask.Flask(__name__)
    flask_skin.protect(app, Verifier(issuer.url, DEFAULT_AUDIENCE))
    part = flask.Blueprint("part", __name__, url_prefix="/part")

    @part.get("/link")
    @flask_skin.requires(SCOPE)
    async def link():
        await asyncio.sleep(0)
        return answer()

    class Link(MethodView):
        decorators = (flask_skin.requires(SCOPE),)

        def get(self):
            return answer()

    app.register_blueprint(part)
    app.add_url_rule("/link", view_func=Link.as_view("link"))
    return app


@pytest.mark.parametrize("path", ["/link", "/part/link"])
def test_blueprints_classes_and_async_views_of_flask_are_guarded(issuer, path):
    client = make_flask(issuer).test_client()
    assert client.get(path, headers=issuer.authorization(SCOPE)).json == {"client": "test-client"}
    assert client.get(path, headers=issuer.authorization("other")).status_code == 403
    for method in (client.get, client.head):
        assert method(path).status_code == 401


def test_the_error_handlers_of_a_blueprint_do_not_answer_refusals(issuer):
    app, part = flask.Flask(__name__), flask.Blueprint("part", __name__)
    flask_skin.protect(app, Verifier(issuer.url, DEFAULT_AUDIENCE))

    @part.errorhandler(Exception)
    def fail(_):
        return "failed", 500

    @part.get("/link")
    @flask_skin.requires(SCOPE)
    def link():
        raise ValueError

    app.register_blueprint(part)
    client = app.test_client()
    refused = client.get("/link")
    assert refused.status_code == 401
    assert refused.headers["WWW-Authenticate"].startswith("Bearer ")
    assert client.get("/link", headers=issuer.authorization("other")).status_code == 403
    assert client.get("/link", headers=issuer.authorization(SCOPE)).status_code == 500


def test_classes_of_django_are_guarded_whether_they_wait_or_not(issuer):
    if not django_settings.configured:
        django_settings.configure(ALLOWED_HOSTS=["*"])
        django.setup()
    django_settings.AUTHZ_VERIFIER = Verifier(issuer.url, DEFAULT_AUDIENCE)
    guarded = method_decorator(django_skin.requires(SCOPE), name="dispatch")

    @guarded
    class Link(View):
        def get(self, _):
            return JsonResponse(answer())

    @guarded
    class Waiting(View):
        async def get(self, _):
            await asyncio.sleep(0)
            return JsonResponse(answer())

    make = RequestFactory().get
    for view, finish in ((Link.as_view(), lambda each: each), (Waiting.as_view(), asyncio.run)):
        assert finish(view(make("/"))).status_code == 401
        served = finish(view(make("/", headers=issuer.authorization(SCOPE))))
        assert json.loads(served.content) == {"client": "test-client"}


def test_a_guard_above_the_route_is_found_out(issuer, call):
    pages = make_flask(issuer)

    @flask_skin.requires(SCOPE)
    @pages.get("/open")
    def open_page():
        return answer()

    app, mounted, router = make_fastapi(issuer), FastAPI(), APIRouter()
    for part in (app, mounted, router):

        @starlette_skin.requires(SCOPE)
        @part.get("/open")
        def open_endpoint():
            return answer()

    @starlette_skin.requires(SCOPE)
    @app.websocket("/socket")
    async def open_socket(socket: WebSocket):
        await socket.accept()

    app.mount("/other", mounted)
    app.include_router(router, prefix="/third")
    assert pages.test_client().get("/open").status_code == 500
    for path in ("/open", "/other/open", "/third/open"):
        assert call(app, "GET", path).status_code == 500
    with pytest.raises(RuntimeError, match="below the decorator"):
        connect(app, "/socket", {})


@pytest.mark.parametrize(
    ("changes", "scheme"),
    [({}, "http"), ({"scheme": "https"}, "https"), ({"scheme": "ws"}, "http")],
)
def test_an_asgi_server_may_leave_the_scheme_out(issuer, changes, scheme):
    scope = {
        "type": "http",
        "method": "GET",
        "path": "/a b",
        "headers": [(b"host", b"api.example")],
    }
    verifier = AsyncVerifier(issuer.url, DEFAULT_AUDIENCE)
    assert asgi_skin.read_request(scope | changes, verifier).url == f"{scheme}://api.example/a%20b"


def test_a_wsgi_response_to_head_has_no_body(issuer):
    verifier = Verifier(issuer.url, DEFAULT_AUDIENCE)
    guarded = wsgi_skin.requires(SCOPE, verifier=verifier)(lambda *_: [b"served"])
    for path, expected in (("/", "401 UNAUTHORIZED"), (METADATA, "200 OK")):
        started = []
        environ = {"REQUEST_METHOD": "HEAD", "PATH_INFO": path, "HTTP_HOST": "api.example"}
        environ |= {"wsgi.url_scheme": "https", "SERVER_PORT": "443"}
        body = guarded(environ, lambda status, headers: started.append((status, headers)))  # noqa: B023
        assert b"".join(body) == b""
        status, headers = started[0]
        assert status.lower() == expected.lower()
        assert int(dict(headers)["Content-Length"]) > 0
