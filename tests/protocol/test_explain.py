"""Explanations of requests and tokens are those of the endpoints, and nothing is issued."""

import json
from datetime import timedelta

import pytest

from authz_server.database.change_feed import record_change
from authz_server.errors import InvalidChangeError, NotFoundError
from authz_server.operations.explain import RequestExplanation, explain_request
from authz_server.operations.explain_token import TokenExplanation, explain_token
from authz_server.operations.programmes import define_programme
from authz_server.operations.stops import lift_stop, plan_stop, set_stop
from keys.lifecycle.orders import Revoke
from support.claims import header_of
from support.orders import rotator_of
from support.parties import ACTOR, RESOURCE_SERVERS, Credentials
from support.protocol import Protocol
from support.token_exchange import exchange, new_gateway

HERE, ELSEWHERE = "198.51.100.7", "203.0.113.66"


def change(protocol: Protocol, client: Credentials, **values) -> None:
    """Change fields or, by `properties`, optional properties of a client."""
    with protocol.parties.change() as (services, session):
        services.clients.update_client(session, client.id, actor=ACTOR, **values)


def explained(protocol: Protocol, client: Credentials, **request) -> RequestExplanation:
    """Explain a request, and check that the token endpoint answers it so."""
    request = {"scope": "mapper/link", "address": HERE} | request
    records = len(protocol.audit_trail())
    found = explain_request(protocol.services, client.id, **request)
    assert len(protocol.audit_trail()) == records
    form = {"grant_type": "client_credentials", **client.form()}
    if request["scope"] is not None:
        form["scope"] = request["scope"]
    if request.get("resources"):
        form["resource"] = list(request["resources"])
    sender = {"REMOTE_ADDR": request["address"]}
    answer = protocol.post("token", form, client.headers(), environ_base=sender)
    assert (answer.status_code, answer.json.get("error", "")) == (found.status, found.error)
    if found.granted:
        assert answer.json["scope"] == found.scope
        assert answer.json["expires_in"] == found.lifetime_seconds
    else:
        assert f'"reason":"{found.cause}"' in protocol.audit_trail()[records:]
        assert found.remedy
    return found


def test_a_granted_request_is_explained_by_its_token(protocol: Protocol):
    """With audience, format and lifetime."""
    found = explained(protocol, protocol.new_client())
    assert found.granted
    assert (found.audience, found.token_format) == ((RESOURCE_SERVERS["mapper"],), "jwt")
    assert found.conditions == ()


def test_parameters_without_a_value_are_absent(protocol: Protocol):
    """As at the endpoint (RFC 6749, 3.2)."""
    found = explained(protocol, protocol.new_client(), scope="", resources=[""])
    assert (found.granted, found.scope) == (True, "mapper/link")
    several = ["", RESOURCE_SERVERS["mapper"], ""]
    assert explained(protocol, protocol.new_client(), resources=several).granted


def test_conditions_that_are_not_judged_are_named(protocol: Protocol):
    """A budget is not counted, and a proof is not made."""
    client = protocol.new_client(
        properties={
            "dpop_bound_access_tokens": True,
            "token_budget": [{"per": "day", "tokens": 1}],
        }
    )
    found = explain_request(protocol.services, client.id, scope="mapper/link")
    assert found.granted
    assert "DPoP" in found.conditions[0]
    assert "in this day is below 1." in found.conditions[1]


@pytest.mark.parametrize(
    ("values", "request_values", "cause"),
    [
        ({}, {"scope": "mapper/unlink"}, "scope_not_granted"),
        ({}, {"scope": "m" * 5_000}, "scope_too_long"),
        ({"default_scopes": []}, {"scope": None}, "scope_missing"),
        ({}, {"resources": ["https://unknown.example"]}, "resource_invalid"),
        ({"grant_types": ["urn:example:other"]}, {}, "grant_type_not_allowed"),
        (
            {"properties": {"allowed_networks": [HERE]}},
            {"address": ELSEWHERE},
            "network_not_allowed",
        ),
    ],
)
def test_a_refused_request_is_explained_by_cause_and_remedy(
    protocol: Protocol, values, request_values, cause
):
    """The cause is that of the audit record."""
    if "grant_types" in values:
        values = {"grant_types": ["urn:ietf:params:oauth:grant-type:token-exchange"]}
    found = explained(protocol, protocol.new_client(**values), **request_values)
    assert (found.granted, found.cause) == (False, cause)


def test_the_state_of_the_client_refuses_first(protocol: Protocol):
    """Disabled, expired, not yet valid, without a secret, unknown."""
    now = protocol.clock()
    hour = timedelta(hours=1)
    later, over = protocol.new_client(starts_at=now + hour), protocol.new_client()
    change(protocol, over, starts_at=now - 2 * hour, expires_at=now - hour)
    off = protocol.new_client()
    with protocol.parties.change() as (services, session):
        services.clients.set_enabled(session, off.id, actor=ACTOR, enabled=False)
    unknown = Credentials("unknown-client", off.secret, "client_secret_post")
    causes = [explained(protocol, each).cause for each in (later, over, off, unknown)]
    assert causes == [
        *("client_not_yet_valid", "client_expired", "client_disabled", "client_unknown"),
    ]
    bare = protocol.new_client()
    with protocol.parties.change() as (services, session):
        (secret,) = services.clients.get_client(session, bare.id).secrets
        services.clients.end_secret(session, bare.id, secret.id, actor=ACTOR)
    assert explained(protocol, bare).cause == "secret_expired"


def test_a_method_is_judged_if_it_is_named(protocol: Protocol):
    """The registered one is permitted; an unknown one cannot be asked for."""
    client = protocol.new_client("client_secret_basic")
    services = protocol.services
    named = {"scope": "mapper/link"}
    assert explain_request(services, client.id, method="client_secret_basic", **named).granted
    found = explain_request(services, client.id, method="client_secret_post", **named)
    assert found.cause == "method_not_registered"
    with pytest.raises(InvalidChangeError, match="client_secret_post"):
        explain_request(services, client.id, method="password", **named)


def test_a_closed_payment_window_refuses(protocol: Protocol):
    """An open one limits the lifetime."""
    now = protocol.clock()

    def window(begin: int, end: int) -> dict[str, object]:
        starts, ends = now + timedelta(minutes=begin), now + timedelta(minutes=end)
        return {"from": f"{starts:%H:%M}", "to": f"{ends:%H:%M}", "time_zone": "UTC"}

    client = protocol.new_client(properties={"payment_windows": [window(-60, -30)]})
    assert explained(protocol, client).cause == "outside_payment_window"
    change(protocol, client, properties={"payment_windows": [window(-60, 5)]})
    found = explained(protocol, client)
    assert found.granted
    assert found.lifetime_seconds <= 300


@pytest.mark.parametrize("kind", ["scope", "client", "resource-server", "programme"])
def test_a_stop_is_explained_for_requests_and_tokens(protocol: Protocol, kind: str):
    """The cause is the kind of the stop."""
    client = protocol.new_client()
    token = protocol.new_token(client)
    services = protocol.services
    subject = {"scope": "mapper/link", "client": client.id, "resource-server": "mapper"}.get(
        kind, client.id
    )
    if kind == "programme":
        define_programme(services, subject, scopes=["mapper/link"], clients=[], actor=ACTOR)
    set_stop(services, plan_stop(services, kind, subject), reason="a test", actor=ACTOR)
    cause = f"{kind.replace('-', '_')}_stopped"
    try:
        found = explained(protocol, client)
        assert found.cause == cause
        assert "stop" in found.remedy
        assert inactive(protocol, token).cause == cause
    finally:
        lift_stop(services, kind, subject, reason="a test", actor=ACTOR)
        services.feed.poll()


# --------------------------------------------------------------------------------------- tokens


def inactive(protocol: Protocol, token: str, caller: Credentials | None = None) -> TokenExplanation:
    """Explain an inactive token, and check that introspection answers so."""
    caller = caller or protocol.demo.mapper
    found = explain_token(protocol.services, token, caller.id)
    assert protocol.ask("introspect", caller, token=token).json == {"active": False}
    assert not found.active
    assert found.reason
    assert found.remedy
    return found


def test_an_active_token_is_explained_by_what_the_caller_sees(protocol: Protocol):
    """A token is not recorded."""
    token = protocol.new_token()
    records = protocol.audit_trail()
    found = explain_token(protocol.services, token, "mapper")
    assert (found.active, found.scopes, found.cause) == (True, ("mapper/link",), "")
    assert found.claims.client_id == protocol.demo.basic.id
    assert protocol.audit_trail() == records
    assert protocol.ask("introspect", protocol.demo.mapper, token=token).json["active"]


def test_another_caller_is_not_in_the_audience(protocol: Protocol):
    """The remedy names who may ask."""
    found = inactive(protocol, protocol.new_token(), protocol.demo.disburse)
    assert found.cause == "audience"
    assert RESOURCE_SERVERS["mapper"] in found.reason
    with pytest.raises(NotFoundError, match="resource-server list"):
        explain_token(protocol.services, "token", "unknown")


def test_a_wrong_signature_or_text_is_no_token_of_this_server(protocol: Protocol):
    """Neither are unknown reference tokens."""
    head, _, signature = protocol.new_token().rpartition(".")
    altered = f"{head}.{signature[::-1]}"
    for text in (altered, "a.b.c", "x", "A" * 43):
        found = inactive(protocol, text)
        assert (found.cause, found.claims) == ("signature", None)


def test_a_revoked_token_is_explained_by_its_revocation(protocol: Protocol):
    """One token, or all of a client."""
    client = protocol.new_client()
    one, other = protocol.new_token(client), protocol.new_token(client)
    assert protocol.ask("revoke", client, token=one).status_code == 200
    assert inactive(protocol, one).cause == "token_revoked"
    with protocol.parties.change() as (services, session):
        services.revocations.cut_off_client(session, client.id, actor=ACTOR, reason="a test")
    found = inactive(protocol, other)
    assert (found.cause, client.id in found.reason) == ("cut_off", True)


def test_the_state_of_the_client_makes_a_token_inactive(protocol: Protocol):
    """Its scopes are withdrawn, it is disabled, or deleted."""
    client = protocol.new_client()
    token = protocol.new_token(client)
    change(protocol, client, allowed_scopes=["mapper/resolve"], default_scopes=[])
    assert inactive(protocol, token).cause == "scopes_withdrawn"
    reach = {"allowed_scopes": ["mapper/link"], "allowed_resource_servers": ["disburse"]}
    change(protocol, client, **reach)
    assert inactive(protocol, token).cause == "scopes_withdrawn"
    change(protocol, client, allowed_resource_servers=["disburse", "mapper"])
    assert protocol.is_active(token)
    with protocol.parties.change() as (services, session):
        services.clients.set_enabled(session, client.id, actor=ACTOR, enabled=False)
    assert inactive(protocol, token).cause == "client_disabled"
    with protocol.parties.change() as (services, session):
        services.clients.delete_client(session, client.id, actor=ACTOR)
    assert inactive(protocol, token).cause in {"client_deleted", "cut_off"}


def test_an_exchanged_token_ends_with_its_origin(protocol: Protocol):
    """The cause is the revocation of the subject token."""
    client, gateway = protocol.new_client(), new_gateway(protocol)
    token = protocol.new_token(client)
    exchanged = exchange(protocol, gateway, token).json["access_token"]
    assert protocol.ask("revoke", client, token=token).status_code == 200
    assert inactive(protocol, exchanged).cause == "origin_revoked"


def test_an_expired_token_is_explained_with_its_claims(protocol: Protocol):
    """The signature is right, so that the claims can be believed."""
    token = protocol.new_token()
    protocol.clock.advance(7_200)
    try:
        found = explain_token(protocol.services, token, "mapper")
        assert (found.active, found.cause) == (False, "expired")
        assert found.claims.client_id == protocol.demo.basic.id
    finally:
        protocol.clock.advance(-7_200)


def test_a_token_from_the_future_is_not_yet_valid(protocol: Protocol):
    """The claims are shown."""
    protocol.clock.advance(7_200)
    token = protocol.new_token()
    protocol.clock.advance(-7_200)
    found = inactive(protocol, token)
    assert (found.cause, found.claims.scope) == ("not_yet_valid", "mapper/link")


def test_a_scope_of_another_resource_server_is_not_seen(protocol: Protocol):
    """The audience is right, and the scope has no owner now."""
    registry = protocol.parties.make_resource_server("registry")
    token = protocol.new_token(
        protocol.new_client(allowed_scopes=["registry/search"], default_scopes=[]),
        scope="registry/search",
    )
    with protocol.parties.change() as (services, session):
        services.scopes.assign(session, ["registry/search"], None, actor=ACTOR)
    assert inactive(protocol, token, registry).cause == "scopes_of_others"


def test_details_that_are_no_longer_granted_end_a_token(protocol: Protocol):
    """Its scope alone would permit more."""
    grant = {"programmes": ["cash-2026"], "currency_code": "KES", "payer_fas": ["account:1@bank"]}
    limits = {"payment_cap": "10.00", "batch_cap": "10.00", "count": 1}
    granted = {"g2p_disbursement": [grant | limits]}
    client = protocol.new_client(
        allowed_scopes=["disburse/disburse"],
        default_scopes=[],
        properties={"authorization_details_grants": granted},
    )
    asked = {"type": "g2p_disbursement", "programme": "cash-2026", "currency_code": "KES"}
    token = protocol.new_token(client, scope="", authorization_details=json.dumps([asked]))
    lower = {"g2p_disbursement": [grant | limits | {"payment_cap": "9.00"}]}
    change(protocol, client, properties={"authorization_details_grants": lower})
    assert inactive(protocol, token, protocol.demo.disburse).cause == "details_withdrawn"


def test_a_token_of_an_earlier_client_of_the_same_id_is_inactive(protocol: Protocol):
    """The row is younger than the token, as after a deletion on another database."""
    client = protocol.new_client()
    token = protocol.new_token(client)
    with protocol.parties.change() as (services, session):
        services.clients.get_client(session, client.id).created_at += timedelta(hours=1)
        record_change(session, "client", client.id)
    assert inactive(protocol, token).cause == "client_replaced"


def test_the_state_of_a_key_that_is_not_accepted_is_named(start_protocol):
    """An application of this test alone: its key does not come back."""
    protocol = start_protocol()
    protocol.clock.advance(86_400)
    services = protocol.services
    services.feed.poll()
    token = protocol.new_token()
    kid = header_of(token)["kid"]
    rotator_of(services).apply(Revoke(kid, "a drill"), actor=ACTOR)
    services.feed.poll()
    found = inactive(protocol, token)
    assert (found.cause, found.claims) == ("key", None)
    assert f"{kid} is revoked" in found.reason
