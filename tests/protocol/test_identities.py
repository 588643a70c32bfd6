"""Ids that partners bring along, and identifiers of resource servers that mean the same."""

import json

import pytest

from authz_server.errors import ConflictError, InvalidChangeError
from support.parties import ACTOR
from support.protocol import ENDPOINTS, Protocol, basic
from support.settings_file import ISSUER

BROUGHT = ["payments@bank.example", "urn:dpg:spar:1", "gov.example/ministry/payer", "a~b-C.9"]
REFUSED = [
    *(
        "ab",
        "a" * 129,
        "-.x.",
        ".abc",
        "abc.",
        "abc:",
        ":abc",
        "@abc",
        "a//b",
        "a/./b",
        "a/../b",
    ),
    *("/abc", "abc/", "a b", "a%41", "a+b", "a\u00e9b", "abc\n", "a?b", "a#b", "a&b", "a;b", 'a"b'),
    *("none", "None", "server", "operator", "all", "operator:eve", "server:x"),
    *("registration:x", "issuer:x", "~abc", "https://client.example/erp"),
]


@pytest.mark.parametrize("client_id", BROUGHT)
def test_a_brought_id_works_by_each_method_at_each_endpoint(protocol: Protocol, client_id: str):
    if protocol.services.directory.find(client_id) is None:
        protocol.parties.make_client(client_id, "client_secret")
    with protocol.parties.change() as (services, session):
        _, secret = services.clients.add_secret(session, client_id, actor=ACTOR)
    protocol.parties.watch.note(secret, "secret")
    encoded = client_id.replace(":", "%3A").replace("/", "%2F").replace("@", "%40")
    by_form = {"client_id": client_id, "client_secret": secret}
    token = ""
    for endpoint in ENDPOINTS:
        form = protocol.form(endpoint, token or "invented")
        assert protocol.post(endpoint, form | by_form).status_code == 200
        answer = protocol.post(endpoint, form, {"Authorization": basic(f"{encoded}:{secret}")})
        assert answer.status_code == 200
        token = token or answer.json["access_token"]
    assert client_id in {
        json.loads(line).get("client_id") for line in protocol.audit_trail().splitlines()
    }


@pytest.mark.parametrize("client_id", REFUSED, ids=ascii)
def test_an_id_that_is_ambiguous_or_reserved_is_refused(protocol: Protocol, client_id: str):
    with pytest.raises(InvalidChangeError, match="id:"):
        protocol.parties.make_client(client_id, name="X")


@pytest.mark.parametrize(
    "identifier",
    [
        "https://mapper.example",
        "https://MAPPER.example:443/",
        "https://mapper.example/./",
        ISSUER,
        f"{ISSUER}/",
        f"{ISSUER}:443",
    ],
)
def test_an_identifier_that_means_another_is_taken(protocol: Protocol, identifier: str):
    with pytest.raises(ConflictError), protocol.parties.change() as (services, session):
        services.clients.create_resource_server(
            session, actor=ACTOR, name="Other", identifier=identifier
        )


@pytest.mark.parametrize(
    "resource", ["https://mapper.example", "https://mapper.example/", "HTTPS://mapper.example:443"]
)
def test_a_resource_is_found_by_any_equivalent_spelling(protocol: Protocol, resource: str):
    answer = protocol.ask("token", protocol.demo.basic, resource=resource)
    assert answer.status_code == 200
    assert protocol.is_active(answer.json["access_token"])
