"""Token exchange (RFC 8693): impersonation, delegation, and what the new token never exceeds."""

import json

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from authz_server.plugin_manager import PluginManager
from support.claims import claims_of
from support.parties import ACTOR, RESOURCE_SERVERS
from support.protocol import METHODS, TOKEN_ENDPOINTS, Protocol, require_refusal

GRANT_TYPE = "urn:ietf:params:oauth:grant-type:token-exchange"
TYPES = "urn:ietf:params:oauth:token-type:"
ACCESS_TOKEN, JWT = f"{TYPES}access_token", f"{TYPES}jwt"
MAPPER, DISBURSE = RESOURCE_SERVERS["mapper"], RESOURCE_SERVERS["disburse"]
SCOPES = ["mapper/link", "mapper/resolve", "disburse/search"]


def new_gateway(protocol: Protocol, method: str = "client_secret_post", **policy):
    """Make a client that exchanges the tokens of any client for tokens of the mapper."""
    usual = {"subjects": ["*"], "audiences": ["mapper"]}
    return protocol.new_client(
        method,
        allowed_scopes=SCOPES,
        grant_types=["client_credentials", GRANT_TYPE],
        properties={"token_exchange": usual | policy},
    )


def exchange(protocol: Protocol, client, presented: str, endpoint="token", **fields):
    usual = {
        "grant_type": GRANT_TYPE,
        "scope": "",
        "subject_token": presented,
        "subject_token_type": ACCESS_TOKEN,
    }
    return protocol.ask(endpoint, client, **usual | fields)


def seen_by(protocol: Protocol, caller, token: str):
    return protocol.ask("introspect", caller, token=token).json


@pytest.fixture(scope="module")
def gateway(protocol: Protocol):
    """A client that may exchange, shared where a test does not change it."""
    return new_gateway(protocol)


@pytest.fixture
def subject(protocol: Protocol):
    """A new client whose tokens are exchanged."""
    return protocol.new_client(allowed_scopes=SCOPES)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("endpoint", TOKEN_ENDPOINTS)
def test_the_client_acts_for_the_subject(protocol: Protocol, endpoint: str, method: str, subject):
    gateway = new_gateway(protocol, method)
    token = protocol.new_token(subject, scope="mapper/link mapper/resolve")
    answer = exchange(protocol, gateway, token, endpoint, scope="mapper/link")
    assert answer.json["issued_token_type"] == ACCESS_TOKEN
    assert answer.json["token_type"].lower() == "bearer"
    assert answer.json["scope"] == "mapper/link"
    claims = claims_of(answer.json["access_token"])
    assert (claims["sub"], claims["client_id"]) == (subject.id, gateway.id)
    assert claims["act"] == {"sub": gateway.id}
    assert claims["aud"] == MAPPER
    assert claims["exp"] <= claims_of(token)["exp"]
    for caller in (protocol.demo.mapper, gateway):
        seen = seen_by(protocol, caller, answer.json["access_token"])
        assert (seen["active"], seen["sub"], seen["client_id"]) == (True, subject.id, gateway.id)
        assert seen["act"] == {"sub": gateway.id}
    # It is the gateway's token, not the subject's.
    assert seen_by(protocol, subject, answer.json["access_token"]) == {"active": False}
    assert seen_by(protocol, protocol.demo.disburse, answer.json["access_token"]) == {
        "active": False
    }


def test_the_records_name_both_parties_and_both_clients(protocol: Protocol, gateway, subject):
    token = protocol.new_token(subject)
    actor = protocol.new_token(gateway)
    answer = exchange(protocol, gateway, token, actor_token=actor, actor_token_type=ACCESS_TOKEN)
    claims = claims_of(answer.json["access_token"])
    records = [json.loads(line) for line in protocol.audit_trail().splitlines()]
    mine = [each for each in records if each.get("jti") == claims["jti"]]
    assert [each["event"] for each in mine] == ["token.exchanged", "token.issued"]
    expected = {
        "client_id": gateway.id,
        "subject": subject.id,
        "subject_client_id": subject.id,
        "subject_jti": claims_of(token)["jti"],
        "actor": gateway.id,
        "actor_client_id": gateway.id,
        "actor_jti": claims_of(actor)["jti"],
        "act": {"sub": gateway.id},
    }
    assert {name: mine[0][name] for name in expected} == expected
    assert mine[1]["grant_type"] == GRANT_TYPE


def test_impersonation_is_a_right_of_its_own(protocol: Protocol, subject):
    impersonator = new_gateway(protocol, impersonation=True)
    answer = exchange(protocol, impersonator, protocol.new_token(subject))
    claims = claims_of(answer.json["access_token"])
    assert claims["sub"] == subject.id
    assert "act" not in claims
    # With an actor token it is a delegation all the same.
    actor = protocol.new_token(impersonator)
    answer = exchange(
        protocol,
        impersonator,
        protocol.new_token(subject),
        actor_token=actor,
        actor_token_type=ACCESS_TOKEN,
    )
    assert claims_of(answer.json["access_token"])["act"] == {"sub": impersonator.id}


def test_actors_nest_up_to_a_depth(protocol: Protocol, subject):
    token, actors = protocol.new_token(subject), []
    for _ in range(4):
        actors.insert(0, new_gateway(protocol))
        token = exchange(protocol, actors[0], token).json["access_token"]
    act = claims_of(token)["act"]
    for actor in actors:
        assert act["sub"] == actor.id
        act = act.get("act", {})
    assert act == {}
    answer = exchange(protocol, new_gateway(protocol), token)
    require_refusal(answer, 400, "invalid_request")
    # An impersonation keeps the earlier actors.
    shorter = exchange(protocol, actors[0], protocol.new_token(subject)).json["access_token"]
    impersonator = new_gateway(protocol, impersonation=True)
    answer = exchange(protocol, impersonator, shorter)
    assert claims_of(answer.json["access_token"])["act"] == {"sub": actors[0].id}


@pytest.mark.parametrize("endpoint", TOKEN_ENDPOINTS)
def test_actor_tokens_that_are_refused(protocol: Protocol, endpoint: str, subject):
    friend = protocol.new_client(allowed_scopes=SCOPES)
    gateway = new_gateway(protocol, actors=[friend.id])
    token = protocol.new_token(subject)
    for actor, status in ((gateway, 200), (friend, 200), (subject, 400)):
        answer = exchange(
            protocol,
            gateway,
            token,
            endpoint,
            actor_token=protocol.new_token(actor),
            actor_token_type=JWT,
        )
        assert answer.status_code == status
    assert answer.json["error"] == "invalid_request"
    own = protocol.new_token(gateway)
    delegated = exchange(protocol, gateway, own).json["access_token"]
    for fields in (
        {"actor_token": own},
        {"actor_token_type": ACCESS_TOKEN},
        {"actor_token": "x", "actor_token_type": ACCESS_TOKEN},
        {"actor_token": own, "actor_token_type": f"{TYPES}id_token"},
        # An actor does not bring an actor of its own.
        {"actor_token": delegated, "actor_token_type": ACCESS_TOKEN},
    ):
        answer = exchange(protocol, gateway, token, endpoint, **fields)
        require_refusal(answer, 400, "invalid_request", endpoint)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("endpoint", TOKEN_ENDPOINTS)
def test_who_may_exchange_which_tokens(protocol: Protocol, endpoint: str, method: str, subject):
    token = protocol.new_token(subject)
    without_grant = protocol.new_client(method, properties={"token_exchange": {"subjects": ["*"]}})
    answer = exchange(protocol, without_grant, token, endpoint)
    require_refusal(answer, 400, "unauthorized_client", endpoint)
    grants = [GRANT_TYPE]
    without_policy = protocol.new_client(method, grant_types=grants, allowed_scopes=SCOPES)
    # Not even its own token.
    own = protocol.new_client(method, allowed_scopes=SCOPES, grant_types=grants)
    for client, presented in ((without_policy, token), (own, protocol.new_token(subject))):
        answer = exchange(protocol, client, presented, endpoint)
        require_refusal(answer, 400, "invalid_request", endpoint)
    other = new_gateway(protocol, method, subjects=["somebody-else"])
    require_refusal(exchange(protocol, other, token, endpoint), 400, "invalid_request", endpoint)
    named = new_gateway(protocol, method, subjects=[subject.id])
    assert exchange(protocol, named, token, endpoint).status_code == 200


def test_may_act_names_the_only_actor(protocol: Protocol, gateway):
    other = new_gateway(protocol)
    for may_act, status in (
        ({"sub": gateway.id}, 200),
        ({"sub": gateway.id, "iss": "https://authz.example"}, 200),
        ({"sub": gateway.id, "iss": "https://other.example"}, 400),
        ({"sub": other.id}, 400),
    ):
        subject = protocol.new_client(allowed_scopes=SCOPES, properties={"may_act": may_act})
        token = protocol.new_token(subject)
        assert claims_of(token)["may_act"] == may_act
        assert seen_by(protocol, protocol.demo.mapper, token)["may_act"] == may_act
        answer = exchange(protocol, gateway, token)
        assert answer.status_code == status, may_act
        if status == 200:
            assert claims_of(answer.json["access_token"])["may_act"] == may_act
        else:
            require_refusal(answer, 400, "invalid_request")
    # The actor of an actor token is the party that counts.
    answer = exchange(
        protocol,
        new_gateway(protocol, actors=[other.id]),
        token,
        actor_token=protocol.new_token(other),
        actor_token_type=ACCESS_TOKEN,
    )
    assert claims_of(answer.json["access_token"])["act"] == {"sub": other.id}


@pytest.mark.parametrize("endpoint", TOKEN_ENDPOINTS)
def test_scopes_are_never_widened(protocol: Protocol, endpoint: str, gateway, subject):
    token = protocol.new_token(subject, scope="mapper/link")
    # None asked: what remains of the subject token, not the client's default scopes.
    assert exchange(protocol, gateway, token, endpoint).json["scope"] == "mapper/link"
    for scope in ("mapper/resolve", "mapper/link mapper/resolve", "disburse/search", "unknown"):
        answer = exchange(protocol, gateway, token, endpoint, scope=scope)
        require_refusal(answer, 400, "invalid_scope", endpoint)
    # Nor beyond what the client itself may have.
    narrow = protocol.new_client(
        allowed_scopes=["mapper/resolve"],
        default_scopes=[],
        grant_types=[GRANT_TYPE],
        properties={"token_exchange": {"subjects": ["*"], "audiences": ["mapper"]}},
    )
    for fields in ({}, {"scope": "mapper/link"}):
        answer = exchange(protocol, narrow, token, endpoint, **fields)
        require_refusal(answer, 400, "invalid_scope", endpoint)


@pytest.mark.parametrize("endpoint", TOKEN_ENDPOINTS)
def test_audiences_and_resources(protocol: Protocol, endpoint: str, gateway, subject):
    token = protocol.new_token(subject, scope="mapper/link")
    for named in (
        {"audience": "mapper"},
        {"audience": MAPPER},
        {"resource": f"{MAPPER}/"},
        {"audience": ["mapper", MAPPER], "resource": MAPPER},
    ):
        answer = exchange(protocol, gateway, token, endpoint, **named)
        assert claims_of(answer.json["access_token"])["aud"] == MAPPER, named
    for named in (
        {"audience": "disburse"},
        {"audience": "unknown"},
        {"audience": gateway.id},
        {"audience": ["mapper", "disburse"]},
        {"resource": DISBURSE},
        {"resource": "https://unknown.example"},
        {"resource": f"{MAPPER}#x"},
    ):
        answer = exchange(protocol, gateway, token, endpoint, **named)
        require_refusal(answer, 400, "invalid_target", endpoint)
    # Left unnamed, the resource server of the scope has to be permitted as well.
    other = protocol.new_token(subject, scope="disburse/search")
    answer = exchange(protocol, gateway, other, endpoint, scope="disburse/search")
    require_refusal(answer, 400, "invalid_target", endpoint)


def test_audience_repeats_at_token_exchange_alone(protocol: Protocol, subject):
    for endpoint in ("token", "g2p", "introspect", "revoke"):
        answer = protocol.ask(endpoint, subject, audience=["mapper", "mapper"])
        require_refusal(answer, 400, "invalid_request", endpoint)


def test_life_ends_with_the_presented_tokens(protocol: Protocol, gateway, subject):
    token = protocol.new_token(subject)
    brief = protocol.new_client(allowed_scopes=SCOPES, token_lifetime_seconds=120)
    acting = new_gateway(protocol, actors=[brief.id])
    actor = protocol.new_token(brief)
    protocol.clock.advance(100)
    answer = exchange(protocol, gateway, token)
    assert answer.json["expires_in"] == 800
    answer = exchange(protocol, acting, token, actor_token=actor, actor_token_type=ACCESS_TOKEN)
    assert answer.json["expires_in"] == 20
    protocol.clock.advance(800)
    require_refusal(exchange(protocol, gateway, token), 400, "invalid_request")


@pytest.mark.parametrize("endpoint", TOKEN_ENDPOINTS)
def test_requested_token_types(protocol: Protocol, endpoint: str, gateway, subject):
    token = protocol.new_token(subject)
    for requested in (ACCESS_TOKEN, JWT):
        answer = exchange(protocol, gateway, token, endpoint, requested_token_type=requested)
        assert answer.json["issued_token_type"] == requested
    for requested in ("refresh_token", "id_token", "saml2"):
        answer = exchange(
            protocol, gateway, token, endpoint, requested_token_type=f"{TYPES}{requested}"
        )
        require_refusal(answer, 400, "invalid_request", endpoint)
    for presented in ("id_token", "refresh_token", "saml1", "x"):
        answer = exchange(
            protocol, gateway, token, endpoint, subject_token_type=f"{TYPES}{presented}"
        )
        require_refusal(answer, 400, "invalid_request", endpoint)
    for missing in ("subject_token", "subject_token_type"):
        answer = exchange(protocol, gateway, token, endpoint, **{missing: ""})
        require_refusal(answer, 400, "invalid_request", endpoint)


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
    for other in ([details[0] | {"payment_cap": "11.00"}], [details[0] | {"count": 1}], asked):
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


def test_a_policy_of_a_plugin_sees_subject_and_actor(start_protocol, monkeypatch):
    protocol = start_protocol()
    gateway, subject = new_gateway(protocol), protocol.new_client(allowed_scopes=SCOPES)
    token, seen = protocol.new_token(subject), []
    monkeypatch.setattr(PluginManager, "decides", property(lambda _: True))
    monkeypatch.setattr(PluginManager, "decide_token", lambda _, request: seen.append(request))
    assert exchange(protocol, gateway, token).status_code == 200
    (request,) = seen
    assert (request.client_id, request.subject) == (gateway.id, subject.id)
    assert request.claims["act"] == {"sub": gateway.id}


def test_the_metadata_lists_the_grant(protocol: Protocol):
    metadata = protocol.get("/.well-known/oauth-authorization-server").json
    assert GRANT_TYPE in metadata["grant_types_supported"]
