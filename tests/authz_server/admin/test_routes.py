"""The table of routes: every route has a rule, and refuses everybody without its permission."""

import re
from dataclasses import replace
from typing import NamedTuple

import pytest
from openapi_spec_validator import OpenAPIV31SpecValidator
from werkzeug.test import Client

from authz_server.admin.routes import ROUTES, Route
from authz_server.operations.admin_api import ADMIN_SCOPES
from authz_server.operations.clients import set_enabled
from support.admin_site import ALL_SCOPES, PREFIX, require_problem
from support.parties import ACTOR

OPEN_TO_EVERY_CALLER = {
    "/openapi.json",
    "/changes/{change_id}/break-glass",
    "/changes/{change_id}/withdraw",
}
METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")


def _names(routes) -> list[str]:
    return [f"{route.method} {route.path}" for route in routes]


def _path(route: Route) -> str:
    return re.sub(r"\{\w+\}", "missing", route.path)


class Refused(NamedTuple):
    """Tokens that every route refuses, by what is wrong with them."""

    foreign: str
    expired: str
    revoked: str
    disabled: str
    altered: str


@pytest.fixture(scope="module")
def refused(site) -> Refused:
    """One token of each kind; the clock is left after the end of one of them."""
    made = site.new_client(
        id="soon-disabled", allowed_scopes=[*ALL_SCOPES], authentication_method="client_secret_post"
    )
    site.secrets["soon-disabled"] = made["secret"]["value"]
    foreign = site.new_client(id="foreign", authentication_method="client_secret_post")
    site.secrets["foreign"] = foreign["secret"]["value"]
    site.send(
        "POST",
        "/resource-servers",
        json={
            "id": "mapper",
            "name": "Mapper",
            "identifier": "https://mapper.example",
            "scopes": ["mapper/link"],
        },
    )
    site.public.extensions["authz_server"].feed.poll()
    expired = site.new_token()
    site.clock.advance(3_600)
    site.forget_tokens()
    disabled = site.new_token(client="soon-disabled")
    set_enabled(site.services, "soon-disabled", kind="client", actor=ACTOR, enabled=False)
    site.services.feed.poll()
    revoked = site.new_token()
    assert site.send("POST", "/revocations", json={"token": revoked}).status_code == 201
    return Refused(
        foreign=site.new_token("mapper/link", client="foreign", resource="https://mapper.example"),
        expired=expired,
        revoked=revoked,
        disabled=disabled,
        altered=site.token()[:-4] + "AAAA",
    )


def test_every_route_has_a_rule():
    """A route without a permission, or with one that is no scope, does not exist."""
    for route in ROUTES:
        if route.path in OPEN_TO_EVERY_CALLER:
            assert not route.permission
        else:
            assert route.permission in ALL_SCOPES, route.path
        reads = route.permission.endswith(":read") or route.method == "GET"
        assert reads == (route.kind == "read"), route.path
        if route.method == "GET":
            assert reads, route.path
        if route.kind in {"change", "order"}:
            assert route.item is not None, route.path
        if route.changes:
            assert "dry_run" in route.query.__struct_fields__, route.path
    assert {route.permission for route in ROUTES} - {""} == set(ALL_SCOPES)
    assert len({(route.method, route.path) for route in ROUTES}) == len(ROUTES)


@pytest.mark.parametrize("route", ROUTES, ids=_names(ROUTES))
def test_a_route_refuses_everybody_without_its_permission(site, refused, route):
    """Without a token, with one that does not count, and with each scope but its own. Case H86."""
    path = _path(route)
    answer = site.send(route.method, path, token="")
    require_problem(answer, 401, "invalid-token")
    challenge = answer.headers["WWW-Authenticate"]
    assert challenge.startswith('Bearer realm="authz-server admin"')
    assert "error" not in challenge
    bodies = set()
    for token in (*refused, "nonsense"):
        answer = site.send(route.method, path, token=token)
        body = require_problem(answer, 401, "invalid-token")
        assert 'error="invalid_token"' in answer.headers["WWW-Authenticate"]
        body.pop("request_id")
        bodies.add(str(body))
    assert len(bodies) == 1
    for scope in ALL_SCOPES:
        answer = site.send(route.method, path, token=site.token(scope))
        enough = scope in {*route.one_of, *route.instead}
        permitted = {"", scope, *((route.permission,) if enough else ())}
        missing = [each for each in (*route.further, route.permission) if each not in permitted]
        if not missing:
            assert answer.status_code not in {401, 403}, answer.text
        else:
            assert require_problem(answer, 403, "insufficient-scope")["scope"] == missing[0]
            challenge = answer.headers["WWW-Authenticate"]
            assert f'error="insufficient_scope", scope="{missing[0]}"' in challenge


@pytest.mark.parametrize("path", sorted({route.path for route in ROUTES}))
def test_another_method_is_refused(site, path):
    """With the permitted methods in Allow; HEAD is answered as GET."""
    path = re.sub(r"\{\w+\}", "missing", path)
    permitted = {each.method for each in ROUTES if _matches(each, path)}
    for method in METHODS:
        if method not in permitted:
            answer = site.send(method, path)
            require_problem(answer, 405, "method-not-allowed")
            allowed = set(answer.headers["Allow"].split(", "))
            assert allowed - {"HEAD"} == permitted
    if "GET" in permitted:
        answer = site.send("HEAD", path)
        # A parameter may be required.
        assert answer.status_code in {200, 400, 404}
        assert answer.data == b""


@pytest.mark.parametrize("module_database_url", ["sqlite"], indirect=True)
def test_the_document_describes_every_route(site):
    """It is valid OpenAPI 3.1, and names the scope of each route."""
    document = site.get("/openapi.json").json
    OpenAPIV31SpecValidator(document).validate()
    described = {
        (method.upper(), path) for path, item in document["paths"].items() for method in item
    }
    assert described == {(route.method, f"{PREFIX}{route.path}") for route in ROUTES}
    for route in ROUTES:
        operation = document["paths"][f"{PREFIX}{route.path}"][route.method.lower()]
        scopes = [route.permission, *route.further] if route.permission else []
        one_of = [{"oauth2": [each]} for each in route.one_of]
        others = [{"oauth2": [each]} for each in route.instead]
        assert operation["security"] == (one_of or [{"oauth2": scopes}, *others])
        assert operation["summary"]
    flow = document["components"]["securitySchemes"]["oauth2"]["flows"]["clientCredentials"]
    assert flow["scopes"] == {name: text for name, _, text in ADMIN_SCOPES}


@pytest.mark.parametrize(
    "path", ["/nothing", "/clients/", "//clients", "/clients/a/b/c", "/clients/%", "/clients/%00"]
)
def test_nothing_is_elsewhere(site, path):
    """An address without a route is a problem too."""
    require_problem(site.get(path), 404, "not-found")


def test_nothing_of_it_is_on_the_public_listener(site):
    """The management listener is another application."""
    answer = Client(site.public).get(f"{PREFIX}/clients")
    assert answer.status_code == 404


def _matches(route: Route, path: str) -> bool:
    pattern = re.sub(r"\{\w+\}", "[^/]+", route.path)
    return re.fullmatch(pattern, path) is not None


def test_a_route_for_one_of_several_scopes_requires_further_ones_by_the_request():
    """Without, any one of them would open it."""
    (route,) = (each for each in ROUTES if each.one_of)
    with pytest.raises(ValueError, match="one_of needs prepare"):
        replace(route, prepare=None)
