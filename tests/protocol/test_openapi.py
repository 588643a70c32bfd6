"""The description of the interface is valid, complete and true: schemathesis asks the server."""

import json
import os

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from openapi_spec_validator import validate
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    negative_data_rejection,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)
from werkzeug.test import Client

from authz_server.app import EXTENSION, create_health_application
from authz_server.endpoints.introspection import JWT_TYPE
from authz_server.settings import load_settings
from support.protocol import FORM_TYPE, running_protocol
from support.settings_file import ISSUER, write_settings

CONFORMANCE = [
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
]
OF_BODIES = (response_schema_conformance,)
FORMS = ("/oauth2/token", "/oauth2/client/token", "/oauth2/introspect", "/oauth2/revoke")
DOCUMENTS = (
    "/.well-known/jwks.json",
    "/.well-known/oauth-authorization-server",
    "/.well-known/openid-configuration",
    "/status-lists",
)
HEALTH = ("/health/live", "/health/ready", "/openapi.json")
#: By another name, documents are not for caches.
OUR_HOST = {"Host": ISSUER.removeprefix("https://")}
METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "PROPFIND")
#: For each operation and each kind of request; more in `make acceptance`.
EXAMPLES = int(os.environ.get("OPENAPI_EXAMPLES", "2"))


def describe(application):
    """Return the description as the health listener serves it, read by schemathesis."""
    return schemathesis.openapi.from_wsgi("/openapi.json", application)


def operation(schema, path):
    return schema[path]["POST" if path in FORMS else "GET"]


def addresses_of(application):
    """Return the rules of an application as OpenAPI writes them."""
    rules = (rule.rule for rule in application.url_map.iter_rules())
    return {rule.replace("<", "{").replace(">", "}") for rule in rules}


@pytest.fixture(scope="module")
def health_application(protocol):
    application = create_health_application(protocol.services.settings)
    yield application
    application.extensions[EXTENSION].database.close()


@pytest.fixture(scope="module")
def schema(protocol, health_application):
    schema = describe(health_application)
    schema.app = protocol.app
    return schema


@pytest.fixture(params=("basic", "post"))
def caller(request, protocol):
    """Return headers and fields of a client, by either method."""
    credentials = getattr(protocol.demo, request.param)
    return credentials.headers(), credentials.form()


@pytest.mark.parametrize("path", [*DOCUMENTS, *HEALTH])
def test_documents_are_as_described(schema, health_application, path):
    for host in ({}, OUR_HOST):
        case = operation(schema, path).Case(headers=host)
        response = case.call(app=health_application if path in HEALTH else schema.app)
        case.validate_response(response, checks=[not_a_server_error, *CONFORMANCE])
        assert response.status_code == 200
        kept = response.headers["cache-control"][0].startswith("public")
        assert kept == (path in DOCUMENTS and host == OUR_HOST) == ("etag" in response.headers)


@pytest.mark.parametrize("path", DOCUMENTS)
def test_conditions_of_caches_are_as_described(schema, path):
    etag = operation(schema, path).Case(headers=OUR_HOST).call().headers["etag"][0]
    for name, value, status in (
        ("If-None-Match", etag, 304),
        ("If-None-Match", '"other"', 200),
        ("If-Match", etag, 200),
        ("If-Match", '"other"', 412),
    ):
        case = operation(schema, path).Case(headers=OUR_HOST | {name: value})
        response = case.call()
        case.validate_response(response, checks=[not_a_server_error, *CONFORMANCE])
        assert response.status_code == status
        kept = response.headers["cache-control"][0].startswith("public")
        assert kept == (status != 412), "a cache would hand the refusal to everybody"


@pytest.mark.parametrize("path", FORMS)
def test_valid_requests_are_answered_as_described(protocol, schema, caller, path):
    """Case I106"""
    headers, fields = caller
    endpoint = {"/oauth2/client/token": "g2p"}.get(path, path.rpartition("/")[2])
    form = protocol.form(endpoint, token=protocol.new_token()) | fields
    sent = headers | protocol.profile_headers(endpoint) | {"message_id": "m-1"}
    case = operation(schema, path).Case(headers=sent, body=form, media_type=FORM_TYPE)
    response = case.call()
    case.validate_response(response, checks=[not_a_server_error, *CONFORMANCE])
    assert response.status_code == 200
    assert ("message_id" in response.headers) == (endpoint == "g2p")


def test_signed_introspection_is_as_described(protocol, schema):
    """Case I106"""
    headers = protocol.demo.mapper.headers() | {"Accept": JWT_TYPE}
    form = {"token": protocol.new_token()}
    case = operation(schema, "/oauth2/introspect").Case(
        headers=headers, body=form, media_type=FORM_TYPE
    )
    response = case.call()
    case.validate_response(response, checks=[not_a_server_error, *CONFORMANCE])
    assert response.headers["content-type"] == [JWT_TYPE]


@pytest.mark.parametrize("mode", list(GenerationMode), ids=lambda mode: mode.value)
@pytest.mark.parametrize("path", FORMS)
def test_generated_requests_are_answered_as_described(protocol, schema, caller, path, mode):
    """Case I106"""
    headers, fields = caller
    endpoint = {"/oauth2/client/token": "g2p"}.get(path, path.rpartition("/")[2])
    negative = [negative_data_rejection] if mode is GenerationMode.NEGATIVE else []

    statuses = set()

    @settings(max_examples=EXAMPLES, suppress_health_check=list(HealthCheck), database=None)
    @given(case=operation(schema, path).as_strategy(generation_mode=mode))
    def ask(case):
        if isinstance(case.body, dict):
            case.body = case.body | fields
        sent = headers | (protocol.profile_headers(endpoint) if not negative else {})
        checks = [not_a_server_error, *CONFORMANCE, *negative]
        response = case.call_and_validate(checks=checks, headers=sent)
        statuses.add(response.status_code)

    ask()
    assert (200 in statuses) != bool(negative), statuses


@pytest.mark.parametrize("path", [*FORMS, *DOCUMENTS, *HEALTH])
def test_every_other_method_is_refused_as_described(schema, health_application, protocol, path):
    """Case B17, I103, I106"""
    application = health_application if path in HEALTH else protocol.app
    described = operation(schema, path)
    allowed = {described.method.upper()} | ({"HEAD"} if path not in FORMS else set())
    for method in set(METHODS) - allowed:
        response = Client(application).open(path, method=method)
        assert response.status_code == 405, method
        assert set(response.headers["Allow"].split(", ")) == allowed
        # An answer to HEAD has no body.
        checks = [check for check in CONFORMANCE if method != "HEAD" or check not in OF_BODIES]
        described.Case().validate_response(response, checks=checks)


def test_description_lists_every_address_and_nothing_else(protocol, schema, health_application):
    """Case L135"""
    served = addresses_of(protocol.app)
    monitored = addresses_of(health_application)
    assert set(schema.raw_schema["paths"]) == served | monitored


@pytest.mark.parametrize("g2p", [True, False], ids=["g2p", "no-g2p"])
@pytest.mark.parametrize("introspection", [True, False], ids=["introspection", "no-introspection"])
def test_description_is_valid_whatever_is_switched_on(tmp_path, g2p, introspection):
    """Case L135"""
    path = write_settings(
        tmp_path,
        "sqlite:///unused.db",
        {
            "issuer": "https://authz.example/namespace/v1.0.0",
            "g2p": {"enabled": g2p, "expires_in": "number"},
            "introspection": {"enabled": introspection},
            "revocation": {"enabled": introspection},
            "registration": {"enabled": g2p},
        },
    )
    application = create_health_application(load_settings(path))
    document = application.test_client().get("/openapi.json").json
    validate(document)
    assert ("/oauth2/client/token" in document["paths"]) == g2p
    assert ("/oauth2/introspect" in document["paths"]) == introspection
    assert ("G2PError" in json.dumps(document)) == g2p
    assert ("/oauth2/register/{client_id}" in document["paths"]) == g2p
    assert ("ClientMetadata" in json.dumps(document)) == g2p


def test_addresses_under_a_prefix_are_described_and_served(tmp_path, sqlite_url):
    """Case L135"""
    prefix = "/namespace/v1.0.0"
    overrides = {"issuer": f"https://authz.example{prefix}", "server": {"mount_prefix": prefix}}
    with running_protocol(tmp_path, sqlite_url, **overrides) as protocol:
        document = describe(create_health_application(protocol.services.settings)).raw_schema
        described = set()
        for path, item in document["paths"].items():
            server = item.get("servers", document["servers"])[0]["url"]
            described.add(f"{server}{path}".removeprefix("https://authz.example"))
        served = addresses_of(protocol.app)
        assert described == served | {f"/{health}" for health in HEALTH}
