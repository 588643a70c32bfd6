"""Choices of a registration: the type of tokens, the form of answers, the aud of signed answers.

The defaults are the specifications'. The other choice is for software in use that reads no more.
"""

import jwt
import pytest

from support.parties import ACTOR
from support.protocol import Protocol

BY_SECRET = ["client_secret_post", "client_secret_basic"]


def change_server(protocol: Protocol, **values):
    with protocol.parties.change() as (services, session):
        services.clients.update_resource_server(session, "mapper", actor=ACTOR, **values)


@pytest.fixture(params=BY_SECRET)
def client(protocol: Protocol, request):
    return protocol.new_client(request.param)


@pytest.mark.parametrize("endpoint", ["token", "g2p"])
@pytest.mark.parametrize("token_type", ["at+jwt", "JWT"])
def test_tokens_have_the_type_that_the_resource_server_reads(
    protocol: Protocol, client, endpoint: str, token_type: str
):
    change_server(protocol, token_type=token_type)
    token = protocol.ask(endpoint, client).json["access_token"]
    assert jwt.get_unverified_header(token)["typ"] == token_type
    assert protocol.is_active(token)
    change_server(protocol, token_type="at+jwt")
    # A token of the former type lives on: its resource server may read both.
    assert protocol.is_active(token)
    assert protocol.ask("revoke", client, token=token).status_code == 200
    assert not protocol.is_active(token)


@pytest.mark.parametrize(
    ("g2p_answer", "token_type", "kind"), [("document", "bearer", str), ("oauth", "Bearer", int)]
)
def test_the_g2p_answer_is_written_as_the_client_is_registered(
    protocol: Protocol, g2p_answer: str, token_type: str, kind: type
):
    for method in BY_SECRET:
        client = protocol.new_client(method, g2p_answer=g2p_answer)
        answer = protocol.ask("g2p", client).json
        assert answer["token_type"] == token_type
        assert type(answer["expires_in"]) is kind
        assert int(answer["expires_in"]) == 900
        plain = protocol.ask("token", client).json
        assert (plain["token_type"], type(plain["expires_in"])) == ("Bearer", int)


def test_a_changed_registration_is_in_force_at_the_next_request(protocol: Protocol):
    client = protocol.new_client()
    assert protocol.ask("g2p", client).json["token_type"] == "bearer"
    with protocol.parties.change() as (services, session):
        client_id = client.id
        services.clients.update_client(session, client_id, actor=ACTOR, g2p_answer="oauth")
    assert protocol.ask("g2p", client).json["token_type"] == "Bearer"


@pytest.mark.parametrize("audience", ["identifier", "id"])
def test_a_signed_answer_names_its_reader_as_registered(protocol: Protocol, audience: str):
    change_server(protocol, introspection_audience=audience)
    mapper = protocol.demo.mapper
    accept = {"Accept": "application/token-introspection+jwt"}
    form = {"token": protocol.new_token()} | mapper.form()
    answer = protocol.post("introspect", form, mapper.headers() | accept)
    signed = answer.get_data(as_text=True)
    protocol.parties.watch.note(signed, "signed answer")
    claims = jwt.decode(signed, options={"verify_signature": False})
    expected = {"identifier": "https://mapper.example", "id": "mapper"}[audience]
    change_server(protocol, introspection_audience="identifier")
    assert claims["aud"] == expected
