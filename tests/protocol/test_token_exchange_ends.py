"""The ends of exchanged tokens, and presented tokens that are refused (RFC 8693)."""

import json

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from authz_server.operations.explain_token import explain_token
from keys.lifecycle.orders import Revoke, Taint
from support.claims import claims_of
from support.orders import rotator_of
from support.parties import ACTOR
from support.protocol import TOKEN_ENDPOINTS, Protocol, require_refusal
from support.status_lists import status_of
from support.token_exchange import (
    ACCESS_TOKEN,
    GRANT_TYPE,
    JWT,
    SCOPES,
    exchange,
    new_gateway,
    seen_by,
)


@pytest.fixture(scope="module")
def gateway(protocol: Protocol):
    """A client that may exchange, shared where a test does not change it."""
    return new_gateway(protocol)


@pytest.fixture
def subject(protocol: Protocol):
    """A new client whose tokens are exchanged."""
    return protocol.new_client(allowed_scopes=SCOPES)


def end_by_revocation(protocol, subject, token):
    assert protocol.ask("revoke", subject, token=token).status_code == 200


def end_by_cut_off(protocol, subject, token):
    del token
    with protocol.parties.change() as (services, session):
        services.revocations.cut_off_client(session, subject.id, actor=ACTOR, reason="a test")


def end_by_disabling(protocol, subject, token):
    del token
    with protocol.parties.change() as (services, session):
        services.clients.set_enabled(session, subject.id, actor=ACTOR, enabled=False)


def end_by_deleting(protocol, subject, token):
    del token
    with protocol.parties.change() as (services, session):
        services.clients.delete_client(session, subject.id, actor=ACTOR)


def end_by_withdrawing(protocol, subject, token):
    del token
    with protocol.parties.change() as (services, session):
        services.clients.update_client(
            session, subject.id, actor=ACTOR, allowed_scopes=["disburse/search"], default_scopes=[]
        )


ENDS = {
    "revocation": end_by_revocation,
    "cut-off": end_by_cut_off,
    "disabling": end_by_disabling,
    "deleting": end_by_deleting,
    "withdrawing": end_by_withdrawing,
}


@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize("role", ["subject", "earlier subject"])
def test_a_token_ends_with_the_token_that_it_was_exchanged_from(
    protocol: Protocol, end: str, role: str, subject
):
    gateway, second = new_gateway(protocol), new_gateway(protocol)
    token = protocol.new_token(subject)
    new = exchange(protocol, gateway, token).json["access_token"]
    if role == "earlier subject":
        new = exchange(protocol, second, new).json["access_token"]
    assert seen_by(protocol, protocol.demo.mapper, new)["active"]
    ENDS[end](protocol, subject, token)
    assert seen_by(protocol, protocol.demo.mapper, new) == {"active": False}
    for presented in (token, new):
        require_refusal(exchange(protocol, gateway, presented), 400, "invalid_request")


def test_a_token_ends_with_the_actor_s(protocol: Protocol, subject):
    for end in ("revocation", "cut-off", "disabling"):
        friend = protocol.new_client(allowed_scopes=SCOPES)
        gateway = new_gateway(protocol, actors=[friend.id])
        actor = protocol.new_token(friend)
        answer = exchange(
            protocol,
            gateway,
            protocol.new_token(subject),
            actor_token=actor,
            actor_token_type=ACCESS_TOKEN,
        )
        new = answer.json["access_token"]
        assert seen_by(protocol, protocol.demo.mapper, new)["active"]
        ENDS[end](protocol, friend, actor)
        assert seen_by(protocol, protocol.demo.mapper, new) == {"active": False}


def test_a_token_ends_with_the_client_that_exchanged_it(protocol: Protocol, subject):
    for end in ("cut-off", "disabling", "deleting"):
        gateway = new_gateway(protocol)
        token = protocol.new_token(subject)
        new = exchange(protocol, gateway, token).json["access_token"]
        ENDS[end](protocol, gateway, new)
        assert seen_by(protocol, protocol.demo.mapper, new) == {"active": False}
        # The subject token is not the gateway's.
        assert seen_by(protocol, protocol.demo.mapper, token)["active"]


def test_a_token_ends_with_the_key_of_the_subject_token(start_protocol):
    protocol = start_protocol()
    gateway, subject = new_gateway(protocol), protocol.new_client(allowed_scopes=SCOPES)
    token = protocol.new_token(subject)
    protocol.clock.advance(2)
    new = exchange(protocol, gateway, token).json["access_token"]
    # Only the origin is as old as the cut-off.
    instant = int((protocol.clock().timestamp() - 1) * 1_000_000)
    with protocol.parties.change() as (services, session):
        services.revocations.cut_off(
            session,
            kind="key",
            subject=jwt.get_unverified_header(token)["kid"],
            instant_microseconds=instant,
            actor=ACTOR,
        )
    assert seen_by(protocol, protocol.demo.mapper, new) == {"active": False}


@pytest.mark.parametrize(
    "form", [{"properties": {"status_list": True}}, {"token_format": "reference"}]
)
@pytest.mark.parametrize("role", ["subject", "actor", "earlier subject"])
def test_a_token_ends_with_a_revoked_key_that_signed_one_it_came_from(
    start_protocol, role: str, form: dict
):
    """Whoever has a leaked key exchanges what it signs for a token of a good key."""
    protocol = start_protocol(status_lists={"ttl_seconds": 5, "lifetime_seconds": 60})
    services, mapper = protocol.services, protocol.demo.mapper
    protocol.clock.advance(86_400)
    services.feed.poll()
    subject = protocol.new_client(allowed_scopes=SCOPES)
    gateway = new_gateway(protocol, actors=[subject.id])
    stolen = protocol.new_token(subject)
    kid = jwt.get_unverified_header(stolen)["kid"]
    rotator_of(services).apply(Taint(kid, "seen outside"), actor=ACTOR)
    services.feed.poll()
    good = protocol.new_token(subject)
    assert jwt.get_unverified_header(good)["kid"] != kid
    with protocol.parties.change() as (changed, session):
        changed.clients.update_resource_server(session, "mapper", actor=ACTOR, **form)
    acting = {"actor_token": stolen, "actor_token_type": ACCESS_TOKEN}
    new = (
        exchange(protocol, gateway, good, **acting)
        if role == "actor"
        else exchange(protocol, gateway, stolen)
    ).json["access_token"]
    if role == "earlier subject":
        new = exchange(protocol, new_gateway(protocol), new).json["access_token"]
    tokens = (stolen, good, new)
    assert [protocol.is_active(each) for each in tokens] == [True, True, True]
    rotator_of(services).apply(Revoke(kid, "seen outside"), actor=ACTOR)
    assert [protocol.is_active(each) for each in tokens] == [False, True, False]
    require_refusal(exchange(protocol, gateway, new), 400, "invalid_request")
    assert explain_token(services, new, mapper.id).cause == "origin_revoked"
    if "properties" in form:
        assert status_of(protocol, new) == 1


@pytest.mark.parametrize(
    "form", [{"properties": {"status_list": True}}, {"token_format": "reference"}]
)
@pytest.mark.parametrize("role", ["subject", "actor", "earlier subject"])
@pytest.mark.parametrize("is_deleted", [True, False], ids=["deleted", "renamed"])
def test_a_token_ends_with_the_resource_server_of_one_it_came_from(
    start_protocol, role: str, form: dict, *, is_deleted: bool
):
    """Also if it is for another one itself."""
    protocol = start_protocol(
        tokens={"several_resource_servers": "both"},
        status_lists={"ttl_seconds": 5, "lifetime_seconds": 60},
    )
    with protocol.parties.change() as (changed, session):
        # A token for both is possible if both have tokens of one form.
        for name in ("mapper", "disburse")[: 2 if "token_format" in form else 1]:
            changed.clients.update_resource_server(session, name, actor=ACTOR, **form)
    subject = protocol.new_client(allowed_scopes=SCOPES)
    gateway = new_gateway(protocol, actors=[subject.id])
    good = protocol.new_token(subject, scope="mapper/link")
    ending = protocol.new_token(
        subject, scope="disburse/search" if role == "actor" else "disburse/search mapper/link"
    )
    acting = {"actor_token": ending, "actor_token_type": ACCESS_TOKEN}
    new, other = (
        exchange(protocol, gateway, presented, scope="mapper/link", **fields).json["access_token"]
        for presented, fields in (
            (good if role == "actor" else ending, acting if role == "actor" else {}),
            (good, {}),
        )
    )
    if role == "earlier subject":
        new = exchange(protocol, new_gateway(protocol), new).json["access_token"]
    tokens = (new, other, good)
    assert [protocol.is_active(each) for each in tokens] == [True, True, True]
    with protocol.parties.change() as (changed, session):
        if is_deleted:
            changed.clients.delete_client(session, "disburse", actor=ACTOR)
        else:
            changed.clients.update_resource_server(
                session, "disburse", actor=ACTOR, identifier="https://other.example"
            )
    assert [protocol.is_active(each) for each in tokens] == [False, True, True]
    require_refusal(exchange(protocol, gateway, new), 400, "invalid_request")
    found = explain_token(protocol.services, new, protocol.demo.mapper.id)
    assert found.cause == "origin_revoked"
    if "properties" in form:
        assert [status_of(protocol, each) for each in tokens] == [1, 0, 0]


def test_the_client_revokes_its_exchanged_token_and_the_subject_cannot(
    protocol: Protocol, gateway, subject
):
    new = exchange(protocol, gateway, protocol.new_token(subject)).json["access_token"]
    assert protocol.ask("revoke", subject, token=new).status_code == 200
    assert seen_by(protocol, protocol.demo.mapper, new)["active"]
    assert protocol.ask("revoke", gateway, token=new).status_code == 200
    assert seen_by(protocol, protocol.demo.mapper, new) == {"active": False}


def hostile_tokens(protocol: Protocol, token: str) -> dict[str, str]:
    """Return tokens that look like an access token of this server and are none."""
    head, payload, signature = token.split(".")
    claims = claims_of(token)
    key = ec.generate_private_key(ec.SECP256R1())
    kid = jwt.get_unverified_header(token)["kid"]
    jwks = protocol.get("/.well-known/jwks.json").text
    typ = {"typ": "at+jwt", "kid": kid}
    deep = "[" * 4_000 + "]" * 4_000
    return {
        "no algorithm": jwt.encode(claims, None, "none", headers=typ),
        "symmetric": jwt.encode(claims, jwks[:64], "HS256", headers=typ),
        "another key": jwt.encode(claims, key, "ES256", headers=typ),
        "embedded key": jwt.encode(claims, key, "ES256", headers=typ | {"jwk": {"kty": "EC"}}),
        "key by address": jwt.encode(
            claims, key, "ES256", headers=typ | {"jku": "https://a.example"}
        ),
        "altered": f"{head}.{payload[:-2]}AA.{signature}",
        "without signature": f"{head}.{payload}.",
        "five parts": f"{token}.x.y",
        "deep payload": jwt.api_jws.encode(deep.encode(), key, "ES256", headers=typ)[:8_000],
        "random": "a" * 43,
        "not ASCII": "\u00e9.\u00e9.\u00e9",
        "json": json.dumps({"payload": payload, "signature": signature, "protected": head}),
    }


@pytest.mark.parametrize("name", ["subject_token", "actor_token"])
@pytest.mark.parametrize("endpoint", TOKEN_ENDPOINTS)
def test_hostile_tokens(protocol: Protocol, endpoint: str, name: str, gateway, subject):
    token = protocol.new_token(subject)
    for kind in (ACCESS_TOKEN, JWT):
        for label, hostile in hostile_tokens(protocol, token).items():
            fields = {name: hostile, f"{name}_type": kind}
            answer = exchange(protocol, gateway, token, endpoint, **fields)
            assert (answer.status_code, answer.json["error"]) == (400, "invalid_request"), label
    for size in (9_000, 64_000):
        fields = {name: "a" * size, f"{name}_type": ACCESS_TOKEN}
        answer = exchange(protocol, gateway, token, endpoint, **fields)
        assert answer.json["error"] == "invalid_request"


def test_details_of_the_subject_token_are_kept_or_fewer(protocol: Protocol):
    kind, scope = "g2p_disbursement", "disburse/disburse"
    grant = {
        "programmes": ["a", "b"],
        "currency_code": "KES",
        "payer_fas": ["account:1@bank"],
        "payment_cap": "10.00",
        "batch_cap": "100.00",
        "count": 10,
    }
    subject = protocol.new_client(
        allowed_scopes=[scope],
        default_scopes=[],
        properties={"authorization_details_grants": {kind: [grant]}},
    )
    asked = [{"type": kind, "programme": name, "currency_code": "KES"} for name in ("a", "b")]
    answer = protocol.ask(
        "token", subject, without="scope", authorization_details=json.dumps(asked)
    )
    token, details = answer.json["access_token"], answer.json["authorization_details"]
    gateway = protocol.new_client(
        allowed_scopes=[scope, "disburse/search"],
        default_scopes=[],
        grant_types=[GRANT_TYPE],
        properties={"token_exchange": {"subjects": [subject.id], "audiences": ["disburse"]}},
    )
    answer = exchange(protocol, gateway, token)
    assert answer.json["authorization_details"] == details
    fewer = exchange(protocol, gateway, token, authorization_details=json.dumps(details[:1]))
    new = fewer.json["access_token"]
    assert claims_of(new)["authorization_details"] == details[:1]
    assert seen_by(protocol, protocol.demo.disburse, new)["authorization_details"] == details[:1]
    assert details[0]["count"] == 10
    for other in (
        # Which Python takes for the one that the token has.
        [details[0] | {"count": 10.0}],
        [details[0] | {"payment_cap": "11.00"}],
        [details[0] | {"count": 1}],
        asked,
    ):
        answer = exchange(protocol, gateway, token, authorization_details=json.dumps(other))
        require_refusal(answer, 400, "invalid_authorization_details")
    # The limits are those of the client to which the details were granted.
    with protocol.parties.change() as (services, session):
        services.clients.update_client(
            session,
            subject.id,
            actor=ACTOR,
            properties={"authorization_details_grants": {kind: [grant | {"count": 9}]}},
        )
    assert seen_by(protocol, protocol.demo.disburse, new) == {"active": False}


def test_reference_tokens_are_exchanged_and_issued(start_protocol):
    protocol = start_protocol()
    with protocol.parties.change() as (services, session):
        services.clients.update_resource_server(
            session, "mapper", actor=ACTOR, token_format="reference"
        )
    gateway, subject = new_gateway(protocol), protocol.new_client(allowed_scopes=SCOPES)
    token = protocol.new_token(subject)
    new = exchange(protocol, gateway, token).json["access_token"]
    seen = seen_by(protocol, protocol.demo.mapper, new)
    assert (seen["sub"], seen["act"]) == (subject.id, {"sub": gateway.id})
    protocol.ask("revoke", subject, token=token)
    assert seen_by(protocol, protocol.demo.mapper, new) == {"active": False}
    fresh = protocol.new_token(subject)
    for fields in ({"requested_token_type": JWT}, {"subject_token_type": JWT}):
        require_refusal(exchange(protocol, gateway, fresh, **fields), 400, "invalid_request")
