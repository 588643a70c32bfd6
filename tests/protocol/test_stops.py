"""The kill switch: no token is issued for what is stopped, and its tokens are inactive."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from authz_server.operations.programmes import define_programme
from authz_server.operations.revocation import revoke_tokens
from authz_server.operations.stops import lift_stop, plan_stop, set_stop
from authz_server.tokens.stops import StopKind
from support.assertions import make_signer
from support.parties import ACTOR, Credentials
from support.protocol import METHODS, TOKEN_ENDPOINTS, Protocol, require_refusal
from support.token_exchange import exchange, new_gateway

KINDS: tuple[StopKind, ...] = ("scope", "client", "resource-server", "programme")
CAUSES = {
    "scope": ("invalid_scope", "scope_stopped"),
    "client": ("unauthorized_client", "client_stopped"),
    "resource-server": ("invalid_scope", "resource_server_stopped"),
    "programme": ("unauthorized_client", "programme_stopped"),
}


@pytest.fixture
def alone(protocol: Protocol, monkeypatch):
    """No twin, which would refuse an assertion that was used before."""
    monkeypatch.setattr(protocol.client, "twin", None)


@contextmanager
def stopped(protocol: Protocol, kind: StopKind, client: Credentials) -> Iterator[str]:
    """Stop what concerns a client of `mapper/link` until the block ends; yield its name."""
    services = protocol.services
    subject = {"scope": "mapper.link", "client": client.id, "resource-server": "mapper"}.get(
        kind, f"programme of {client.id}"
    )
    if kind == "programme":
        define_programme(services, subject, scopes=[], clients=[client.id], actor=ACTOR)
    set_stop(services, plan_stop(services, kind, subject), reason="INC-1", actor=ACTOR)
    services.feed.poll()
    try:
        yield subject
    finally:
        lift_stop(services, kind, subject, reason="INC-1 is over", actor=ACTOR)
        services.feed.poll()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("endpoint", TOKEN_ENDPOINTS)
def test_no_token_is_issued_for_what_is_stopped(
    protocol: Protocol, endpoint: str, method: str, kind: StopKind
):
    """The audit record has the kind of the stop; after it is lifted, tokens are issued again."""
    client = protocol.new_client(method)
    assert protocol.ask(endpoint, client).status_code == 200
    error, cause = CAUSES[kind]
    with stopped(protocol, kind, client):
        require_refusal(protocol.ask(endpoint, client), 400, error, endpoint)
        require_refusal(protocol.ask(endpoint, client, without="scope"), 400, error, endpoint)
        assert f'"reason":"{cause}"' in protocol.audit_trail()
    assert protocol.ask(endpoint, client).status_code == 200


@pytest.mark.usefixtures("alone")
@pytest.mark.parametrize("alg", ["ES256", "HS256"])
def test_a_signed_assertion_gets_no_token_either(protocol: Protocol, alg: str):
    """`private_key_jwt` and `client_secret_jwt`."""
    name = f"stopped-{alg}-{protocol.new_client().id}"
    signer = make_signer(protocol.parties, name, lambda: protocol.clock().timestamp(), alg)
    with stopped(protocol, "client", Credentials(name, "", "")):
        form = protocol.form("token") | signer.form(signer.assertion())
        require_refusal(protocol.post("token", form), 400, "unauthorized_client")


@pytest.mark.parametrize("kind", KINDS)
def test_tokens_of_what_is_stopped_are_inactive_until_it_is_lifted(
    protocol: Protocol, kind: StopKind
):
    """For the resource server and for the client itself; the response is that of any other."""
    client = protocol.new_client()
    token = protocol.new_token(client)
    with stopped(protocol, kind, client):
        for caller in (protocol.demo.mapper, client):
            answer = protocol.ask("introspect", caller, token=token)
            assert (answer.status_code, answer.json) == (200, {"active": False})
    assert protocol.is_active(token)


@pytest.mark.parametrize("kind", KINDS)
def test_a_token_can_be_revoked_while_it_is_stopped(protocol: Protocol, kind: StopKind):
    """It stays revoked after the stop is lifted."""
    client = protocol.new_client()
    token = protocol.new_token(client)
    with stopped(protocol, kind, client):
        assert protocol.ask("revoke", client, token=token).status_code == 200
    assert not protocol.is_active(token)


def test_a_token_keeps_the_scopes_that_are_not_stopped(protocol: Protocol):
    """A request that names a stopped scope beside another is refused as a whole."""
    client = protocol.new_client()
    both = "mapper/link mapper/resolve"
    token = protocol.new_token(client, scope=both)
    with stopped(protocol, "scope", client):
        answer = protocol.ask("introspect", protocol.demo.mapper, token=token)
        assert answer.json["scope"] == "mapper/resolve"
        require_refusal(protocol.ask("token", client, scope=both), 400, "invalid_scope")
        assert protocol.ask("token", client, scope="mapper/resolve").status_code == 200


def test_others_are_not_stopped(protocol: Protocol):
    """A stop names one subject."""
    client, other = protocol.new_client(), protocol.new_client()
    token = protocol.new_token(other)
    with stopped(protocol, "client", client):
        assert protocol.ask("token", other).status_code == 200
        assert protocol.is_active(token)


def test_a_token_exchanged_from_one_of_a_stopped_client_is_inactive(protocol: Protocol):
    """Neither is such a token exchanged."""
    client, gateway = protocol.new_client(), new_gateway(protocol)
    token = protocol.new_token(client)
    exchanged = exchange(protocol, gateway, token)
    assert exchanged.status_code == 200, exchanged.text
    # The figures of the plan have it too, and nothing that is revoked.
    assert plan_stop(protocol.services, "client", client.id).in_force == 2
    other = protocol.new_token(client)
    assert plan_stop(protocol.services, "client", client.id).in_force == 3
    assert protocol.ask("revoke", client, token=other).status_code == 200
    assert plan_stop(protocol.services, "client", client.id).in_force == 2
    with stopped(protocol, "client", client):
        assert not protocol.is_active(exchanged.json["access_token"])
        require_refusal(exchange(protocol, gateway, token), 400, "invalid_request")
    revoke_tokens(protocol.services, "client", client.id, actor=ACTOR)
    assert plan_stop(protocol.services, "client", client.id).in_force == 0
