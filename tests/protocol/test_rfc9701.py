"""Signed introspection answers: asked for by name, read by a library that is not the server's."""

import json
from functools import cache

import jwt
import pytest
from joserfc import jwe
from joserfc.jwk import ECKey, RSAKey

from authz_server.errors import InvalidChangeError
from keys.errors import KeysError
from support.assertions import jwks_of, new_key
from support.parties import ACTOR
from support.stage import FORMATS, INACTIVE, METHODS, ApplicationFixture

TYPE = "application/token-introspection+jwt"
HEADERS_OF_ITS_OWN = ("X-Request-Id",)


@pytest.fixture(params=METHODS)
def method(request) -> str:
    """The client authentication method of the caller."""
    return request.param


@pytest.fixture(params=FORMATS)
def form(request) -> str:
    """The format of the tokens."""
    return request.param


def ask(stage: ApplicationFixture, token: str, caller, accept: str = TYPE):
    return stage.post("introspect", {"token": token}, caller, {"Accept": accept})


def read(stage: ApplicationFixture, answer, audience: str) -> tuple[dict, dict]:
    """Return header and claims of a signed answer, verified with the published keys."""
    assert answer.status_code == 200, answer.text
    assert answer.content_type == TYPE
    signed = answer.get_data(as_text=True)
    stage.watch.note(signed, "signed answer")
    header = jwt.get_unverified_header(signed)
    published = stage.client.get("/.well-known/jwks.json").get_json()
    (key,) = [each for each in published["keys"] if each["kid"] == header["kid"]]
    claims = jwt.decode(
        signed,
        jwt.PyJWK(key),
        algorithms=[key["alg"]],
        audience=audience,
        issuer=stage.settings.issuer,
        options={"verify_exp": False, "verify_iat": False, "require": ["iss", "aud", "iat"]},
    )
    return header, claims


def test_the_signed_answer_says_what_the_plain_one_says(stage: ApplicationFixture, method, form):
    """Case E59."""
    name = f"{method}-{form}"
    token = stage.token(f"{name}/read")
    header, claims = read(stage, ask(stage, token, stage.callers[name]), f"https://{name}.example")
    assert header == {"alg": "ES256", "kid": stage.kid, "typ": "token-introspection+jwt"}
    assert claims == {
        "iss": stage.settings.issuer,
        "aud": f"https://{name}.example",
        "iat": int(stage.clock().timestamp()),
        "token_introspection": stage.introspect(token, name),
    }


def test_a_client_that_is_no_resource_server_is_named_by_its_id(
    stage: ApplicationFixture, method, form
):
    caller = stage.callers[f"client-{method}"]
    token = stage.token(f"basic-{form}/read", caller)
    _, claims = read(stage, ask(stage, token, caller), caller.id)
    assert claims["token_introspection"] == stage.introspect(token, caller)


def test_every_reason_for_no_gives_the_same_signed_answer(stage: ApplicationFixture, method, form):
    """Case E58, Case E59."""
    name, other = f"{method}-{form}", "basic-jwt" if method == "post" else "post-jwt"
    revoked, disabled = stage.token(f"{name}/read"), stage.new_client(method)
    token_of_disabled = stage.token(f"{name}/read", disabled)
    stage.revoke(revoked)
    with stage.change() as (services, session):
        services.clients.set_enabled(session, disabled.id, actor=ACTOR, enabled=False)
    tokens = ("invented", "x" * 43, revoked, token_of_disabled, stage.token(f"{other}/read"))
    sizes = set()
    for token in tokens:
        answer = ask(stage, token, stage.callers[name])
        header, claims = read(stage, answer, f"https://{name}.example")
        assert header["typ"] == "token-introspection+jwt"
        assert claims["token_introspection"] == INACTIVE
        assert claims.keys() == {"iss", "aud", "iat", "token_introspection"}
        headers = {k: v for k, v in answer.headers.items() if k not in HEADERS_OF_ITS_OWN}
        sizes.add((len(answer.data), json.dumps(headers)))
    assert len(sizes) == 1


@pytest.mark.parametrize(
    ("accept", "signed"),
    [
        (TYPE, True),
        (TYPE.upper(), True),
        (f"{TYPE}, application/json;q=0.5", True),
        (f"application/json;q=0.5, {TYPE};q=0.9", True),
        (f"{TYPE}; q=1, */*; q=0.1", True),
        (f"{TYPE}\t;\tQ=0.001,text/html", True),
        (f"{TYPE};q=0.2, application/json;q=0, */*;q=0.3", True),
        (f"{TYPE};q=0.2, application/json;v=2", True),
        (f"application/json, {TYPE}", True),
        (f"application/*, {TYPE};q=0.9", False),
        (f"*/*, {TYPE};q=0.9", False),
        (f"{TYPE};q=1.5", False),
        (f"{TYPE};q=nan", False),
        (f"{TYPE};profile=x", False),
        ("application/json", False),
        ("*/*", False),
        ("application/*", False),
        ("application/jwt", False),
        (f"{TYPE};q=0", False),
        (f"{TYPE};q=0.1, application/json", False),
        (f"x{TYPE}", False),
        ("", False),
        (",;q=", False),
        ("a" * 4_000, False),
    ],
)
def test_the_form_that_the_caller_prefers(stage: ApplicationFixture, accept, signed):
    answer = ask(stage, stage.token(), stage.callers["basic-jwt"], accept)
    assert answer.status_code == 200
    assert answer.content_type == (TYPE if signed else "application/json")
    assert answer.headers["Cache-Control"] == "no-store"


def test_refusals_stay_plain(stage: ApplicationFixture, method):
    """Case E57."""
    caller = stage.callers[f"{method}-jwt"]
    for sent, by, status in (({"token": "x"}, None, 401), ({}, caller, 400)):
        answer = stage.post("introspect", sent, by, {"Accept": TYPE})
        assert (answer.status_code, answer.content_type) == (status, "application/json")


def test_a_signed_answer_is_no_access_token(stage: ApplicationFixture, method, form):
    """Case D38."""
    caller, name = stage.callers[f"client-{method}"], f"{method}-{form}"
    token = stage.token(f"{name}/read", caller)
    signed = ask(stage, token, caller).get_data(as_text=True)
    assert stage.introspect(signed, caller) == INACTIVE
    assert stage.introspect(signed, name) == INACTIVE
    stage.revoke(signed, caller)
    assert stage.introspect(token, name)["active"] is True


def test_a_signed_answer_is_meant_for_its_caller_alone(stage: ApplicationFixture):
    """Case E59."""
    answer = ask(stage, stage.token("basic-jwt/read"), stage.callers["basic-jwt"])
    with pytest.raises(jwt.InvalidAudienceError):
        read(stage, answer, "https://post-jwt.example")


def test_a_ring_of_its_own_signs_the_answers(sqlite_url, tmp_path):
    rings = {"es256": {"algorithm": "ES256"}, "rs256": {"algorithm": "RS256"}}
    keys = {"rings": rings, "default_ring": "es256"}
    stage = ApplicationFixture(
        tmp_path, sqlite_url, keys=keys, introspection={"signing_ring": "rs256"}
    )
    try:
        caller = stage.callers["basic-jwt"]
        answer = ask(stage, stage.token(), caller)
        header, claims = read(stage, answer, "https://basic-jwt.example")
        assert header["alg"] == "RS256"
        assert claims["token_introspection"]["active"] is True
    finally:
        stage.close()


# ----------------------------------------------------------------------------------- encrypted

OWN_ALGORITHMS = ("RSA-OAEP-256", "ECDH-ES", "ECDH-ES+A256KW")


@cache
def own_key(alg: str) -> ECKey | RSAKey:
    """Return the key of the caller for an algorithm."""
    return RSAKey.generate_key(2_048) if "RSA" in alg else ECKey.generate_key("P-256")


def encryption(name: str, enc: str | None = None, **members) -> dict:
    """Return the properties of a caller that wants its answers encrypted."""
    key = own_key(name).as_dict(private=False) | {"use": "enc", "kid": "own"} | members
    signing = jwks_of(new_key("ES256"), kid="s", use="sig")["keys"]
    properties = {"jwks": {"keys": [*signing, key]}, "introspection_encrypted_response_alg": name}
    return properties | ({"introspection_encrypted_response_enc": enc} if enc else {})


def register(stage: ApplicationFixture, name: str, **properties) -> None:
    with stage.change() as (services, session):
        services.clients.update_resource_server(session, name, actor=ACTOR, properties=properties)


@pytest.mark.parametrize("enc", [None, "A128CBC-HS256", "A256GCM"])
@pytest.mark.parametrize("alg", OWN_ALGORITHMS)
def test_a_signed_answer_is_encrypted_to_the_key_of_its_caller(
    stage: ApplicationFixture, method, alg, enc
):
    name = f"{method}-jwt"
    token = stage.token(f"{name}/read")
    plain = stage.introspect(token, name)
    register(stage, name, **encryption(alg, enc))
    try:
        for presented, expected in ((token, plain), ("invented", INACTIVE)):
            answer = ask(stage, presented, stage.callers[name])
            assert (answer.status_code, answer.content_type) == (200, TYPE)
            sent = answer.get_data(as_text=True)
            nested = jwe.decrypt_compact(
                sent, own_key(alg), algorithms=[alg, enc or "A128CBC-HS256"]
            )
            header = {"alg": alg, "enc": enc or "A128CBC-HS256", "cty": "JWT", "kid": "own"}
            assert header.items() <= nested.protected.items()
            signed = nested.plaintext.decode()
            assert jwt.get_unverified_header(signed)["typ"] == "token-introspection+jwt"
            claims = jwt.decode(signed, options={"verify_signature": False})
            assert claims["token_introspection"] == expected
        # Another caller gets another form, and a caller that asks for JSON gets JSON.
        assert stage.introspect(token, name) == plain
        assert ask(stage, token, stage.callers["client-basic"]).get_data().count(b".") == 2
    finally:
        register(stage, name, **dict.fromkeys(encryption(alg, "A256GCM")))


def test_without_the_key_set_nothing_is_sent_that_is_only_signed(stage: ApplicationFixture, method):
    name = f"{method}-jwt"
    register(
        stage,
        name,
        jwks_uri="https://192.0.2.1/jwks",
        introspection_encrypted_response_alg="ECDH-ES",
    )
    try:
        answer = ask(stage, stage.token(f"{name}/read"), stage.callers[name])
        assert (answer.status_code, answer.get_json()["error"]) == (503, "temporarily_unavailable")
        assert "encryption" in stage.records()[-1]["detail"]
    finally:
        register(stage, name, jwks_uri=None, introspection_encrypted_response_alg=None)


def test_an_encryption_that_fails_is_a_503(stage: ApplicationFixture, monkeypatch):
    def refuse(*_, **__):
        raise KeysError("nothing can be encrypted to the key")

    register(stage, "basic-jwt", **encryption("ECDH-ES"))
    monkeypatch.setattr("keys.jose.encryption.EncryptionKey.encrypt", refuse)
    try:
        answer = ask(stage, stage.token("basic-jwt/read"), stage.callers["basic-jwt"])
        assert (answer.status_code, answer.get_json()["error"]) == (503, "temporarily_unavailable")
    finally:
        monkeypatch.undo()
        register(stage, "basic-jwt", **dict.fromkeys(encryption("ECDH-ES", "A256GCM")))


@pytest.mark.parametrize(
    "properties",
    [
        {"introspection_encrypted_response_alg": "RSA1_5"},
        {"introspection_encrypted_response_alg": "ECDH-ES"},
        {"introspection_encrypted_response_enc": "A256GCM"},
        encryption("ECDH-ES") | {"introspection_encrypted_response_enc": "A192GCM"},
        encryption("ECDH-ES") | {"introspection_encrypted_response_alg": "RSA-OAEP-256"},
        encryption("ECDH-ES", use="sig"),
        encryption("ECDH-ES", alg="ECDH-ES+A256KW"),
        encryption("ECDH-ES", x="AAAA"),
        encryption("ECDH-ES", kty="OKP", crv="X25519", x="A" * 43),
    ],
)
def test_an_encryption_without_a_fitting_key_is_not_registered(
    stage: ApplicationFixture, properties
):
    with pytest.raises(InvalidChangeError):
        register(stage, "basic-jwt", **properties)


def test_the_metadata_lists_the_algorithms(stage: ApplicationFixture):
    metadata = stage.client.get("/.well-known/oauth-authorization-server").get_json()
    assert metadata["introspection_encryption_alg_values_supported"] == list(OWN_ALGORITHMS)
    assert metadata["introspection_encryption_enc_values_supported"] == ["A128CBC-HS256", "A256GCM"]
