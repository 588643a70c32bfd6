"""Assertions of registered issuers that are bound to a key (RFC 7800), and `may_act`."""

import json
from collections.abc import Iterator

import pytest

from support.assertions import JWT_BEARER
from support.claims import claims_of
from support.dpop import ProofKey
from support.issuers import Issuers
from support.protocol import (
    ENDPOINTS,
    TOKEN_ENDPOINTS,
    Protocol,
    require_refusal,
    running_protocol,
)
from support.token_exchange import GRANT_TYPE, exchange

GRANT = "urn:ietf:params:oauth:grant-type:jwt-bearer"
OFFICER, JOB = "officer:kisumu:17", "job:payments"
KEY = ProofKey()
BOUND = {"jkt": KEY.thumbprint}


@pytest.fixture(scope="module")
def issuers(tmp_path_factory) -> Iterator[Issuers]:
    with Issuers(tmp_path_factory.mktemp("issuers")) as issuers:
        yield issuers


@pytest.fixture(scope="module")
def protocol(module_database_url: str, issuers: Issuers) -> Iterator[Protocol]:
    settings = issuers.settings()
    with running_protocol(issuers.directory, module_database_url, **settings) as protocol:
        issuers.clock = protocol.clock
        yield protocol


def make_desk(protocol: Protocol, subject: str = OFFICER, **properties):
    subjects = {"jwt_bearer_subjects": [{"issuer": "provider", "subject": subject}]}
    return protocol.new_client(
        grant_types=[GRANT, "client_credentials"], properties=subjects | properties
    )


def present(protocol: Protocol, endpoint: str, client, assertion: str, key: ProofKey | None = None):
    form = protocol.form(endpoint) | client.form() | {"grant_type": GRANT, "assertion": assertion}
    now = protocol.clock().timestamp()
    return protocol.post(
        endpoint, form, {"DPoP": key.prove(now, ENDPOINTS[endpoint])} if key else None
    )


def cause_of(protocol: Protocol) -> str:
    return json.loads(protocol.audit_trail().splitlines()[-1])["reason"]


@pytest.mark.parametrize("endpoint", TOKEN_ENDPOINTS)
def test_a_bound_assertion_needs_a_proof_by_its_key(protocol: Protocol, issuers, endpoint: str):
    """As a bound token does in a token exchange; a stolen one is worth nothing."""
    desk, bound = make_desk(protocol), issuers.provider_signer(OFFICER, cnf=BOUND).assertion()
    for key in (None, ProofKey()):
        answer = present(protocol, endpoint, desk, bound, key)
        require_refusal(answer, 400, "invalid_grant", endpoint)
        assert cause_of(protocol) == "assertion_confirmation"
    answer = present(protocol, endpoint, desk, bound, KEY)
    assert claims_of(answer.json["access_token"])["cnf"] == BOUND
    for other in ({}, None, [], "x", {"kid": "x"}, BOUND | {"x5t#S256": "x"}):
        claims = {"cnf": other}
        payload = json.dumps(issuers.provider_signer(OFFICER).claims() | claims)
        assertion = issuers.provider_signer(OFFICER).sign(payload)
        answer = present(protocol, endpoint, desk, assertion, KEY)
        require_refusal(answer, 400, "invalid_grant", endpoint)


@pytest.mark.parametrize("endpoint", ENDPOINTS)
def test_a_bound_token_authenticates_no_workload(protocol: Protocol, issuers, endpoint: str):
    """Client authentication checks no proof of a key, so a bound token is refused."""
    identity = {"issuer": "provider", "subject": f"{JOB}:{endpoint}"}
    protocol.new_client("workload_identity", properties={"workload_identities": [identity]})
    for confirmation, status in ((None, 200), (BOUND, 401), ({}, 401)):
        signer = issuers.provider_signer(identity["subject"], cnf=confirmation)
        offered = {"client_assertion_type": JWT_BEARER, "client_assertion": signer.assertion()}
        answer = protocol.post(endpoint, protocol.form(endpoint) | offered)
        if status == 200:
            assert answer.status_code == 200, answer.text
        else:
            require_refusal(answer, status, "invalid_client", endpoint)
            assert cause_of(protocol) == "assertion_confirmation"


def test_may_act_of_the_client_is_not_about_another_subject(protocol: Protocol, issuers):
    """RFC 8693, 4.4: the claim names who may act for the subject of the token."""
    gateway, other = (
        protocol.new_client(
            grant_types=[GRANT_TYPE],
            properties={"token_exchange": {"subjects": ["*"], "audiences": ["mapper"]}},
        )
        for _ in range(2)
    )
    desk = make_desk(protocol, may_act={"sub": gateway.id})
    answer = present(protocol, "token", desk, issuers.provider_signer(OFFICER).assertion())
    officers, own = answer.json["access_token"], protocol.new_token(desk)
    assert "may_act" not in claims_of(officers)
    assert claims_of(own)["may_act"] == {"sub": gateway.id}
    assert exchange(protocol, other, officers).status_code == 200
    require_refusal(exchange(protocol, other, own), 400, "invalid_request")
