"""Nonces of the server in DPoP proofs (RFC 9449, 8)."""

from datetime import timedelta

import pytest
from sqlalchemy import select

from authz_server.database.single_use import UsedValue
from support.assertions import make_signer
from support.dpop_requests import accept, ask, prove
from support.protocol import TOKEN_ENDPOINTS, Protocol, require_refusal


@pytest.fixture(params=TOKEN_ENDPOINTS)
def endpoint(request) -> str:
    """The token endpoint that the proof is for."""
    return request.param


@pytest.fixture
def nonces(start_protocol) -> Protocol:
    """An application that requires nonces."""
    return start_protocol(dpop={"nonce": "required", "nonce_lifetime_seconds": 120})


def fetch_nonce(protocol: Protocol, endpoint: str = "token") -> str:
    """Return the nonce that is sent with the refusal of a proof without one."""
    answer = ask(protocol, endpoint, protocol.demo.post, prove(protocol, endpoint))
    require_refusal(answer, 400, "use_dpop_nonce", endpoint)
    return answer.headers["DPoP-Nonce"]


def test_a_required_nonce(nonces: Protocol, endpoint):
    """Case A16. RFC 9449, 8."""
    nonce = fetch_nonce(nonces, endpoint)
    accepted = accept(nonces, endpoint, nonces.demo.post, prove(nonces, endpoint, nonce=nonce))
    assert accepted.headers["DPoP-Nonce"] == nonce
    for wrong in ("", "invented", nonce.swapcase(), [nonce], 7, True):
        answer = ask(nonces, endpoint, nonces.demo.post, prove(nonces, endpoint, nonce=wrong))
        require_refusal(answer, 400, "use_dpop_nonce", endpoint)


def test_a_proof_with_a_nonce_is_accepted_once(nonces: Protocol):
    """Cases A16, D51."""
    proof = prove(nonces, nonce=fetch_nonce(nonces))
    accept(nonces, "token", nonces.demo.post, proof)
    answer = ask(nonces, "token", nonces.demo.post, proof)
    require_refusal(answer, 400, "invalid_dpop_proof")
    assert answer.headers["DPoP-Nonce"]


def test_the_time_of_the_nonce_takes_the_place_of_the_clients_clock(nonces: Protocol):
    """Case D50. RFC 9449, 11.1."""
    now = int(nonces.clock().timestamp())
    for iat in (now - 3_600, now + 3_600):
        nonce = fetch_nonce(nonces)
        accept(nonces, "token", nonces.demo.post, prove(nonces, nonce=nonce, iat=iat))
    malformed = prove(nonces, nonce=fetch_nonce(nonces), iat="now")
    require_refusal(ask(nonces, "token", nonces.demo.post, malformed), 400, "invalid_dpop_proof")


def test_an_accepted_proof_is_remembered_until_its_nonce_ends(nonces: Protocol):
    """Case D51."""
    now = nonces.clock().timestamp()
    proof = prove(nonces, nonce=fetch_nonce(nonces), iat=int(now) - 3_600)
    accept(nonces, "token", nonces.demo.post, proof)
    with nonces.services.database.reading() as session:
        (expires_at,) = session.scalars(select(UsedValue.expires_at))
    assert now + 60 <= expires_at <= now + 120


def test_a_nonce_ends_and_the_next_is_sent_before(nonces: Protocol):
    """Case A16. RFC 9449, 8.2."""
    first = fetch_nonce(nonces)
    nonces.clock.now += timedelta(seconds=60)
    answer = accept(nonces, "token", nonces.demo.post, prove(nonces, nonce=first))
    assert answer.headers["DPoP-Nonce"] != first
    nonces.clock.now += timedelta(seconds=60)
    answer = ask(nonces, "token", nonces.demo.post, prove(nonces, nonce=first))
    require_refusal(answer, 400, "use_dpop_nonce")
    accept(
        nonces,
        "token",
        nonces.demo.post,
        prove(nonces, nonce=answer.headers["DPoP-Nonce"]),
    )


def test_an_assertion_is_not_used_up_by_the_request_for_a_nonce(nonces: Protocol, endpoint):
    """Case D51. The client repeats its request as it was, with a proof that has the nonce."""
    client = make_signer(nonces.parties, "signer", lambda: nonces.clock().timestamp())
    form = nonces.form(endpoint) | client.form()
    answer = nonces.post(endpoint, form, {"DPoP": prove(nonces, endpoint)})
    require_refusal(answer, 400, "use_dpop_nonce", endpoint)
    proof = prove(nonces, endpoint, nonce=answer.headers["DPoP-Nonce"])
    assert nonces.post(endpoint, form, {"DPoP": proof}).status_code == 200


def test_a_request_without_a_proof_gets_no_nonce(nonces: Protocol, endpoint):
    answer = nonces.ask(endpoint, nonces.demo.post)
    assert answer.status_code == 200
    assert "DPoP-Nonce" not in answer.headers


def test_a_nonce_is_sent_beside_the_message_id(nonces: Protocol):
    form = nonces.form("g2p") | nonces.demo.post.form()
    headers = {"DPoP": prove(nonces, "g2p"), "message_id": "m-1"}
    answer = nonces.post("g2p", form, headers)
    require_refusal(answer, 400, "use_dpop_nonce", "g2p")
    assert answer.headers["message_id"] == "m-1"
    assert answer.headers["DPoP-Nonce"]
