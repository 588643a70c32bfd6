"""Token exchange with tokens of registered issuers, and with tokens that are bound to a key."""

import json
from collections.abc import Iterator

import pytest

from authz_server.clients.certificate_parser import thumbprint_of
from support.assertions import new_key
from support.claims import claims_of
from support.client_certificates import header_value, self_signed
from support.dpop import ProofKey
from support.forged_tokens import segment
from support.issuers import TRUST_DOMAIN, Issuers
from support.protocol import ENDPOINTS, TOKEN_ENDPOINTS, Protocol, require_refusal, running_protocol
from support.settings_file import ISSUER

GRANT_TYPE = "urn:ietf:params:oauth:grant-type:token-exchange"
ACCESS_TOKEN = "urn:ietf:params:oauth:token-type:access_token"
JWT = "urn:ietf:params:oauth:token-type:jwt"
TYPE, SCOPE = "g2p_disbursement", "disburse/disburse"
TAKEN = "client-of-the-same-name"
USER = "https://people.example/42"
SVID = "spiffe://example.org/payments"
KEY = ProofKey()
GRANT = {
    "programmes": ["cash"],
    "currency_code": "KES",
    "payer_fas": ["account:1@bank"],
    "payment_cap": "10.00",
    "batch_cap": "10.00",
    "count": 1,
}


@pytest.fixture(scope="module")
def issuers(tmp_path_factory) -> Iterator[Issuers]:
    with Issuers(tmp_path_factory.mktemp("issuers")) as issuers:
        yield issuers


@pytest.fixture(scope="module")
def protocol(module_database_url: str, issuers: Issuers) -> Iterator[Protocol]:
    """The application with registered issuers; proofs are accepted once, so without a twin."""
    with running_protocol(issuers.directory, module_database_url, **issuers.settings()) as protocol:
        issuers.clock = protocol.clock
        yield protocol


@pytest.fixture(scope="module")
def gateway(protocol: Protocol):
    """A client that exchanges tokens of the provider and of SPIFFE for one user and one service."""
    protocol.parties.make_client(TAKEN)
    policy = {
        "subjects": ["*"],
        "issuers": {"provider": [USER, TAKEN], "spiffe": ["*"]},
        "audiences": ["mapper", "disburse"],
    }
    return protocol.new_client(
        allowed_scopes=["mapper/link", "mapper/resolve", SCOPE],
        default_scopes=["mapper/link"],
        grant_types=["client_credentials", GRANT_TYPE],
        properties={
            "token_exchange": policy,
            "authorization_details_grants": {TYPE: [GRANT]},
        },
    )


def exchange(protocol: Protocol, client, presented: str, endpoint="token", proof="", **fields):
    form = {
        "grant_type": GRANT_TYPE,
        "subject_token": presented,
        "subject_token_type": JWT,
        **client.form(),
        **fields,
    }
    return protocol.post(endpoint, form, {"DPoP": proof} if proof else None)


@pytest.mark.parametrize("endpoint", TOKEN_ENDPOINTS)
def test_tokens_of_registered_issuers(protocol: Protocol, issuers, endpoint: str, gateway):
    for signer, subject in (
        (issuers.provider_signer(USER), USER),
        (issuers.spiffe_signer(SVID), SVID),
    ):
        token = signer.assertion()
        answer = exchange(protocol, gateway, token, endpoint)
        claims = claims_of(answer.json["access_token"])
        assert (claims["sub"], claims["client_id"]) == (subject, gateway.id)
        assert claims["act"] == {"sub": gateway.id}
        assert claims["scope"] == "mapper/link"
        assert claims["exp"] <= claims_of(token)["exp"]
        seen = protocol.ask(
            "introspect", protocol.demo.mapper, token=answer.json["access_token"]
        ).json
        assert (seen["active"], seen["sub"]) == (True, subject)
    event = json.loads(protocol.audit_trail().splitlines()[-2])
    assert (event["event"], event["subject_client_id"]) == ("token.exchanged", "")


def test_the_issuer_of_a_subject_is_named(protocol: Protocol, issuers, gateway):
    """Another issuer may use the same name, for somebody else. RFC 9493, 4.1."""
    presented = {
        issuers.provider: issuers.provider_signer(USER),
        TRUST_DOMAIN: issuers.spiffe_signer(SVID),
    }
    for (issuer, signer), subject in zip(presented.items(), (USER, SVID), strict=True):
        first = exchange(protocol, gateway, signer.assertion()).json["access_token"]
        again = exchange(protocol, gateway, first, subject_token_type=ACCESS_TOKEN)
        new = again.json["access_token"]
        seen = protocol.ask("introspect", protocol.demo.mapper, token=new).json
        named = {"format": "iss_sub", "iss": issuer, "sub": subject}
        for claims in (claims_of(first), claims_of(new), seen):
            assert (claims["sub"], claims["sub_id"]) == (subject, named)


def test_scope_act_and_may_act_of_another_issuer(protocol: Protocol, issuers, gateway):
    def ask(scope="", **claims):
        signer = issuers.provider_signer(USER, **claims)
        return exchange(protocol, gateway, signer.assertion(), scope=scope)

    # Its scopes limit like those of a token of this server; unknown ones mean nothing here.
    assert ask(scope="mapper/resolve").json["scope"] == "mapper/resolve"
    assert ask(scope="").json["scope"] == "mapper/link"
    limited = issuers.provider_signer(USER, scope="openid mapper.resolve")
    answer = exchange(protocol, gateway, limited.assertion())
    assert answer.json["scope"] == "mapper/resolve"
    answer = exchange(protocol, gateway, limited.assertion(), scope="mapper/link")
    require_refusal(answer, 400, "invalid_scope")
    answer = exchange(protocol, gateway, issuers.provider_signer(USER, scope="openid").assertion())
    require_refusal(answer, 400, "invalid_scope")
    act = {"sub": "first", "act": {"sub": "second", "iss": "https://b.example"}}
    claims = claims_of(ask(act=act).json["access_token"])
    assert claims["act"] == {
        "sub": gateway.id,
        "act": {
            "iss": issuers.provider,
            "sub": "first",
            "act": {"iss": "https://b.example", "sub": "second"},
        },
    }
    assert ask(may_act={"sub": gateway.id}).status_code == 200
    deep = {"sub": "x"}
    for _ in range(200):
        deep = {"sub": "x", "act": deep}
    for wrong in (
        {"may_act": {"sub": "another"}},
        {"may_act": {"sub": gateway.id, "email": "a@b.example"}},
        {"may_act": [gateway.id]},
        {"act": "x"},
        {"act": {}},
        {"act": {"sub": 1}},
        # Such a token would be too large for introspection.
        {"act": {"sub": "x" * 11_000}},
        {"act": {"sub": "x", "act": {"sub": "y", "iss": "z" * 513}}},
        {"jti": "x" * 513},
        {"act": {"sub": "x", "email": "a@b.example"}},
        {"act": deep},
        {"scope": ["mapper/link"]},
        {"jti": 1},
        {"cnf": "x"},
    ):
        signer = issuers.provider_signer(USER, **wrong)
        answer = exchange(protocol, gateway, signer.assertion())
        require_refusal(answer, 400, "invalid_request")


@pytest.mark.parametrize("endpoint", TOKEN_ENDPOINTS)
def test_tokens_of_issuers_that_are_refused(protocol: Protocol, issuers, endpoint: str, gateway):
    signer = issuers.provider_signer(USER)
    token = signer.assertion()
    head, payload, signature = token.split(".")
    public = json.dumps(issuers.provider_key.as_dict(private=False))
    forger = issuers.provider_signer(USER)
    forger.key = new_key("ES256")
    now = int(protocol.clock().timestamp())
    refused = {
        "another subject": issuers.provider_signer("https://people.example/43").assertion(),
        "an issuer that the client has not": issuers.cluster_signer(USER).assertion(),
        "an issuer that nobody has": signer.assertion(iss="https://unknown.example"),
        "this server as issuer": signer.assertion(iss="https://authz.example"),
        "another audience": signer.assertion(aud="https://other.example"),
        "no audience": signer.assertion(aud=None),
        "the id of a client": issuers.provider_signer(TAKEN).assertion(),
        "expired": signer.assertion(iat=now - 500, exp=now - 400),
        "endless": signer.assertion(exp=None),
        "not yet": signer.assertion(nbf=now + 400),
        "too long": signer.assertion(exp=now + 4_000),
        "a client's assertion": signer.assertion({"typ": "client-authentication+jwt"}),
        "an access token": signer.assertion({"typ": "at+jwt"}),
        "another key": forger.assertion(),
        "no algorithm": f"{segment({'alg': 'none', 'kid': 'p'})}.{payload}.{signature}",
        "symmetric": f"{segment({'alg': 'HS256', 'kid': 'p'})}.{payload}.{segment(public)}",
        "another algorithm": f"{segment({'alg': 'RS256', 'kid': 'p'})}.{payload}.{signature}",
        "altered": f"{head}.{payload[:-4]}AAAA.{signature}",
        "unsigned": f"{head}.{payload}.",
    }
    for name, presented in refused.items():
        answer = exchange(protocol, gateway, presented, endpoint)
        assert (answer.status_code, answer.json["error"]) == (400, "invalid_request"), name
    # Only a JWT may be of another issuer, and only the subject token.
    answer = exchange(protocol, gateway, token, endpoint, subject_token_type=ACCESS_TOKEN)
    require_refusal(answer, 400, "invalid_request", endpoint)
    own = protocol.new_token(gateway)
    answer = exchange(protocol, gateway, own, endpoint, actor_token=token, actor_token_type=JWT)
    require_refusal(answer, 400, "invalid_request", endpoint)


def test_the_client_s_own_grants_limit_details(protocol: Protocol, issuers, gateway):
    detail = {"type": TYPE, "programme": "cash", "currency_code": "KES"}
    token = issuers.provider_signer(USER).assertion()
    answer = exchange(protocol, gateway, token, authorization_details=json.dumps([detail]))
    assert (answer.json["scope"], answer.json["authorization_details"][0]["count"]) == (SCOPE, 1)
    seen = protocol.ask(
        "introspect", protocol.demo.disburse, token=answer.json["access_token"]
    ).json
    assert (seen["sub"], seen["authorization_details"][0]["count"]) == (USER, 1)
    beyond = json.dumps([detail | {"count": 2}])
    answer = exchange(protocol, gateway, token, authorization_details=beyond)
    require_refusal(answer, 400, "invalid_authorization_details")
    answer = exchange(protocol, gateway, token, scope=SCOPE)
    require_refusal(answer, 400, "invalid_authorization_details")


def test_another_issuer_names_no_present_actor_of_this_server(protocol: Protocol, issuers):
    """RFC 8693, 4.1: the outermost actor is the present one; those inside are informational."""
    policy = {"issuers": {"provider": [USER]}, "audiences": ["mapper"]}
    for impersonation, party, status in (
        (True, "https://elsewhere.example", 200),
        (True, ISSUER, 400),
        (False, ISSUER, 200),
    ):
        client = protocol.new_client(
            grant_types=[GRANT_TYPE],
            properties={"token_exchange": policy | {"impersonation": impersonation}},
        )
        act = {"iss": party, "sub": protocol.demo.post.id}
        answer = exchange(protocol, client, issuers.provider_signer(USER, act=act).assertion())
        if status == 200:
            found = claims_of(answer.json["access_token"])["act"]
            assert found == (act if impersonation else {"sub": client.id, "act": act})
        else:
            require_refusal(answer, status, "invalid_request")


@pytest.mark.parametrize("endpoint", TOKEN_ENDPOINTS)
def test_a_bound_token_needs_a_proof_by_its_key(protocol: Protocol, endpoint: str, gateway):
    def prove(key=KEY, path=endpoint):
        return key.prove(protocol.clock().timestamp(), ENDPOINTS[path])

    form = protocol.form("token") | protocol.demo.post.form()
    bound = protocol.post("token", form, {"DPoP": prove(path="token")}).json["access_token"]
    assert claims_of(bound)["cnf"] == {"jkt": KEY.thumbprint}
    answer = exchange(protocol, gateway, bound, endpoint, prove())
    assert answer.json["token_type"] == "DPoP"
    assert claims_of(answer.json["access_token"])["cnf"] == {"jkt": KEY.thumbprint}
    for proof in ("", prove(ProofKey())):
        answer = exchange(protocol, gateway, bound, endpoint, proof)
        require_refusal(answer, 400, "invalid_request", endpoint)
    own = protocol.new_token(gateway)
    acting = {"actor_token": bound, "actor_token_type": ACCESS_TOKEN}
    answer = exchange(protocol, gateway, own, endpoint, **acting)
    require_refusal(answer, 400, "invalid_request", endpoint)
    # A proof for a bearer token binds the new one.
    answer = exchange(protocol, gateway, own, endpoint, prove())
    assert claims_of(answer.json["access_token"])["cnf"] == {"jkt": KEY.thumbprint}


def test_a_token_of_an_issuer_is_bound_alike(protocol: Protocol, issuers, gateway):
    thumbprint = {"jkt": KEY.thumbprint}
    token = issuers.provider_signer(USER, cnf=thumbprint).assertion()
    require_refusal(exchange(protocol, gateway, token), 400, "invalid_request")
    proof = KEY.prove(protocol.clock().timestamp())
    answer = exchange(protocol, gateway, token, proof=proof)
    assert claims_of(answer.json["access_token"])["cnf"] == thumbprint
    for confirmation in ({}, {"kid": "x"}, thumbprint | {"x5t#S256": "x"}):
        token = issuers.provider_signer(USER, cnf=confirmation).assertion()
        proof = KEY.prove(protocol.clock().timestamp())
        require_refusal(exchange(protocol, gateway, token, proof=proof), 400, "invalid_request")


def test_a_certificate_bound_token_needs_its_certificate(start_protocol):
    protocol = start_protocol(
        server={"trusted_proxies": ["127.0.0.1"]}, client_certificates={"source": "nginx"}
    )
    bound = {"tls_client_certificate_bound_access_tokens": True}
    subject = protocol.new_client(properties=bound)
    own, other = (self_signed("CN=payer") for _ in range(2))
    form = protocol.form("token") | subject.form()
    answer = protocol.post("token", form, header_value("nginx", own.der))
    token, thumbprint = answer.json["access_token"], {"x5t#S256": thumbprint_of(own.der)}
    assert claims_of(token)["cnf"] == thumbprint
    policy = {"subjects": [subject.id], "audiences": ["mapper"]}
    for properties, certificate, status in (
        (bound, own, 200),
        (bound, other, 400),
        # A client whose tokens are not bound to its certificate would get a bearer token.
        ({}, own, 400),
        ({}, None, 400),
    ):
        gateway = protocol.new_client(
            grant_types=[GRANT_TYPE], properties={"token_exchange": policy, **properties}
        )
        fields = {
            "grant_type": GRANT_TYPE,
            "subject_token": token,
            "subject_token_type": ACCESS_TOKEN,
        }
        headers = {} if certificate is None else header_value("nginx", certificate.der)
        answer = protocol.post("token", fields | gateway.form(), headers)
        if status == 200:
            assert claims_of(answer.json["access_token"])["cnf"] == thumbprint
        else:
            require_refusal(answer, status, "invalid_request")
