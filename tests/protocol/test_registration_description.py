"""The description of the registration endpoints is true: schemathesis asks the server."""

import pytest
import schemathesis
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from authz_server.app import EXTENSION, create_health_application
from support.registration import REGISTER, Registrar, registrar

__all__ = ["registrar"]

CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
]


@pytest.fixture
def schema(registrar: Registrar):
    """The description, read by schemathesis."""
    application = create_health_application(registrar.protocol.services.settings)
    schema = schemathesis.openapi.from_wsgi("/openapi.json", application)
    schema.app = registrar.protocol.app
    yield schema
    application.extensions[EXTENSION].database.close()


def test_answers_are_as_described(registrar: Registrar, schema):
    """Case I106."""
    path = f"{REGISTER}/{{client_id}}"

    def call(method: str, token: str, body: object = None, client_id: str = "", at: str = path):
        options = {} if body is None else {"body": body, "media_type": "application/json"}
        if client_id:
            options["path_parameters"] = {"client_id": client_id}
        case = schema[at][method].Case(headers={"Authorization": f"Bearer {token}"}, **options)
        response = case.call()
        case.validate_response(response, checks=CHECKS)
        return response

    for body, status in (({"scope": 5}, 400), ({"client_name": "ERP"}, 201)):
        token = registrar.initial_token("mapper/link")
        answer = call("POST", token, body, at=REGISTER)
        assert answer.status_code == status
    client = answer.json()
    client_id, token = client["client_id"], client["registration_access_token"]
    assert call("GET", "invented", None, client_id).status_code == 401
    assert call("GET", token, None, client_id).status_code == 200
    updated = call("PUT", token, {"client_id": client_id}, client_id)
    assert updated.status_code == 200
    token = updated.json()["registration_access_token"]
    assert call("DELETE", token, None, client_id).status_code == 204
