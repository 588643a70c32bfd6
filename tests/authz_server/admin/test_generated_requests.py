"""Requests that schemathesis makes from the OpenAPI document: all are answered as it describes."""

import os
from contextlib import ExitStack

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from authz_server.admin.calls import NoQuery
from authz_server.admin.routes import PREFIX, ROUTES
from support.admin_site import FROM, running_admin_site
from support.databases import copied_database

CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
]
#: For each route and each kind of request; more in `make acceptance`.
EXAMPLES = int(os.environ.get("ADMIN_API_EXAMPLES", "1"))
#: ``sqlite`` or ``postgresql``.
DIALECT = os.environ.get("ADMIN_API_DATABASE", "sqlite")
#: Values that exist, where a path would otherwise never lead to an item.
KNOWN = {
    "client_id": "known",
    "operator": "known",
    "resource_server": "known-server",
    "ring": "es256",
    "scope": "mapper/link",
    "programme": "known",
}


@pytest.fixture(scope="module")
def described(request, tmp_path_factory):
    """A site, and its document as schemathesis reads it."""
    directory = tmp_path_factory.mktemp("generated")
    with ExitStack() as running:
        url = running.enter_context(copied_database(request, DIALECT, directory))
        site = running.enter_context(running_admin_site(directory, url))
        site.new_client(id="known", authentication_method="client_secret_post")
        for path, body in (
            ("resource-servers", {"id": "known-server", "name": "K", "identifier": "urn:known:1"}),
            ("event-streams", {"resource_server": "known-server", "delivery": "poll"}),
            ("operators", {"name": "known"}),
            ("programmes", {"name": "known", "clients": ["known"]}),
        ):
            assert site.send("POST", f"/{path}", json=body).status_code in {200, 201}
        schema = schemathesis.openapi.from_dict(site.get("/openapi.json").json)
        schema.app = _From(site.app)
        yield site, schema


class _From:
    """Gives requests the address of their sender, as a server does."""

    def __init__(self, app) -> None:
        self._app = app

    def __call__(self, environ, start_response):
        return self._app(environ | FROM, start_response)


def _can_be_wrong(route) -> bool:
    """Return whether a request has a part that can be wrong; the document itself has none."""
    return "{" in route.path or route.query is not NoQuery or route.body is not None


#: Every route with every mode that has requests.
DESCRIBED = [
    (route, mode)
    for route in ROUTES
    for mode in GenerationMode
    if route.act is not None and (_can_be_wrong(route) or mode is GenerationMode.POSITIVE)
]


@pytest.mark.parametrize(
    ("route", "mode"),
    DESCRIBED,
    ids=[f"{route.method} {route.path}-{mode.value}" for route, mode in DESCRIBED],
)
def test_generated_requests_are_answered_as_described(described, route, mode):
    """Status, content type and schema are among those of the document, and no fault is met."""
    site, schema = described
    operation = schema[f"{PREFIX}{route.path}"][route.method]

    @settings(
        max_examples=EXAMPLES, suppress_health_check=list(HealthCheck), database=None, deadline=None
    )
    @given(case=operation.as_strategy(generation_mode=mode))
    def ask(case):
        if mode is GenerationMode.POSITIVE and case.path_parameters:
            case.path_parameters |= {
                name: KNOWN[name] for name in case.path_parameters if name in KNOWN
            }
        headers = {"Authorization": f"Bearer {site.token()}"}
        if mode is GenerationMode.POSITIVE and route.kind in {"change", "order"}:
            headers["If-Match"] = "*"
        response = case.call_and_validate(checks=CHECKS, headers=headers)
        if response.status_code == 401:
            # A generated revocation was of every token.
            site.clock.advance(1)
            site.forget_tokens()

    ask()
