"""Authorization details for some of the resource servers of a token (RFC 9396, 2.2; RFC 8707)."""

import json
from datetime import timedelta

import pytest

from authz_server.tokens.authorization_details import DetailRules
from support.claims import claims_of
from support.parties import ACTOR, RESOURCE_SERVERS
from support.protocol import Protocol, require_refusal
from support.token_exchange import GRANT_TYPE, exchange

TYPE = "g2p_disbursement"
ERROR = "invalid_authorization_details"
ONE, MANY = SCOPES = ["disburse/disburse", "disburse/sync/disburse"]
BOTH = f"{ONE} {MANY}"
DISBURSE, BATCH = RESOURCE_SERVERS["disburse"], "https://batch.example"
DETAIL = {"type": TYPE, "programme": "cash-2026", "currency_code": "KES"}
AT_DISBURSE, AT_BATCH = ({**DETAIL, "locations": [each]} for each in (DISBURSE, BATCH))
GRANT = {
    "programmes": ["cash-2026"],
    "currency_code": "KES",
    "payer_fas": ["account:1@national-bank"],
    "payment_cap": "5000.00",
    "batch_cap": "100000.00",
    "count": 500,
}


@pytest.fixture
def servers(start_protocol) -> Protocol:
    """An application where the two scopes of the type are of two resource servers."""
    protocol = start_protocol(tokens={"several_resource_servers": "both"})
    with protocol.parties.change() as (services, session):
        services.clients.create_resource_server(
            session, actor=ACTOR, id="batch", name="Batches", identifier=BATCH
        )
        services.scopes.assign(session, [MANY], "batch", actor=ACTOR)
    return protocol


def new_payer(protocol: Protocol, **properties):
    granted = {"authorization_details_grants": {TYPE: [GRANT]}}
    return protocol.new_client(
        allowed_scopes=SCOPES, default_scopes=[], properties=granted | properties
    )


def new_gateway(protocol: Protocol):
    return protocol.new_client(
        allowed_scopes=SCOPES,
        default_scopes=[],
        grant_types=[GRANT_TYPE],
        properties={"token_exchange": {"subjects": ["*"], "audiences": ["disburse", "batch"]}},
    )


def ask(protocol: Protocol, client, *details, scope=BOTH):
    text = json.dumps(details)
    return protocol.ask("token", client, scope=scope, authorization_details=text)


def test_each_resource_server_of_a_limited_scope_needs_a_detail(servers: Protocol):
    """At the other one, the client would pay without its limits."""
    payer = new_payer(servers)
    for details in ([AT_BATCH], [AT_DISBURSE], [AT_BATCH, AT_BATCH]):
        require_refusal(ask(servers, payer, *details), 400, ERROR)
    for details in (
        [DETAIL],
        [AT_DISBURSE, AT_BATCH],
        [{**DETAIL, "locations": [BATCH, DISBURSE]}],
    ):
        answer = ask(servers, payer, *details)
        assert claims_of(answer.json["access_token"])["aud"] == [DISBURSE, BATCH]
        seen = servers.ask("introspect", servers.demo.disburse, token=answer.json["access_token"])
        assert (seen.json["scope"], len(seen.json["authorization_details"])) == (ONE, 1)
    assert ask(servers, payer, AT_BATCH, scope=MANY).status_code == 200


def test_an_exchange_leaves_no_scope_without_a_limit_that_it_had(servers: Protocol):
    """RFC 8693: the new token never permits more than the subject token."""
    gateway = new_gateway(servers)
    answer = ask(servers, new_payer(servers), AT_DISBURSE, AT_BATCH)
    token, granted = answer.json["access_token"], answer.json["authorization_details"]

    def choose(detail, scope):
        text = json.dumps([detail])
        return exchange(servers, gateway, token, scope=scope, authorization_details=text)

    for detail, own, other in ((granted[0], ONE, MANY), (granted[1], MANY, ONE)):
        assert choose(detail, own).json["authorization_details"] == [detail]
        for scope in (other, BOTH, ""):
            require_refusal(choose(detail, scope), 400, ERROR)
    answer = exchange(servers, gateway, token)
    assert answer.json["authorization_details"] == granted


def test_locations_are_granted_as_the_resource_servers_are_registered(servers: Protocol):
    """A resource server that compares texts finds the details that are for it."""
    spellings = [f"{BATCH}/", "HTTPS://Batch.Example:443", BATCH]
    details = [{**DETAIL, "locations": spellings}, {**DETAIL, "locations": [f"{DISBURSE}/"]}]
    answer = ask(servers, new_payer(servers), *details)
    granted = answer.json["authorization_details"]
    assert [each["locations"] for each in granted] == [[BATCH], [DISBURSE]]
    assert claims_of(answer.json["access_token"])["authorization_details"] == granted


def test_an_exchange_takes_each_spelling_of_a_location(servers: Protocol):
    """As a token request does: the client has the spelling that was asked for."""
    gateway, token = new_gateway(servers), ask_slashed(servers)
    (granted,) = claims_of(token)["authorization_details"]
    for spelling in ("HTTPS://Batch.Example:443", *SLASHED, BATCH):
        answer = choose_at(servers, gateway, token, [spelling, BATCH])
        assert answer.json["authorization_details"] == [granted]
    for others in ([DISBURSE], [BATCH, DISBURSE], [f"{BATCH}/other"]):
        require_refusal(choose_at(servers, gateway, token, others), 400, ERROR)


def test_a_token_with_locations_as_they_were_asked_for_is_exchanged(
    servers: Protocol, monkeypatch: pytest.MonkeyPatch
):
    """It was issued before an upgrade; the new token has them as registered."""
    with monkeypatch.context() as earlier:
        earlier.setattr(DetailRules, "_checked_locations", lambda *_: {"locations": SLASHED})
        token = ask_slashed(servers)
    (granted,) = claims_of(token)["authorization_details"]
    assert granted["locations"] == SLASHED
    gateway = new_gateway(servers)
    answers = [choose_at(servers, gateway, token, each) for each in (SLASHED, [BATCH])]
    for answer in (exchange(servers, gateway, token, scope=MANY), *answers):
        assert answer.json["authorization_details"] == [{**granted, "locations": [BATCH]}]


SLASHED = [f"{BATCH}/"]


def ask_slashed(protocol: Protocol) -> str:
    asked = {**DETAIL, "locations": SLASHED}
    return ask(protocol, new_payer(protocol), asked, scope=MANY).json["access_token"]


def choose_at(protocol: Protocol, gateway, token: str, locations: list[str]):
    """Exchange a token, with its only detail at these locations."""
    (granted,) = claims_of(token)["authorization_details"]
    text = json.dumps([{**granted, "locations": locations}])
    return exchange(protocol, gateway, token, scope=MANY, authorization_details=text)


def test_an_exchanged_token_ends_with_the_last_of_its_details(servers: Protocol):
    """As the token of another grant does, although the subject token has further details."""
    gateway = new_gateway(servers)
    ends = [
        (servers.clock() + timedelta(seconds=each)).strftime("%Y-%m-%dT%H:%M:%SZ")
        for each in (60, 120)
    ]
    first, last = ({**AT_DISBURSE, "not_after": end} for end in ends)
    answer = ask(servers, new_payer(servers), first, last, AT_BATCH)
    token, granted = answer.json["access_token"], answer.json["authorization_details"]
    assert answer.json["expires_in"] == 900

    def choose(*details, scope=ONE):
        text = json.dumps(details) if details else ""
        return exchange(servers, gateway, token, scope=scope, authorization_details=text)

    assert choose().json["expires_in"] == 120
    assert choose(granted[0]).json["expires_in"] == 60
    assert choose(scope=BOTH).json["expires_in"] == choose(scope=MANY).json["expires_in"] == 900
    servers.clock.advance(60)
    require_refusal(choose(granted[0]), 400, "invalid_request")
    assert choose(*granted[:2]).json["expires_in"] == 60
