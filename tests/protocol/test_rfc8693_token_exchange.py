"""Token exchange (RFC 8693): impersonation, delegation, and what the new token never exceeds."""

import json
import secrets

import pytest

from authz_server.plugin_manager import PluginManager
from support.claims import claims_of
from support.protocol import METHODS, TOKEN_ENDPOINTS, Protocol, require_refusal
from support.token_exchange import (
    ACCESS_TOKEN,
    DISBURSE,
    GRANT_TYPE,
    JWT,
    MAPPER,
    SCOPES,
    TYPES,
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


def test_the_record_of_a_refusal_names_the_token_and_the_reason(protocol: Protocol, subject):
    """Nothing of the reason is taken for a secret, and no part of a token is recorded."""
    token, actor = protocol.new_token(subject), protocol.new_token(protocol.demo.basic)
    gateway, none = new_gateway(protocol), new_gateway(protocol, subjects=[])
    ended = protocol.new_token(subject)
    assert protocol.ask("revoke", subject, token=ended).status_code == 200
    acting = {"actor_token": actor, "actor_token_type": ACCESS_TOKEN}
    for client, presented, fields, detail in (
        (none, token, {}, f"{subject.id} is not permitted as subject_token"),
        (gateway, token, acting, "client-basic is not permitted as actor_token"),
        (gateway, ended, {}, "it is revoked (subject_token)"),
        (gateway, "x", {}, "it is not a valid token of this server (subject_token)"),
        (gateway, token, acting | {"actor_token": "x"}, "token of this server (actor_token)"),
        (gateway, "x", {"subject_token_type": JWT}, "(subject_token)"),
    ):
        exchange(protocol, client, presented, **fields)
        record = json.loads(protocol.audit_trail().splitlines()[-1])
        assert record["reason"] == "exchanged_token_refused"
        assert record["detail"].endswith(detail)
        assert "redacted" not in record["detail"]


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


@pytest.mark.parametrize("impersonation", [True, False])
def test_a_token_for_the_messages_of_one_partner_becomes_none_for_those_of_another(
    protocol: Protocol, *, impersonation: bool
):
    """A client's own message key is written into tokens of subjects that have none."""
    keys = {name: secrets.token_urlsafe(32) for name in ("a", "g")}
    partner = protocol.new_client(
        allowed_scopes=SCOPES,
        properties={"sender_id": "a.example.org", "message_key_thumbprint": {"jkt": keys["a"]}},
    )
    named = protocol.new_client(allowed_scopes=SCOPES, properties={"sender_id": "b.example.org"})
    other = protocol.new_client(allowed_scopes=SCOPES)
    gateway = protocol.new_client(
        allowed_scopes=SCOPES,
        grant_types=[GRANT_TYPE],
        properties={
            "token_exchange": {
                "subjects": ["*"],
                "audiences": ["mapper"],
                "impersonation": impersonation,
            },
            "sender_id": "g.example.org",
            "message_key_thumbprint": {"jkt": keys["g"]},
        },
    )
    for subject, sender, key in (
        (partner, "a.example.org", keys["a"]),
        (named, "b.example.org", None),
        (other, "g.example.org", keys["g"]),
    ):
        answer = exchange(protocol, gateway, protocol.new_token(subject))
        token = answer.json["access_token"]
        for claims in (claims_of(token), seen_by(protocol, protocol.demo.mapper, token)):
            assert claims["sender_id"] == sender
            assert claims.get("message_cnf") == (key and {"jkt": key})


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


def test_a_token_is_exchanged_a_bounded_number_of_times(protocol: Protocol, subject):
    impersonator = new_gateway(protocol, impersonation=True)
    token = protocol.new_token(subject)
    for _ in range(8):
        token = exchange(protocol, impersonator, token).json["access_token"]
    assert len(claims_of(token)["exchanged_from"]) == 8
    require_refusal(exchange(protocol, impersonator, token), 400, "invalid_request")


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
    # The claim is about its own subject: that of the client does not go into the new token.
    claiming = protocol.new_client(
        allowed_scopes=SCOPES,
        grant_types=[GRANT_TYPE],
        properties={
            "token_exchange": {"subjects": ["*"], "audiences": ["mapper"]},
            "may_act": {"sub": other.id},
        },
    )
    answer = exchange(protocol, claiming, protocol.new_token(other))
    assert "may_act" not in claims_of(answer.json["access_token"])
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


def test_a_policy_of_a_plugin_sees_subject_and_actor(start_protocol, monkeypatch):
    protocol = start_protocol()
    gateway, subject = new_gateway(protocol), protocol.new_client(allowed_scopes=SCOPES)
    token, seen = protocol.new_token(subject), []
    monkeypatch.setattr(PluginManager, "decides", property(lambda _: True))

    def decide(_, request):
        seen.append(request)
        return request

    monkeypatch.setattr(PluginManager, "decide_token", decide)
    assert exchange(protocol, gateway, token).status_code == 200
    (request,) = seen
    assert (request.client_id, request.subject) == (gateway.id, subject.id)
    assert request.claims["act"] == {"sub": gateway.id}


def test_the_metadata_lists_the_grant(protocol: Protocol):
    metadata = protocol.get("/.well-known/oauth-authorization-server").json
    assert GRANT_TYPE in metadata["grant_types_supported"]
