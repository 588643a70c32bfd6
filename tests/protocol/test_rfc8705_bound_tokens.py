"""Tokens bound to a client certificate (RFC 8705, 3), by each authentication method."""

import pytest

from authz_server.clients.certificate_parser import thumbprint_of
from support.assertions import make_signer
from support.claims import claims_of
from support.client_certificates import header_value
from support.dpop import ProofKey
from support.mtls import (
    BOUND,
    BY_METHOD,
    PAYER,
    SELF,
    STRANGER,
    ask,
    cause_of,
)
from support.protocol import TOKEN_ENDPOINTS, require_refusal


@pytest.mark.parametrize("client_id", ["bound-pki", "self-signed-bound", "bound-post"])
@pytest.mark.parametrize("at", TOKEN_ENDPOINTS)
def test_a_bound_token_names_the_certificate(mtls, at, client_id):
    """RFC 8705, 3; Case A16."""
    key = SELF if client_id.startswith("self") else PAYER
    form = {"client_secret": mtls.bound_post.secret} if client_id == "bound-post" else {}
    answer = ask(mtls, at, client_id, key, **form)
    assert answer.status_code == 200, answer.text
    assert answer.json["token_type"].lower() == "bearer"
    token = answer.json["access_token"]
    expected = {"x5t#S256": thumbprint_of(key.der)}
    assert claims_of(token)["cnf"] == expected
    described = mtls.ask("introspect", mtls.demo.mapper, token=token).json
    assert (described["active"], described["cnf"]) == (True, expected)


@pytest.mark.parametrize("at", TOKEN_ENDPOINTS)
def test_a_client_of_bound_tokens_gets_none_by_leaving_its_certificate_out(mtls, at):
    """RFC 8705, 3.4; Case A16."""
    form = {"client_secret": mtls.bound_post.secret}
    for options in ({}, {"peer": STRANGER}):
        answer = ask(mtls, at, "bound-post", None, **options, **form)
        require_refusal(answer, 400, "invalid_request", at)
        assert cause_of(mtls) == "client_certificate_missing"
    answer = ask(mtls, at, "bound-post", PAYER, peer=STRANGER, **form)
    require_refusal(answer, 400, "invalid_request", at)
    for client_id in ("bound-pki", "self-signed-bound"):
        require_refusal(ask(mtls, at, client_id, None), 401, "invalid_client", at)


@pytest.mark.usefixtures("one_server")
def test_a_client_that_signs_assertions_has_bound_tokens(mtls):
    """RFC 8705, 3: the method does not matter."""
    signer = make_signer(mtls.parties, "signer", lambda: mtls.clock().timestamp())
    with mtls.parties.change() as (services, session):
        services.clients.update_client(session, "signer", actor="operator:t", properties=BOUND)
    certificate = {"X-SSL-Client-Verify": "FAILED:self-signed certificate"}
    for headers, status in ((header_value("nginx", SELF.der) | certificate, 200), ({}, 400)):
        answer = mtls.post("token", mtls.form("token") | signer.form(), headers)
        assert answer.status_code == status, answer.text
        if status == 200:
            cnf = claims_of(answer.json["access_token"])["cnf"]
            assert cnf == {"x5t#S256": thumbprint_of(SELF.der)}


@pytest.mark.usefixtures("one_server")
def test_a_token_is_bound_to_a_certificate_and_a_dpop_key(mtls):
    """RFC 8705, 3; RFC 9449, 5."""
    key = ProofKey()

    def proof():
        return {"DPoP": key.prove(mtls.clock().timestamp())}

    answer = ask(mtls, "token", "bound-pki", PAYER, headers=proof())
    assert answer.json["token_type"] == "DPoP"
    cnf = claims_of(answer.json["access_token"])["cnf"]
    assert cnf == {"jkt": key.thumbprint, "x5t#S256": thumbprint_of(PAYER.der)}
    # The proof does not stand in for the certificate.
    secret = {"client_secret": mtls.bound_post.secret}
    answer = ask(mtls, "token", "bound-post", None, headers=proof(), **secret)
    require_refusal(answer, 400, "invalid_request")


@pytest.mark.parametrize("method", BY_METHOD)
def test_other_tokens_are_bound_to_nothing(mtls, method):
    client_id, key = BY_METHOD[method]
    token = ask(mtls, "token", client_id, key).json["access_token"]
    assert "cnf" not in claims_of(token)


def test_a_reference_token_is_bound_too(mtls):
    mtls.parties.make_resource_server("vault", token_format="reference")
    with mtls.parties.change() as (services, session):
        services.scopes.assign(session, ["mapper/unlink"], "vault", actor="operator:t")
        scopes = ["mapper/link", "mapper/unlink"]
        services.clients.update_client(
            session, "bound-pki", actor="operator:t", allowed_scopes=scopes
        )
    token = ask(mtls, "token", "bound-pki", PAYER, scope="mapper/unlink").json["access_token"]
    assert "." not in token
    described = ask(mtls, "introspect", "bound-pki", PAYER, token=token).json
    assert described["cnf"] == {"x5t#S256": thumbprint_of(PAYER.der)}
