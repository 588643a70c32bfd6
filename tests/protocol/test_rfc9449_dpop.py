"""Tokens that are bound to a key of their client (RFC 9449)."""

import json
from urllib.parse import urlencode

import pytest
from joserfc import jwk as joserfc_jwk
from sqlalchemy import func, select

from authz_server.database.single_use import UsedValue
from support.claims import claims_of
from support.dpop import ProofKey
from support.dpop_requests import KEY, accept, ask, one_server, prove
from support.parties import Credentials
from support.protocol import ENDPOINTS, METHODS, TOKEN_ENDPOINTS, Protocol, require_refusal

ALGORITHMS = ("ES256", "ES384", "ES512", "PS256", "PS384", "PS512", "EdDSA", "Ed25519")


@pytest.fixture(params=TOKEN_ENDPOINTS)
def endpoint(request) -> str:
    """The token endpoint that the proof is for."""
    return request.param


@pytest.fixture(params=METHODS)
def caller(request, protocol: Protocol) -> Credentials:
    """A client, of either authentication method."""
    return protocol.demo.clients[request.param]


def test_a_proof_binds_the_token_to_its_key(protocol: Protocol, endpoint, caller):
    """Case A16. RFC 9449, 5, 6.1 and 6.2."""
    token = accept(protocol, endpoint, caller, prove(protocol, endpoint)).json["access_token"]
    described = protocol.ask("introspect", protocol.demo.mapper, token=token).json
    assert described["cnf"] == {"jkt": KEY.thumbprint}
    assert described["token_type"] == "DPoP"
    record = json.loads(protocol.audit_trail().splitlines()[-1])
    assert (record["event"], record["confirmation"]) == ("token.issued", {"jkt": KEY.thumbprint})


def test_a_token_without_a_proof_is_a_bearer_token(protocol: Protocol, endpoint, caller):
    """The decision that is remembered for the client does not keep the key of another request."""
    accept(protocol, endpoint, caller, prove(protocol, endpoint))
    answer = protocol.ask(endpoint, caller).json
    assert answer["token_type"].lower() == "bearer"
    assert "cnf" not in claims_of(answer["access_token"])
    described = protocol.ask("introspect", protocol.demo.mapper, token=answer["access_token"]).json
    assert described["token_type"] == "Bearer"
    assert "cnf" not in described


def test_a_reference_token_is_bound_too(protocol: Protocol):
    """Case A16."""
    server = protocol.parties.make_resource_server("vault", token_format="reference")
    with protocol.parties.change() as (services, session):
        services.scopes.add_scope(
            session, actor="operator:t", name="vault/open", resource_server_id="vault"
        )
    client = protocol.new_client(allowed_scopes=["vault/open"], default_scopes=["vault/open"])
    with one_server(protocol):
        answer = ask(protocol, "token", client, prove(protocol), scope="vault/open").json
    assert answer["token_type"] == "DPoP"
    described = protocol.ask("introspect", server, token=answer["access_token"]).json
    assert (described["token_type"], described["cnf"]) == ("DPoP", {"jkt": KEY.thumbprint})


@pytest.mark.parametrize("alg", ALGORITHMS)
def test_the_advertised_algorithms_are_accepted(protocol: Protocol, alg):
    """Case D38. The thumbprint is that of RFC 7638, whatever else the key says of itself."""
    key = ProofKey(alg)
    jwk = {**key.jwk, "kid": "mine", "use": "sig", "alg": alg, "key_ops": ["verify"]}
    with one_server(protocol):
        answer = ask(
            protocol, "token", protocol.demo.post, prove(protocol, key=key, header={"jwk": jwk})
        )
    assert answer.status_code == 200, answer.text
    confirmation = claims_of(answer.json["access_token"])["cnf"]
    assert confirmation == {"jkt": joserfc_jwk.thumbprint(key.jwk)}


def test_the_metadata_lists_the_accepted_algorithms(protocol: Protocol):
    """Case L135. RFC 9449, 5.1."""
    for document in ("oauth-authorization-server", "openid-configuration"):
        members = protocol.get(f"/.well-known/{document}").json
        assert members["dpop_signing_alg_values_supported"] == list(ALGORITHMS)


def test_other_algorithms_are_refused(protocol: Protocol, endpoint, caller):
    """Case D38."""
    proof = prove(protocol, endpoint, ProofKey("RS256"))
    require_refusal(ask(protocol, endpoint, caller, proof), 400, "invalid_dpop_proof", endpoint)


def test_rs256_is_a_setting(start_protocol):
    """Case D38."""
    protocol = start_protocol(dpop={"algorithms": ["RS256"]})
    key = ProofKey("RS256")
    assert ask(protocol, "token", protocol.demo.post, prove(protocol, key=key)).status_code == 200
    require_refusal(
        ask(protocol, "token", protocol.demo.post, prove(protocol)), 400, "invalid_dpop_proof"
    )
    members = protocol.get("/.well-known/oauth-authorization-server").json
    assert members["dpop_signing_alg_values_supported"] == ["RS256"]


@pytest.mark.parametrize("seconds", [0, 8, 10, -10, -59])
def test_a_current_proof_is_accepted(protocol: Protocol, endpoint, caller, seconds):
    """Case D50."""
    iat = int(protocol.clock().timestamp()) + seconds
    accept(protocol, endpoint, caller, prove(protocol, endpoint, iat=iat))


@pytest.mark.parametrize("seconds", [12, 61, 3_600, -62, -3_600])
def test_an_old_or_future_proof_is_refused(protocol: Protocol, endpoint, caller, seconds):
    """Case D50."""
    iat = int(protocol.clock().timestamp()) + seconds
    answer = ask(protocol, endpoint, caller, prove(protocol, endpoint, iat=iat))
    require_refusal(answer, 400, "invalid_dpop_proof", endpoint)
    assert "clock" in answer.json["error_description"]


def test_the_age_is_a_setting(start_protocol):
    """Case D50."""
    protocol = start_protocol(dpop={"maximum_proof_age_seconds": 300})
    now = int(protocol.clock().timestamp())
    answers = [
        ask(protocol, "token", protocol.demo.post, prove(protocol, iat=now - age))
        for age in (299, 302)
    ]
    assert [answer.status_code for answer in answers] == [200, 400]


def test_exp_and_nbf_hold_where_a_proof_has_them(protocol: Protocol, endpoint, caller):
    """Case D50. RFC 7519, 4.1.4 and 4.1.5."""
    now = int(protocol.clock().timestamp())
    accept(protocol, endpoint, caller, prove(protocol, endpoint, nbf=now, exp=now + 300))
    for late in ({"nbf": now + 61}, {"exp": now - 11}):
        answer = ask(protocol, endpoint, caller, prove(protocol, endpoint, **late))
        require_refusal(answer, 400, "invalid_dpop_proof", endpoint)


def test_equivalent_uris_are_accepted(protocol: Protocol, endpoint, caller):
    """Case A16. RFC 9449, 4.3: query and fragment are ignored, scheme and host have no case."""
    path = ENDPOINTS[endpoint]
    for uri in (f"HTTPS://AUTHZ.Example:443{path}", f"https://authz.example{path}?a=b#c"):
        accept(protocol, endpoint, caller, prove(protocol, endpoint, htu=uri))


def test_another_uri_or_method_is_refused(protocol: Protocol, endpoint, caller):
    """Case A16."""
    other = next(each for each in ENDPOINTS if each != endpoint)
    path = ENDPOINTS[endpoint]
    changes = [
        *({"htm": method} for method in ("GET", "post", "PUT", "", "POST ", 1, ["POST"])),
        *({"htu": f"https://authz.example{ENDPOINTS[each]}"} for each in (other, "introspect")),
        {"htu": f"https://authz.example:8443{path}"},
        {"htu": f"https://evil.example{path}"},
        {"htu": f"http://auth.example{path}"},
        {"htu": f"https://authz.example{path}/"},
        {"htu": path},
        {"htu": [f"https://authz.example{path}"]},
    ]
    for change in changes:
        answer = ask(protocol, endpoint, caller, prove(protocol, endpoint, **change))
        require_refusal(answer, 400, "invalid_dpop_proof", endpoint)


def test_the_host_of_the_request_does_not_count(protocol: Protocol):
    """Case A16."""
    proof = prove(protocol, htu="https://evil.example/oauth2/token")
    form = protocol.form("token") | protocol.demo.post.form()
    headers = {"DPoP": proof, "Host": "evil.example", "X-Forwarded-Host": "evil.example"}
    require_refusal(protocol.post("token", form, headers), 400, "invalid_dpop_proof")


def test_a_path_of_the_issuer_is_part_of_the_uri(start_protocol):
    """Case A16."""
    issuer = "https://authz.example/namespace/v1"
    protocol = start_protocol(issuer=issuer, server={"mount_prefix": "/namespace/v1"})
    form = protocol.form("token") | protocol.demo.post.form()
    for htu, status in (
        (f"{issuer}/oauth2/token", 200),
        ("https://authz.example/oauth2/token", 400),
    ):
        headers = {
            "DPoP": prove(protocol, htu=htu),
            "Content-Type": "application/x-www-form-urlencoded",
        }
        answer = protocol.send("POST", "/namespace/v1/oauth2/token", data=form, headers=headers)
        assert answer.status_code == status, answer.text


def test_a_proof_is_accepted_once(protocol: Protocol, endpoint, caller):
    """Cases A16, D51. On the other node as well: the twin has a process's own state."""
    proof = prove(protocol, endpoint)
    accept(protocol, endpoint, caller, proof)
    for client in protocol.demo.clients.values():
        answer = ask(protocol, endpoint, client, proof)
        require_refusal(answer, 400, "invalid_dpop_proof", endpoint)
    assert "used" in answer.json["error_description"]


def test_two_headers_are_no_proof(protocol: Protocol, endpoint):
    """Case A16. RFC 9449, 4.3, rule 1: by the HTTP parser of `serve`, in one form or the other."""
    form = urlencode(protocol.form(endpoint) | protocol.demo.post.form())
    lines = [
        f"POST {ENDPOINTS[endpoint]} HTTP/1.1",
        "Host: authz.example",
        "Content-Type: application/x-www-form-urlencoded",
        f"Content-Length: {len(form)}",
    ]
    one = prove(protocol, endpoint)
    for name, second in (("DPoP", one), ("dpop", prove(protocol, endpoint)), ("DPOP", "")):
        proofs = [f"DPoP: {one}", f"{name}: {second}"]
        message = "\r\n".join([*lines, *proofs, "", form])
        answer = protocol.client.twin.ask(message.encode(), "127.0.0.1", head=False)
        assert (answer.status, json.loads(answer.body)["error"]) == (400, "invalid_dpop_proof")
    message = "\r\n".join([*lines, f"DPoP: {one}", "", form])
    assert protocol.client.twin.ask(message.encode(), "127.0.0.1", head=False).status == 200


def test_one_id_of_two_keys_are_two_proofs(protocol: Protocol):
    """Case A16: no client can use up the ids of another."""
    now, other = protocol.clock().timestamp(), ProofKey()
    with one_server(protocol):
        for key, status in ((other, 200), (KEY, 200), (KEY, 400)):
            proof = key.prove(now, jti="shared-by-two")
            assert ask(protocol, "token", protocol.demo.post, proof).status_code == status


def test_nothing_is_remembered_of_a_refused_request(protocol: Protocol, endpoint):
    """Cases A16, D51: the same proof is still good for the request that is right."""
    client = protocol.demo.post

    def remembered() -> int:
        with protocol.services.database.reading() as session:
            return session.scalar(select(func.count()).select_from(UsedValue)) or 0

    before = remembered()
    proof = prove(protocol, endpoint)
    wrong = Credentials(client.id, "wrong", client.method)
    assert ask(protocol, endpoint, wrong, proof).status_code == 401
    assert ask(protocol, endpoint, client, proof, scope="invented").status_code == 400
    assert ask(protocol, endpoint, client, proof, grant_type="invented").status_code == 400
    assert ask(protocol, endpoint, client, proof[:-4]).status_code == 400
    assert remembered() == before
    accept(protocol, endpoint, client, proof)
    assert remembered() == before + 1
    with protocol.services.database.reading() as session:
        latest = session.scalar(select(func.max(UsedValue.expires_at)))
    # As long as its age permits, from the latest time that it may name.
    assert latest >= int(protocol.clock().timestamp()) + 60


def test_a_request_beyond_the_limits_of_its_client_uses_no_proof_up(protocol: Protocol):
    """Case A16."""
    client = protocol.new_client(properties={"token_budget": [{"per": "day", "tokens": 1}]})
    accept(protocol, "token", client, prove(protocol))
    proof = prove(protocol)
    with one_server(protocol):
        assert ask(protocol, "token", client, proof).status_code == 429
    accept(protocol, "token", protocol.demo.post, proof)


def test_a_named_key_is_the_key_of_the_proof(protocol: Protocol, endpoint, caller):
    """RFC 9449, 10.1."""
    proof = prove(protocol, endpoint)
    other = ProofKey().thumbprint
    answer = ask(protocol, endpoint, caller, proof, dpop_jkt=other)
    require_refusal(answer, 400, "invalid_dpop_proof", endpoint)
    accept(protocol, endpoint, caller, proof, dpop_jkt=KEY.thumbprint)


@pytest.mark.parametrize("method", METHODS)
def test_a_client_registered_for_dpop_gets_no_bearer_token(protocol: Protocol, endpoint, method):
    """Case A16. RFC 9449, 5.2."""
    client = protocol.new_client(method, properties={"dpop_bound_access_tokens": True})
    answer = protocol.ask(endpoint, client)
    require_refusal(answer, 400, "invalid_dpop_proof", endpoint)
    record = json.loads(protocol.audit_trail().splitlines()[-1])
    assert (record["reason"], record["client_id"]) == ("dpop_proof_missing", client.id)
    accept(protocol, endpoint, client, prove(protocol, endpoint))
    # Other endpoints issue no tokens and take no proofs.
    assert protocol.ask("introspect", client).status_code == 200
    assert protocol.ask("revoke", client).status_code == 200


def test_a_proof_changes_nothing_at_the_other_endpoints(protocol: Protocol, caller):
    """RFC 9449 defines proofs for token requests and for resource servers."""
    token = protocol.new_token(caller)
    for endpoint in ("introspect", "revoke"):
        form = protocol.form(endpoint, token) | caller.form()
        answer = protocol.post(endpoint, form, caller.headers() | {"DPoP": "no proof"})
        assert answer.status_code == 200


def test_the_record_of_a_refused_proof_names_the_reason(start_protocol):
    """Case K124."""
    protocol = start_protocol()
    client = protocol.demo.post
    ask(protocol, "token", client, prove(protocol, htu="https://evil.example/"))
    record = json.loads(protocol.audit_trail().splitlines()[-1])
    assert (record["reason"], record["detail"]) == ("dpop_proof_invalid", "htu")
    assert (record["error"], record["client_id"]) == ("invalid_dpop_proof", client.id)


def test_dpop_switched_off(start_protocol):
    """A proof is ignored, as by any server without DPoP; what is required cannot be had."""
    protocol = start_protocol(dpop={"enabled": False})
    answer = ask(protocol, "token", protocol.demo.post, prove(protocol))
    assert (answer.status_code, answer.json["token_type"]) == (200, "Bearer")
    client = protocol.new_client(properties={"dpop_bound_access_tokens": True})
    require_refusal(ask(protocol, "token", client, prove(protocol)), 400, "invalid_dpop_proof")
    members = protocol.get("/.well-known/oauth-authorization-server").json
    assert "dpop_signing_alg_values_supported" not in members
