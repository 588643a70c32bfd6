"""The skins: Flask, FastAPI, Starlette, Django, WSGI and ASGI behave alike."""

import asyncio
import json
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
from starlette.applications import Starlette
from starlette.responses import JSONResponse
from starlette.routing import Route

from authz_verifier import AsyncVerifier, Verifier, current_token
from authz_verifier import asgi as asgi_skin
from authz_verifier import django as django_skin
from authz_verifier import flask as flask_skin
from authz_verifier import starlette as starlette_skin
from authz_verifier import wsgi as wsgi_skin
from authz_verifier.testing import DEFAULT_AUDIENCE, proof

SCOPE = "mapper/link"
PATH = "/mapper/link"
METADATA = "/.well-known/oauth-protected-resource"


def flask_application(verifier):
    app = flask.Flask(__name__)
    flask_skin.protect(app, verifier)

    @app.post(PATH)
    @flask_skin.requires(SCOPE)
    def link():
        return {"client": current_token().client_id}

    @app.get("/free")
    def free():
        return {"client": current_token().client_id}

    return app


def django_application(verifier):
    if not django_settings.configured:
        django_settings.configure(ALLOWED_HOSTS=["*"])
        django.setup()

    @django_skin.requires(SCOPE)
    def link(_):
        return JsonResponse({"client": current_token().client_id})

    def free(_):
        return JsonResponse({"client": current_token().client_id})

    django_settings.AUTHZ_VERIFIER = verifier
    urls = ModuleType("urls")
    urls.urlpatterns = [
        *django_skin.metadata_urls(),
        django_path(PATH[1:], link),
        django_path("free", free),
    ]
    django_settings.ROOT_URLCONF = urls
    django.urls.clear_url_caches()
    return WSGIHandler()


def wsgi_application(verifier):
    def answer(_environ, start):
        body = json.dumps({"client": current_token().client_id}).encode()
        start("200 OK", [("Content-Type", "application/json")])
        return [body]

    guarded = wsgi_skin.requires(SCOPE, verifier=verifier)(answer)
    return lambda environ, start: (answer if environ["PATH_INFO"] == "/free" else guarded)(
        environ, start
    )


def fastapi_application(verifier):
    app = fastapi.FastAPI()
    starlette_skin.protect(app, verifier)

    @app.post(PATH)
    @starlette_skin.requires(SCOPE)
    async def link():
        return {"client": current_token().client_id}

    @app.get("/free")
    async def free():
        return {"client": current_token().client_id}

    return app


def fastapi_application_with_parameters(verifier):
    app = fastapi.FastAPI()
    starlette_skin.protect(app, verifier)

    @app.post(PATH)
    @starlette_skin.requires(SCOPE)
    def link(request: fastapi.Request, page: int = 1):
        assert (request.method, page) == ("POST", 1)
        return {"client": current_token().client_id}

    @app.get("/free")
    def free():
        return {"client": current_token().client_id}

    return app


def starlette_application(verifier):
    @starlette_skin.requires(SCOPE)
    async def link(_):
        return JSONResponse({"client": current_token().client_id})

    async def free(_):
        return JSONResponse({"client": current_token().client_id})

    app = Starlette(routes=[Route(PATH, link, methods=["POST"]), Route("/free", free)])
    starlette_skin.protect(app, verifier)
    return app


def asgi_application(verifier):
    async def answer(_scope, _receive, send):
        body = json.dumps({"client": current_token().client_id}).encode()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": body})

    guarded = asgi_skin.requires(SCOPE, verifier=verifier)(answer)

    async def application(scope, receive, send):
        await (answer if scope["path"] == "/free" else guarded)(scope, receive, send)

    return application


WSGI = [flask_application, django_application, wsgi_application]
ASGI = [
    fastapi_application,
    fastapi_application_with_parameters,
    starlette_application,
    asgi_application,
]


@pytest.fixture(params=[*WSGI, *ASGI], ids=lambda make: make.__name__)
def call(request, issuer):
    """A function of method, path and headers: the application's response."""
    if request.param in WSGI:
        verifier = Verifier(issuer.url, DEFAULT_AUDIENCE)
        transport = httpx.WSGITransport(request.param(verifier))
        with httpx.Client(transport=transport, base_url=DEFAULT_AUDIENCE) as client:
            yield client.request
        verifier.close()
        return
    application = request.param(AsyncVerifier(issuer.url, DEFAULT_AUDIENCE))
    with asyncio.Runner() as runner:

        async def send(method, path, **parts):
            transport = httpx.ASGITransport(application)
            async with httpx.AsyncClient(transport=transport, base_url=DEFAULT_AUDIENCE) as client:
                return await client.request(method, path, **parts)

        yield lambda *call, **parts: runner.run(send(*call, **parts))


def test_a_token_with_the_scope_is_served(call, issuer):
    answer = call("POST", PATH, headers=issuer.authorization(SCOPE))
    assert (answer.status_code, answer.json()) == (200, {"client": "test-client"})


def test_a_request_without_a_token_is_challenged(call):
    answer = call("POST", PATH)
    assert answer.status_code == 401
    challenge = answer.headers["WWW-Authenticate"]
    assert f'Bearer resource_metadata="{DEFAULT_AUDIENCE}{METADATA}"' in challenge
    assert "DPoP " in challenge
    assert "error=" not in challenge


def test_a_token_without_the_scope_is_forbidden(call, issuer):
    answer = call("POST", PATH, headers=issuer.authorization("mapper/resolve"))
    assert answer.status_code == 403
    assert f'scope="{SCOPE}"' in answer.headers["WWW-Authenticate"]
    assert answer.json()["error"] == "insufficient_scope"


def test_a_token_in_the_query_or_form_is_ignored(call, issuer):
    token = issuer.token(SCOPE)
    assert call("POST", f"{PATH}?access_token={token}").status_code == 401
    assert call("POST", PATH, data={"access_token": token}).status_code == 401


def test_a_bound_token_is_served_with_its_proof_once(call, issuer, authz_proof_key):
    token = issuer.token(SCOPE, proof_key=authz_proof_key)
    made = proof(authz_proof_key, "POST", f"{DEFAULT_AUDIENCE}{PATH}", token)
    headers = {"Authorization": f"DPoP {token}", "DPoP": made}
    assert call("POST", PATH, headers=headers).status_code == 200
    again = call("POST", PATH, headers=headers)
    assert again.status_code == 401
    assert 'error="invalid_dpop_proof"' in again.headers["WWW-Authenticate"]


def test_two_authorization_headers_are_refused(call, issuer):
    token = issuer.token(SCOPE)
    headers = {"Authorization": f"Bearer {token}, Bearer {token}"}
    assert call("POST", PATH, headers=headers).status_code in {400, 401}


def test_the_resource_metadata_is_served(request, call, issuer):
    answer = call("GET", METADATA)
    assert answer.status_code == 200
    assert answer.json()["authorization_servers"] == [issuer.url]
    scopes = answer.json()["scopes_supported"]
    # Under Django they are those of all guarded views of the process.
    assert SCOPE in scopes if "django" in request.node.name else scopes == [SCOPE]


def test_an_outage_is_a_503(call, issuer):
    issuer.is_down = True
    answer = call("POST", PATH, headers=issuer.authorization(SCOPE))
    assert answer.status_code == 503
    assert answer.headers["Retry-After"] == "5"


def test_an_unguarded_view_sees_no_token_of_an_earlier_request(call, issuer):
    assert call("POST", PATH, headers=issuer.authorization(SCOPE)).status_code == 200
    try:
        answer = call("GET", "/free", headers=issuer.authorization(SCOPE))
    except RuntimeError as error:
        assert "no guarded request" in str(error)  # noqa: PT017 - some frameworks pass it on
    else:
        assert answer.status_code == 500
