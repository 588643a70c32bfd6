"""Client assertions (RFC 7523; draft rfc7523bis; FAPI 2.0): alike at every endpoint."""

import json
from datetime import timedelta

import pytest
from sqlalchemy import text

from authz_server.errors import InvalidChangeError
from support.assertion_cast import Cast
from support.assertions import (
    ALGORITHMS,
    HMAC_ALGORITHMS,
    JWT_BEARER,
    METHODS,
    Signer,
    jwks_of,
    make_signer,
    new_key,
)
from support.parties import ACTOR
from support.protocol import (
    ENDPOINTS,
    facts,
    require_refusal,
)

WRONG = "wrong-wrong-wrong-wrong-wrong-wrong-wrong-w"


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("endpoint", ENDPOINTS)
def test_an_assertion_authenticates_its_client_once(cast: Cast, endpoint: str, method: str):
    """Cases A3, D51."""
    signer = cast.signers[method]
    form = signer.form()
    assert cast.offer(endpoint, form).status_code == 200
    for other in ENDPOINTS:
        answer = cast.offer(other, form)
        require_refusal(answer, 401, "invalid_client", other)
    assert cast.refusal(signer, form["client_assertion"], endpoint) == "assertion_replayed"


@pytest.mark.parametrize("alg", [*ALGORITHMS, *HMAC_ALGORITHMS])
def test_every_advertised_algorithm_is_accepted(cast: Cast, alg: str):
    """Case D38."""
    method = METHODS[alg in HMAC_ALGORITHMS]
    metadata = cast.protocol.get("/.well-known/oauth-authorization-server").json
    for endpoint in ("token", "introspection", "revocation"):
        assert method in metadata[f"{endpoint}_endpoint_auth_methods_supported"]
        assert alg in metadata[f"{endpoint}_endpoint_auth_signing_alg_values_supported"]
    assert cast.accepts(cast.new(method, alg))


def test_no_other_algorithm_is_accepted(cast: Cast):
    """Case D38."""
    metadata = cast.protocol.get("/.well-known/oauth-authorization-server").json
    advertised = metadata["token_endpoint_auth_signing_alg_values_supported"]
    assert sorted(advertised) == sorted([*ALGORITHMS, *HMAC_ALGORITHMS])
    key = new_key("RS256")
    signer = cast.new()
    cast.change(signer, properties={"jwks": jwks_of(key)})
    rs256 = Signer(signer.id, key, cast.now, "RS256")
    assert cast.refusal(rs256, rs256.assertion()) == "assertion_algorithm"
    assert cast.accepts(Signer(signer.id, key, cast.now, "PS256"))


def test_a_setting_permits_rs256(start_protocol):
    """Case D38."""
    protocol = start_protocol(assertions={"algorithms": ["RS256"]})
    metadata = protocol.get("/.well-known/oauth-authorization-server").json
    assert metadata["token_endpoint_auth_signing_alg_values_supported"] == ["RS256"]
    assert "client_secret_jwt" not in metadata["token_endpoint_auth_methods_supported"]
    clock = protocol.clock
    signer = make_signer(protocol.parties, "old", lambda: clock().timestamp(), "RS256")
    assert protocol.ask("token", signer).status_code == 200


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("endpoint", ENDPOINTS)
def test_every_refusal_is_answered_alike(cast: Cast, endpoint: str, method: str):
    """Cases A1, A7, A15."""
    signer, other = cast.new(method), cast.new(method)
    disabled, expired, moved = (cast.new(method) for _ in range(3))
    with cast.protocol.parties.change() as (services, session):
        services.clients.set_enabled(session, disabled.id, actor=ACTOR, enabled=False)
    cast.change(expired, expires_at=cast.protocol.clock() + timedelta(seconds=1))
    cast.change(moved, authentication_method="client_secret_post")
    cast.protocol.clock.advance(1)
    forged = Signer(signer.id, other.key, cast.now, other.alg, "key-1")
    unknown = Signer("no-such-client", other.key, cast.now, other.alg, "key-1")
    expected = {
        "client_unknown": (unknown, unknown.assertion()),
        "assertion_signature": (forged, forged.assertion()),
        "client_disabled": (disabled, disabled.assertion()),
        "client_expired": (expired, expired.assertion()),
        "method_not_registered": (moved, moved.assertion()),
        "assertion_audience": (signer, signer.assertion(aud="https://elsewhere.example")),
        "assertion_expired": (signer, signer.assertion(iat=1, exp=2)),
        "assertion_malformed": (signer, "not-a-token"),
    }
    answers = {}
    for cause, (each, assertion) in expected.items():
        assert cast.refusal(each, assertion, endpoint) == cause
        answers[cause] = facts(cast.offer(endpoint, each.form(assertion)))
    assert {repr(each) for each in answers.values()} == {repr(answers["client_unknown"])}
    assert cast.accepts(signer)


@pytest.mark.parametrize("method", METHODS)
def test_a_refused_request_uses_no_assertion_up(cast: Cast, method: str):
    """Case D51."""
    signer = cast.new(method)
    assertion = signer.assertion()
    with cast.protocol.parties.change() as (services, session):
        services.clients.set_enabled(session, signer.id, actor=ACTOR, enabled=False)
    assert cast.refusal(signer, assertion) == "client_disabled"
    with cast.protocol.parties.change() as (services, session):
        services.clients.set_enabled(session, signer.id, actor=ACTOR, enabled=True)
    assert cast.accepts(signer, assertion)
    other = cast.new(method)
    # The jti of another client is another assertion.
    jti = "the-same-for-both"
    assert cast.accepts(signer, signer.assertion(jti=jti))
    assert cast.accepts(other, other.assertion(jti=jti))
    assert cast.refusal(signer, signer.assertion(jti=jti)) == "assertion_replayed"


def test_issuer_subject_and_client_id_are_one(cast: Cast):
    signer, other = cast.new(), cast.new()
    assert cast.accepts(signer, client_id=signer.id)
    assertion = signer.assertion()
    assert cast.refusal(signer, assertion, client_id=other.id) == "assertion_issuer"
    assert cast.refusal(signer, signer.assertion(iss=other.id)) == "assertion_issuer"
    # Of a client whose key did not sign.
    stolen = signer.assertion(sub=other.id, iss=other.id)
    assert cast.refusal(signer, stolen) == "assertion_signature"
    assert cast.accepts(signer, assertion)


def test_a_client_registered_for_one_algorithm(cast: Cast):
    """Case D38."""
    key = new_key("PS256")
    signer = cast.new(properties={"jwks": jwks_of(key), "token_endpoint_auth_signing_alg": "PS384"})
    for alg, accepted in (("PS256", False), ("PS384", True)):
        each = Signer(signer.id, key, cast.now, alg)
        if accepted:
            assert cast.accepts(each)
        else:
            assert cast.refusal(each, each.assertion()) == "assertion_algorithm"


def test_an_algorithm_by_which_no_key_signs_is_refused(cast: Cast):
    """Case D38: at the registration and at each change of the method, the keys or the algorithm."""
    alg, of_ps256 = "token_endpoint_auth_signing_alg", jwks_of(new_key("PS256"))
    for method, registered in (("private_key_jwt", "PS256"), ("client_secret_jwt", "ES256")):
        with pytest.raises(InvalidChangeError, match=alg):
            cast.new(method, properties={"jwks": jwks_of(new_key()), alg: registered})
    signer = cast.new(properties={"jwks": jwks_of(new_key(), kid="a"), alg: "ES256"})
    for change in (
        {"properties": {"jwks": of_ps256}},
        {"properties": {alg: "PS256"}},
        {"properties": {alg: "HS256"}},
        {"authentication_method": "client_secret_jwt"},
    ):
        with pytest.raises(InvalidChangeError, match=alg):
            cast.change(signer, **change)
    cast.change(signer, name="Other")
    cast.change(signer, properties={"jwks": of_ps256, alg: "PS256"})
    cast.change(signer, authentication_method="client_secret")


@pytest.mark.parametrize("registered", ["EdDSA", "Ed25519"])
def test_both_names_of_an_edwards_curve_are_one_algorithm(cast: Cast, registered: str):
    """RFC 9864, 2.2."""
    key = new_key("EdDSA")
    properties = {"jwks": jwks_of(key), "token_endpoint_auth_signing_alg": registered}
    signer = cast.new(properties=properties)
    for alg in ("EdDSA", "Ed25519"):
        assert cast.accepts(Signer(signer.id, key, cast.now, alg))


def test_several_keys_of_a_client(cast: Cast):
    old, new = new_key(), new_key()
    keys = [jwks_of(old, kid="old")["keys"][0], jwks_of(new, kid="new")["keys"][0]]
    signer = cast.new(properties={"jwks": {"keys": keys}})
    for key, kid in ((old, "old"), (new, "new")):
        assert cast.accepts(Signer(signer.id, key, cast.now, kid=kid))
    nameless = Signer(signer.id, new, cast.now)
    assert cast.refusal(nameless, nameless.assertion()) == "assertion_key_unknown"
    cast.change(signer, properties={"jwks": jwks_of(new, kid="new")})
    assert cast.accepts(nameless)
    ended = Signer(signer.id, old, cast.now, kid="old")
    assert cast.refusal(ended, ended.assertion()) == "assertion_key_unknown"


@pytest.mark.parametrize("endpoint", ENDPOINTS)
def test_a_secret_that_signs_is_no_password(cast: Cast, endpoint: str):
    """Case A7."""
    signer = cast.new("client_secret_jwt")
    secret = signer.key.raw_value.decode()
    for presentation in ("client_secret_post", "client_secret_basic"):
        answer = cast.protocol.offer(endpoint, presentation, signer.id, secret)
        require_refusal(answer, 401, "invalid_client", endpoint)
    assert cast.accepts(signer)


def test_a_password_signs_nothing(cast: Cast):
    """Case A7."""
    client = cast.protocol.new_client("client_secret_post")
    for alg in HMAC_ALGORITHMS:
        signer = Signer(client.id, client.secret, cast.now, alg)
        assert cast.refusal(signer, signer.assertion()) == "assertion_signature"


def test_secrets_that_ended(cast: Cast):
    """Case A12."""
    signer = cast.new("client_secret_jwt")
    with cast.protocol.parties.change() as (services, session):
        _, secret = services.clients.add_secret(session, signer.id, actor=ACTOR)
        (old, _new) = services.clients.get_client(session, signer.id).secrets
        services.clients.end_secret(session, signer.id, old.id, actor=ACTOR)
    cast.protocol.parties.watch.note(secret)
    assert cast.refusal(signer, signer.assertion()) == "secret_expired"
    assert cast.accepts(Signer(signer.id, secret, cast.now, "HS512"))


@pytest.mark.parametrize("endpoint", ENDPOINTS)
def test_an_assertion_beside_other_credentials(cast: Cast, endpoint: str):
    """Case A5."""
    signer = cast.signers["private_key_jwt"]
    form = cast.protocol.form(endpoint) | signer.form()
    basic = cast.protocol.demo.basic
    for fields, headers in (
        ({"client_secret": WRONG}, {}),
        ({"client_id": signer.id, "client_secret": WRONG}, {}),
        ({}, basic.headers()),
    ):
        answer = cast.protocol.post(endpoint, form | fields, headers)
        require_refusal(answer, 400, "invalid_request", endpoint)


@pytest.mark.parametrize(
    "kind", ["", "urn:ietf:params:oauth:client-assertion-type:saml2-bearer", JWT_BEARER.upper()]
)
def test_another_type_of_assertion(cast: Cast, kind: str):
    signer = cast.signers["private_key_jwt"]
    form = signer.form() | {"client_assertion_type": kind}
    require_refusal(cast.offer("token", form), 401, "invalid_client")
    form.pop("client_assertion_type")
    require_refusal(cast.offer("token", form), 401, "invalid_client")


def test_a_resource_server_authenticates_by_its_key(cast: Cast):
    key, token = new_key(), cast.protocol.new_token()
    with cast.protocol.parties.change() as (services, session):
        services.clients.update_resource_server(
            session,
            "mapper",
            actor=ACTOR,
            authentication_method="private_key_jwt",
            properties={"jwks": jwks_of(key)},
        )
    mapper = Signer("mapper", key, cast.now)
    answer = cast.offer("introspect", {"token": token, **mapper.form()})
    assert answer.json["active"] is True
    answer = cast.protocol.post("introspect", {"token": token}, cast.protocol.demo.mapper.headers())
    require_refusal(answer, 401, "invalid_client")


def test_the_record_of_a_token_names_the_method(cast: Cast):
    """Case K124."""
    for method, signer in cast.signers.items():
        assert cast.accepts(signer)
        record = json.loads(cast.protocol.audit_trail().splitlines()[-1])
        assert (record["event"], record["authentication_method"]) == ("token.issued", method)


@pytest.mark.parametrize("endpoint", ENDPOINTS)
def test_an_assertion_whose_use_cannot_be_stored(cast: Cast, endpoint: str):
    """Cases D51, E66: 503 without effect; the assertion is accepted later, once."""
    signer = cast.signers["private_key_jwt"]
    form = signer.form()
    rename(cast, "single_use", "away")
    try:
        answer = cast.offer(endpoint, form)
        assert (answer.status_code, "Retry-After" in answer.headers) == (503, True)
    finally:
        rename(cast, "away", "single_use")
    assert cast.offer(endpoint, form).status_code == 200
    require_refusal(cast.offer(endpoint, form), 401, "invalid_client", endpoint)


def rename(cast: Cast, old: str, new: str) -> None:
    with cast.protocol.services.database.engine.begin() as connection:
        connection.execute(text(f"ALTER TABLE {old} RENAME TO {new}"))
