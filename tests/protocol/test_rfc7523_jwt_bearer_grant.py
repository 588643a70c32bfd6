"""Assertions of registered issuers as authorization (RFC 7523, 2.1)."""

import json
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace

import pytest

from authz_server.app import EXTENSION
from authz_server.clients.payment_windows import WEEKDAYS
from authz_server.clients.token_budgets import TokenBudget
from authz_server.errors import OAuthError
from authz_server.plugin_manager import PluginManager
from authz_server.waiting import run
from support.assertions import Signer, new_key
from support.claims import claims_of
from support.dpop import ProofKey
from support.issuers import CLUSTER, Issuers
from support.parties import ACTOR, Credentials
from support.protocol import (
    ENDPOINTS,
    METHODS,
    TOKEN_ENDPOINTS,
    Protocol,
    require_refusal,
    running_protocol,
)
from support.scripted_server import ScriptedServer
from support.settings_file import ISSUER

JWT_BEARER_GRANT = "urn:ietf:params:oauth:grant-type:jwt-bearer"
OFFICER = "officer:kisumu:17"
SUBJECTS = [{"issuer": "provider", "subject": "officer:*:17"}]


@pytest.fixture(scope="module")
def issuers(tmp_path_factory) -> Iterator[Issuers]:
    with Issuers(tmp_path_factory.mktemp("issuers")) as issuers:
        yield issuers


@pytest.fixture(scope="module")
def protocol(module_database_url: str, issuers: Issuers) -> Iterator[Protocol]:
    """The application with registered issuers; one server, since assertions are used once."""
    settings = issuers.settings()
    with running_protocol(issuers.directory, module_database_url, **settings) as protocol:
        issuers.clock = protocol.clock
        yield protocol


def make_client(protocol: Protocol, method: str = METHODS[1], **values) -> Credentials:
    usual = {
        "grant_types": [JWT_BEARER_GRANT, "client_credentials"],
        "properties": {"jwt_bearer_subjects": SUBJECTS},
    }
    return protocol.new_client(method, **usual | values)


@pytest.fixture(scope="module")
def caller(protocol: Protocol) -> Credentials:
    """A client that acts for officers."""
    return make_client(protocol)


@pytest.fixture(params=TOKEN_ENDPOINTS)
def endpoint(request) -> str:
    return request.param


def ask(
    protocol: Protocol,
    endpoint: str,
    caller: Credentials,
    assertion: str | None,
    headers: dict[str, str] | None = None,
    **fields,
):
    form = {"grant_type": JWT_BEARER_GRANT, "assertion": assertion} | caller.form() | fields
    sent = {name: value for name, value in form.items() if value is not None}
    # What one test is refused must not fold what another one reads.
    protocol.record_refusals_alone()
    return protocol.post(endpoint, sent, caller.headers() | (headers or {}))


def cause_of(protocol: Protocol) -> str:
    return json.loads(protocol.audit_trail().splitlines()[-1])["reason"]


@pytest.mark.parametrize("method", METHODS)
def test_the_token_is_of_the_subject_and_for_the_client(protocol, issuers, endpoint, method):
    caller = make_client(protocol, method)
    assertion = issuers.provider_signer(OFFICER).assertion()
    answer = ask(protocol, endpoint, caller, assertion, scope="mapper/resolve")
    assert answer.status_code == 200, answer.text
    token = answer.json["access_token"]
    claims = claims_of(token)
    assert (claims["sub"], claims["client_id"]) == (OFFICER, caller.id)
    named = {"format": "iss_sub", "iss": issuers.provider, "sub": OFFICER}
    assert claims["sub_id"] == named
    assert claims["scope"] == answer.json["scope"] == "mapper/resolve"
    described = protocol.ask("introspect", protocol.demo.mapper, token=token).json
    assert (described["active"], described["sub"]) == (True, OFFICER)
    assert described["sub_id"] == named
    assert described["client_id"] == caller.id
    # The client revokes what was issued to it.
    assert protocol.ask("revoke", caller, token=token).status_code == 200
    assert not protocol.is_active(token)


def test_the_record_names_the_subject_and_the_assertion(protocol, issuers, caller):
    signer = issuers.provider_signer(OFFICER)
    assert ask(protocol, "token", caller, signer.assertion(jti="the-assertion")).status_code == 200
    events = [json.loads(line) for line in protocol.audit_trail().splitlines()[-2:]]
    (exchanged,) = (each for each in events if each["event"] == "token.exchanged")
    assert exchanged["subject"] == OFFICER
    assert exchanged["subject_issuer"] == issuers.provider
    assert exchanged["subject_jti"] == "the-assertion"


@pytest.mark.parametrize("typ", [None, "JWT", "jwt", "authorization-grant+jwt"])
def test_the_type_of_an_assertion_may_name_its_purpose(protocol, issuers, caller, typ):
    assertion = issuers.provider_signer(OFFICER).assertion({"typ": typ})
    assert ask(protocol, "token", caller, assertion).status_code == 200


def test_a_token_does_not_outlive_its_assertion(protocol, issuers, caller):
    """RFC 7521, 4.1."""
    now = int(protocol.clock().timestamp())
    signer = issuers.provider_signer(OFFICER)
    for seconds, expected in ((60, 60), (300, 300), (5, 60), (-5, 60)):
        assertion = signer.assertion(iat=now - 10, exp=now + seconds)
        assert ask(protocol, "token", caller, assertion).json["expires_in"] == expected


def test_an_assertion_is_accepted_once(protocol, issuers, endpoint, caller):
    signer = issuers.provider_signer(OFFICER)
    assertion = signer.assertion(jti=f"once-{endpoint}-{caller.id}")
    assert ask(protocol, endpoint, caller, assertion).status_code == 200
    for again in (assertion, signer.assertion(jti=f"once-{endpoint}-{caller.id}", extra=1)):
        require_refusal(ask(protocol, endpoint, caller, again), 400, "invalid_grant", endpoint)
        assert cause_of(protocol) == "assertion_replayed"


def test_a_refused_request_does_not_use_an_assertion_up(protocol, issuers, caller):
    assertion = issuers.provider_signer(OFFICER).assertion()
    other = make_client(protocol, properties={"jwt_bearer_subjects": None})
    require_refusal(ask(protocol, "token", other, assertion), 400, "invalid_grant")
    answer = ask(protocol, "token", caller, assertion, scope="mapper/unknown")
    require_refusal(answer, 400, "invalid_scope")
    assert ask(protocol, "token", caller, assertion).status_code == 200


@pytest.mark.parametrize("limit", ["budget", "window", "proof"])
def test_a_limit_of_the_client_does_not_use_an_assertion_up(protocol, issuers, endpoint, limit):
    """A client that has to wait, or to make another proof, sends the same assertion again."""
    day = protocol.clock().strftime("%a").lower()
    others = [each for each in WEEKDAYS if each != day]
    window = {"days": others, "from": "00:00", "to": "24:00", "time_zone": "UTC"}
    limits = {
        "budget": {"token_budget": {"per": "day", "tokens": 1}},
        "window": {"payment_windows": [window]},
        "proof": {},
    }
    properties = {"jwt_bearer_subjects": SUBJECTS}
    caller = make_client(protocol, properties=properties | limits[limit])
    signer = issuers.provider_signer(OFFICER)
    proof = {"DPoP": ProofKey().prove(protocol.clock().timestamp(), ENDPOINTS[endpoint])}
    ask(protocol, endpoint, caller, signer.assertion(), proof)
    assertion = signer.assertion()
    refused = ask(protocol, endpoint, caller, assertion, proof if limit == "proof" else None)
    assert refused.json["error"] in {"slow_down", "unauthorized_client", "invalid_dpop_proof"}
    with protocol.parties.change() as (services, session):
        lifted = dict.fromkeys(limits[limit])
        services.clients.update_client(session, caller.id, actor=ACTOR, properties=lifted)
    assert ask(protocol, endpoint, caller, assertion).status_code == 200
    again = ask(protocol, endpoint, caller, assertion)
    require_refusal(again, 400, "invalid_grant", endpoint)


def test_what_is_presented_again_spends_no_budget(protocol, issuers, endpoint):
    """A replayed assertion, and a replayed proof."""
    budget = {"token_budget": {"per": "day", "tokens": 2}}
    caller = make_client(protocol, properties={"jwt_bearer_subjects": SUBJECTS} | budget)
    signer = issuers.provider_signer(OFFICER)
    proof = {"DPoP": ProofKey().prove(protocol.clock().timestamp(), ENDPOINTS[endpoint])}
    assertion = signer.assertion()
    assert ask(protocol, endpoint, caller, assertion, proof).status_code == 200
    for again, error in ((proof, "invalid_dpop_proof"), (None, "invalid_grant")):
        answer = ask(protocol, endpoint, caller, assertion, again)
        require_refusal(answer, 400, error, endpoint)
    assert ask(protocol, endpoint, caller, signer.assertion()).status_code == 200
    answer = ask(protocol, endpoint, caller, signer.assertion())
    require_refusal(answer, 429, "slow_down", endpoint)


def test_a_budget_that_another_node_spends_uses_no_assertion_up(database_url, tmp_path):
    """This process finds it in the store before, not only when it counts the token."""
    shared = {"clients": {"throttle": "database"}}
    with Issuers(tmp_path) as issuers:
        settings = issuers.settings() | shared
        with running_protocol(tmp_path, database_url, **settings) as protocol:
            issuers.clock = protocol.clock
            budget = TokenBudget(per="day", tokens=1)
            limits = {"token_budget": {"per": budget.per, "tokens": budget.tokens}}
            caller = make_client(protocol, properties={"jwt_bearer_subjects": SUBJECTS} | limits)
            now = protocol.clock().timestamp()
            counters = protocol.app.extensions[EXTENSION].shared_counters
            name = ("token", caller.id, budget.per, "")
            run(counters.add(*name, now=now, ends_at=budget.ends_at(now)))
            assertion = issuers.provider_signer(OFFICER).assertion()
            require_refusal(ask(protocol, "token", caller, assertion), 429, "slow_down")
            with protocol.parties.change() as (services, session):
                lifted = {"token_budget": None}
                services.clients.update_client(session, caller.id, actor=ACTOR, properties=lifted)
            assert ask(protocol, "token", caller, assertion).status_code == 200


def test_a_refusal_of_a_plugin_spends_neither_the_assertion_nor_the_budget(
    protocol, issuers, endpoint, monkeypatch
):
    """And a token counts for the scopes that the plugin leaves."""
    budgets = [
        {"per": "day", "tokens": 1, "scope": "mapper/resolve"},
        {"per": "day", "tokens": 2},
    ]
    properties = {"jwt_bearer_subjects": SUBJECTS, "token_budget": budgets}
    caller = make_client(protocol, properties=properties)
    signer = issuers.provider_signer(OFFICER)

    def refuse(_, request):
        raise OAuthError("refused_by_policy", client_id=request.client_id)

    def narrow(_, request):
        return replace(request, scopes=("mapper/link",))

    def leave(_, request):
        return request

    assertion = signer.assertion()
    monkeypatch.setattr(PluginManager, "decides", property(lambda _: True))
    statuses = []
    for decide, presented in (
        (refuse, assertion),
        (refuse, assertion),
        (narrow, assertion),
        (leave, signer.assertion()),
        (leave, signer.assertion()),
    ):
        monkeypatch.setattr(PluginManager, "decide_token", decide)
        answer = ask(protocol, endpoint, caller, presented, scope="mapper/link mapper/resolve")
        statuses.append(answer.status_code)
    assert statuses == [403, 403, 200, 200, 429]


CHANGED_CLAIMS = {
    "another subject": ({"sub": "officer:kisumu:18"}, "assertion_subject"),
    "no subject": ({"sub": None}, "assertion_malformed"),
    "another audience": ({"aud": "https://other.example"}, "assertion_subject"),
    "a further audience": ({"aud": [ISSUER, "https://other.example"]}, "assertion_subject"),
    "the endpoint as audience": ({"aud": f"{ISSUER}/oauth2/token"}, "assertion_subject"),
    "no audience": ({"aud": None}, "assertion_subject"),
    "another issuer": ({"iss": CLUSTER}, "assertion_key_unknown"),
    "an unknown issuer": ({"iss": "https://other.example"}, "assertion_issuer"),
    "no issuer": ({"iss": None}, "assertion_issuer"),
    "no jti": ({"jti": None}, "assertion_malformed"),
    "an empty jti": ({"jti": ""}, "assertion_malformed"),
    "a number as jti": ({"jti": 7}, "assertion_malformed"),
    "no expiry": ({"exp": None}, "assertion_malformed"),
    "an expiry in the past": ({"exp": 1}, "assertion_expired"),
    "a long life": ({"exp": 4_000_000_000}, "assertion_lifetime"),
    "a time to come": ({"nbf": 4_000_000_000}, "assertion_not_yet_valid"),
}


@pytest.mark.parametrize("name", CHANGED_CLAIMS)
def test_an_assertion_with_other_claims_is_refused(protocol, issuers, endpoint, caller, name):
    changes, cause = CHANGED_CLAIMS[name]
    assertion = issuers.provider_signer(OFFICER).assertion(**changes)
    require_refusal(ask(protocol, endpoint, caller, assertion), 400, "invalid_grant", endpoint)
    if endpoint == "token":
        assert cause_of(protocol) == cause


def test_what_is_not_an_assertion_is_refused(protocol, issuers, endpoint, caller):
    signer = issuers.provider_signer(OFFICER)
    whole = signer.assertion()
    for assertion in (
        "x",
        whole[:-1],
        whole + ".",
        whole.replace(".", "..", 1),
        "x" * 8_000,
        signer.assertion({"typ": "at+jwt"}),
        signer.assertion({"typ": "client-authentication+jwt"}),
        signer.assertion({"kid": "unknown"}),
        signer.sign("[]"),
        signer.sign("not JSON"),
        protocol.new_token(),
    ):
        answer = ask(protocol, endpoint, caller, assertion)
        require_refusal(answer, 400, "invalid_grant", endpoint)
    missing = ask(protocol, endpoint, caller, None)
    require_refusal(missing, 400, "invalid_request", endpoint)
    assert "assertion" in missing.json["error_description"]


def test_the_id_of_another_client_is_no_subject(protocol, issuers):
    """A resource server could take the token for one of that client (RFC 9068, 5)."""
    everybody = [{"issuer": "provider", "subject": name} for name in ("ministry", "itself")]
    victim = protocol.new_client()
    subjects = [*everybody, {"issuer": "provider", "subject": victim.id}]
    caller = make_client(protocol, properties={"jwt_bearer_subjects": subjects})
    assertion = issuers.provider_signer(victim.id).assertion()
    require_refusal(ask(protocol, "token", caller, assertion), 400, "invalid_grant")
    assert cause_of(protocol) == "assertion_subject"


def test_scopes_are_never_more_than_the_clients_own(protocol, issuers, endpoint, caller):
    assertion = issuers.provider_signer(OFFICER, scope="disburse/pay").assertion()
    answer = ask(protocol, endpoint, caller, assertion, scope="disburse/pay")
    require_refusal(answer, 400, "invalid_scope", endpoint)
    answer = ask(protocol, endpoint, caller, assertion)
    assert answer.json["scope"] == "mapper/link"


def test_a_client_needs_the_grant_and_has_to_authenticate(protocol, issuers, endpoint):
    assertion = issuers.provider_signer(OFFICER).assertion()
    caller = make_client(protocol, grant_types=["client_credentials"])
    answer = ask(protocol, endpoint, caller, assertion)
    require_refusal(answer, 400, "unauthorized_client", endpoint)
    stranger = Credentials(caller.id, "wrong", "client_secret_post")
    require_refusal(ask(protocol, endpoint, stranger, assertion), 401, "invalid_client", endpoint)


def test_a_revoked_client_loses_the_tokens_of_its_subjects(protocol, issuers):
    caller = make_client(protocol)
    assertion = issuers.provider_signer(OFFICER).assertion()
    token = ask(protocol, "token", caller, assertion).json["access_token"]
    assert protocol.is_active(token)
    with protocol.parties.change() as (services, session):
        services.clients.set_enabled(session, caller.id, actor="test", enabled=False)
    assert not protocol.is_active(token)


def test_the_metadata_lists_the_grant_if_there_is_an_issuer(protocol, start_protocol):
    path = "/.well-known/oauth-authorization-server"
    assert JWT_BEARER_GRANT in protocol.get(path).json["grant_types_supported"]
    without = start_protocol()
    assert JWT_BEARER_GRANT not in without.get(path).json["grant_types_supported"]
    answer = ask(without, "token", without.demo.post, "x")
    require_refusal(answer, 400, "unsupported_grant_type")


def test_an_assertion_whose_use_cannot_be_stored_is_not_accepted(start_protocol, tmp_path):
    """It is accepted afterwards: nothing is remembered of what was not stored."""
    with Issuers(tmp_path) as issuers:
        limits = {"database": {"statement_timeout_milliseconds": 200}}
        protocol = start_protocol(**issuers.settings(), **limits)
        issuers.clock = protocol.clock
        caller = make_client(protocol)
        assertion = issuers.provider_signer(OFFICER).assertion()
        path = protocol.services.settings.database.parts.file
        with closing(sqlite3.connect(path, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            began = time.monotonic()
            answer = ask(protocol, "token", caller, assertion)
            require_refusal(answer, 503, "temporarily_unavailable")
            assert "Retry-After" in answer.headers
            assert time.monotonic() - began < 15
            other.execute("ROLLBACK")
        assert ask(protocol, "token", caller, assertion).status_code == 200


def test_an_issuer_whose_keys_cannot_be_fetched_is_refused_in_bounded_time(start_protocol):
    def hang(*_: object) -> bool:
        time.sleep(4)
        return False

    with ScriptedServer(hang) as silent:
        issuer = {"issuer": silent.address, "jwks_uri": f"{silent.address}/jwks"}
        protocol = start_protocol(
            outbound={"plain_http": True, "timeout_seconds": 1}, issuers={"provider": issuer}
        )
        caller = make_client(protocol)
        signer = Signer("", new_key(), lambda: protocol.clock().timestamp())
        for _ in range(2):
            began = time.monotonic()
            assertion = signer.assertion(iss=silent.address, sub=OFFICER)
            require_refusal(ask(protocol, "token", caller, assertion), 400, "invalid_grant")
            assert cause_of(protocol) == "assertion_keys_unavailable"
            assert time.monotonic() - began < 2.5
        # The second one was refused without a fetch.
        assert len(silent.requests) == 1
        assert protocol.ask("token", protocol.demo.post).status_code == 200
