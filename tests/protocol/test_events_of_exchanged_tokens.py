"""Security events of what ends exchanged tokens: actors without scopes, and former audiences."""

from collections.abc import Iterator

import pytest

from authz_server.operations.event_streams import delete_stream, set_stream
from authz_server.operations.revocation import revoke_tokens
from support.event_sink import EventSink
from support.event_streams import claims_of, kinds_of, running_streams
from support.parties import ACTOR
from support.protocol import Protocol
from support.token_exchange import GRANT_TYPE, new_gateway

RISC = "https://schemas.openid.net/secevent/risc/event-type/"
OAUTH = "https://schemas.openid.net/secevent/oauth/event-type/"
#: Scopes of the other resource server.
ELSEWHERE = {"allowed_scopes": ["disburse/search"], "default_scopes": ["disburse/search"]}


@pytest.fixture
def protocol(database_url, tmp_path) -> Iterator[Protocol]:
    with running_streams(tmp_path, database_url) as running:
        yield running


@pytest.fixture
def pushed(protocol: Protocol) -> Iterator[EventSink]:
    """A sink of the events of the mapper."""
    with EventSink() as sink:
        set_stream(protocol.services, "mapper", delivery="push", endpoint_url=sink.url, actor=ACTOR)
        yield sink
        delete_stream(protocol.services, "mapper", actor=ACTOR)


def push(protocol: Protocol, sink: EventSink) -> list[dict]:
    """Return the claims of the events that are pushed now."""
    before = len(sink.received)
    protocol.services.feed.poll()
    protocol.services.event_pusher.push_one("mapper")
    return [claims_of(each) for each in sink.received[before:]]


def set_enabled(protocol: Protocol, client, *, enabled: bool) -> None:
    with protocol.parties.change() as (services, session):
        services.clients.set_enabled(session, client.id, actor=ACTOR, enabled=enabled)


def test_an_actor_without_scopes_of_the_resource_server(protocol: Protocol, pushed: EventSink):
    """Its end ends tokens for the resource server, which verifies them offline."""
    friend, stranger = (protocol.new_client(**ELSEWHERE) for _ in range(2))
    new_gateway(protocol, actors=[friend.id])
    set_enabled(protocol, stranger, enabled=False)
    revoke_tokens(protocol.services, "client", stranger.id, actor=ACTOR)
    assert push(protocol, pushed) == []
    set_enabled(protocol, friend, enabled=False)
    set_enabled(protocol, friend, enabled=True)
    token = protocol.new_token(friend, scope="disburse/search")
    protocol.ask("revoke", friend, token=token)
    jti = claims_of(token)["jti"]
    revoke_tokens(protocol.services, "client", friend.id, actor=ACTOR)
    with protocol.parties.change() as (services, session):
        services.clients.delete_client(session, friend.id, actor=ACTOR)
    found = push(protocol, pushed)
    assert kinds_of(pushed.received) == [
        f"{RISC}account-disabled",
        f"{RISC}account-enabled",
        f"{OAUTH}token-revoked",
        f"{OAUTH}tokens-revoked",
        f"{RISC}account-purged",
        f"{OAUTH}tokens-revoked",
    ]
    assert [each["sub_id"].get("sub", jti) for each in found] == [
        *(friend.id, friend.id, jti, friend.id, friend.id, friend.id)
    ]


def test_an_impersonator_whose_tokens_name_an_actor(protocol: Protocol, pushed: EventSink):
    """They are of a subject that may act, and so are actor tokens of it."""
    policy = {"subjects": ["*"], "audiences": ["disburse"], "impersonation": True}
    exchanging = {"grant_types": ["client_credentials", GRANT_TYPE], **ELSEWHERE}
    impersonator = protocol.new_client(properties={"token_exchange": policy}, **exchanging)
    set_enabled(protocol, impersonator, enabled=False)
    assert push(protocol, pushed) == []
    new_gateway(protocol)
    set_enabled(protocol, impersonator, enabled=True)
    with protocol.parties.change() as (services, session):
        services.clients.update_client(
            session, impersonator.id, actor=ACTOR, properties={"token_exchange": None}
        )
    set_enabled(protocol, impersonator, enabled=False)
    found = push(protocol, pushed)
    assert [each["sub_id"].get("sub") for each in found] == [impersonator.id] * 2


@pytest.mark.parametrize("is_exchanging", [True, False])
def test_a_deleted_audience(protocol: Protocol, pushed: EventSink, *, is_exchanging: bool):
    if is_exchanging:
        new_gateway(protocol)
    protocol.parties.make_resource_server("spare")
    with protocol.parties.change() as (services, session):
        services.clients.delete_client(session, "spare", actor=ACTOR)
    found = push(protocol, pushed)
    assert [each["sub_id"]["id"] for each in found] == (
        ["audience:https://spare.example"] if is_exchanging else []
    )
    # The reason may name what is another resource server's.
    assert "reason_admin" not in str(found)
