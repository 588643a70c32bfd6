"""JWT access tokens: what is accepted, and every way to be refused."""

import json
import time

import pytest

from authz_verifier import ConfigurationError, Refusal, Request, Verifier
from authz_verifier.compact import encode_segment
from authz_verifier.signing import SigningKey
from authz_verifier.testing import DEFAULT_AUDIENCE, LocalIssuer

ALGORITHMS = ["ES256", "ES384", "ES512", "PS256", "RS256", "EdDSA"]
SCOPE = "mapper/link"


class FromNow(int):
    """Seconds from the time of the test."""


def resolve(changes: dict) -> dict:
    now = int(time.time())
    return {k: now + v if isinstance(v, FromNow) else v for k, v in changes.items()}


def refuse(verifier: Verifier, request: Request, *scopes: str) -> Refusal:
    with pytest.raises(Refusal) as caught:
        verifier.authenticate(request, *scopes)
    return caught.value


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_sound_token_is_accepted(algorithm, present):
    with LocalIssuer(algorithm) as issuer, Verifier(issuer.url, DEFAULT_AUDIENCE) as verifier:
        token = verifier.authenticate(present(issuer.token(f"other {SCOPE}")), SCOPE)
    assert token.client_id == token.subject == "test-client"
    assert token.scopes == {"other", SCOPE}
    assert not token.introspected


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"iss": "https://other.example"}, "iss"),
        ({"iss": None}, "iss"),
        ({"aud": "https://other.example"}, "aud"),
        ({"aud": [DEFAULT_AUDIENCE, 7]}, "aud"),
        ({"aud": f"{DEFAULT_AUDIENCE}/"}, "aud"),
        ({"aud": None}, "aud"),
        ({"exp": FromNow(-11)}, "expired"),
        ({"exp": None}, "exp"),
        ({"exp": "1900000000"}, "exp"),
        ({"exp": True}, "exp"),
        ({"iat": FromNow(100)}, "not valid yet"),
        ({"iat": None}, "iat"),
        ({"nbf": FromNow(100)}, "not valid yet"),
        ({"nbf": "0"}, "nbf"),
        ({"sub": None}, "sub"),
        ({"sub": 7}, "sub"),
        ({"client_id": ""}, "client_id"),
        ({"jti": None}, "jti"),
        ({"scope": {"a": 1}}, "scope"),
        ({"cnf": {}}, "cnf"),
        ({"cnf": "x"}, "cnf"),
        ({"cnf": {"kid": "x"}}, "unknown confirmation method"),
        ({"cnf": {"jkt": "x"}}, "presented as Bearer"),
        ({"cnf": {"x5t#S256": "x"}}, "no client certificate"),
    ],
)
def test_a_signed_token_with_wrong_claims_is_refused(verifier, issuer, present, changes, reason):
    refusal = refuse(verifier, present(issuer.token(**resolve(changes))))
    assert (refusal.status, refusal.error, refusal.reason) == (401, "invalid_token", reason)


@pytest.mark.parametrize("changes", [{"exp": FromNow(-5)}, {"iat": FromNow(5)}])
def test_clocks_may_differ_by_ten_seconds(verifier, issuer, present, changes):
    assert verifier.authenticate(present(issuer.token(**resolve(changes))))


@pytest.mark.parametrize(
    "header",
    [
        {"alg": "none"},
        {"alg": "HS256"},
        {"alg": "RS256"},
        {"alg": ["ES256"]},
        {"kid": None},
        {"kid": 7},
        {"kid": "unknown"},
        {"typ": None},
        {"typ": "JWT"},
        {"typ": "dpop+jwt"},
        {"crit": ["exp"]},
        {"b64": False},
        {"jwk": SigningKey().bare_jwk},
        {"jku": "https://attacker.example/jwks"},
        {"x5u": "https://attacker.example/cert"},
        {"x5c": ["AA"]},
        {"zip": "DEF"},
    ],
)
def test_a_signed_token_with_a_wrong_header_is_refused(verifier, issuer, present, header):
    refusal = refuse(verifier, present(issuer.token(header=header)))
    assert (refusal.status, refusal.error) == (401, "invalid_token")


def test_typ_may_be_written_in_full(verifier, issuer, present):
    token = issuer.token(header={"typ": "application/AT+JWT"})
    assert verifier.authenticate(present(token))


def test_typ_jwt_is_accepted_by_a_setting(issuer, present):
    token = issuer.token(header={"typ": "JWT"}, client_id=None, jti=None)
    with Verifier(issuer.url, DEFAULT_AUDIENCE, token_types=["JWT"]) as verifier:
        assert verifier.authenticate(present(token))
        assert refuse(verifier, present(issuer.token())).reason == "typ"


def test_another_key_under_the_same_kid_is_refused(verifier, issuer, present):
    forger = SigningKey(kid=issuer.keys[0].kid)
    assert refuse(verifier, present(issuer.token(key=forger))).reason == "signature"


@pytest.mark.parametrize("half", [b"\x00" * 32, b"\xff" * 32])
def test_a_signature_out_of_range_is_refused(verifier, issuer, present, half):
    unsigned = issuer.token().rpartition(".")[0]
    signature = encode_segment(half * 2).decode()
    assert refuse(verifier, present(f"{unsigned}.{signature}")).reason == "signature"


@pytest.mark.parametrize(
    "bend",
    [
        lambda payload: payload[:-1] + b',"aud":"x"}',
        lambda payload: payload[:-1] + b',"x":NaN}',
        lambda payload: payload[:-1] + b',"x":1e999}',
        lambda payload: payload[:-1] + b',"x":' + b"9" * 30 + b"}",
        lambda payload: payload[:-1] + b',"x":"\\ud800"}',
        lambda payload: payload[:-1] + b',"x":"\xff"}',
        lambda payload: payload + b"{}",
        lambda payload: b"\xef\xbb\xbf" + payload,
        lambda payload: b"[" + payload + b"]",
        lambda payload: payload[:-1] + b',"x":' + b"[" * 5_000 + b"]" * 5_000 + b"}",
        lambda payload: payload[:-1] + b',"x":' + b'{"a":' * 100 + b"1" + b"}" * 100 + b"}",
    ],
)
def test_bent_json_is_refused_although_it_is_signed(verifier, issuer, present, bend):
    key = issuer.keys[0]
    header = json.dumps({"alg": "ES256", "typ": "at+jwt", "kid": key.kid}).encode()
    token = key.sign_segments(header, bend(json.dumps(issuer.claims()).encode()))
    assert refuse(verifier, present(token)).error == "invalid_token"


@pytest.mark.parametrize(
    "bend",
    [
        lambda token: token + "=",
        lambda token: token[:-1],
        lambda token: token + ".",
        lambda token: token.rpartition(".")[0] + ".",
        lambda token: token.rpartition(".")[0],
        lambda token: "." + token,
        lambda token: token.replace(".", "..", 1),
        lambda token: token * 100,
        lambda token: token.partition(".")[0],
    ],
)
def test_a_bent_token_is_refused(verifier, issuer, present, bend):
    refusal = refuse(verifier, present(bend(issuer.token())))
    assert (refusal.status, refusal.error) == (401, "invalid_token")


@pytest.mark.parametrize("scope", ["", "mapper", "mapper/link/x", "MAPPER/LINK", "mapper/*"])
def test_a_scope_is_compared_exactly(verifier, issuer, present, scope):
    refusal = refuse(verifier, present(issuer.token(scope)), SCOPE)
    assert (refusal.status, refusal.error) == (403, "insufficient_scope")
    assert refusal.scopes == (SCOPE,)


def test_every_required_scope_is_needed(verifier, issuer, present):
    assert refuse(verifier, present(issuer.token("a")), "a", "b").status == 403
    assert verifier.authenticate(present(issuer.token(["b", "a"])), "a", "b")


@pytest.mark.parametrize(
    ("headers", "status", "error"),
    [
        ((), 401, ""),
        (("Basic YTpi",), 401, ""),
        (("Bearer",), 400, "invalid_request"),
        (("Bearer ",), 400, "invalid_request"),
        (("Bearer a", "Bearer b"), 400, "invalid_request"),
        (("Bearer a, Bearer b",), 400, "invalid_request"),
        ((f"Bearer {16_385 * 'a'}",), 401, "invalid_token"),
        (("Bearer \u00e9",), 401, "invalid_token"),
        (("Bearer a b",), 401, "invalid_token"),
    ],
)
def test_credentials_that_are_not_a_token_are_refused(verifier, headers, status, error):
    request = Request("GET", DEFAULT_AUDIENCE, headers)
    refusal = refuse(verifier, request)
    assert (refusal.status, refusal.error) == (status, error)


def test_the_scheme_is_compared_without_case(verifier, issuer, present):
    assert verifier.authenticate(present(issuer.token(), "bEARER"))


@pytest.mark.parametrize(
    ("settings", "word"),
    [
        ({"issuer": "http://auth.example.org"}, "https"),
        ({"audience": ""}, "audience"),
        ({"mode": "other"}, "mode"),
        ({"mode": "introspection"}, "client_secret"),
        ({"mode": "hybrid", "client_id": "a", "client_secret": "b"}, "money_scopes"),
        ({"token_types": "at+jwt"}, "token_types"),
        ({"algorithms": ["HS256"]}, "algorithms"),
        ({"algorithms": ["none"]}, "algorithms"),
        ({"envelope": "xml"}, "envelope"),
        ({"introspection_cache_seconds": 301}, "introspection_cache_seconds"),
        ({"timeout_seconds": 0}, "timeout_seconds"),
    ],
)
def test_a_wrong_setting_is_named(settings, word):
    with pytest.raises(ConfigurationError, match=word):
        Verifier(**({"issuer": "https://auth.example.org", "audience": "a"} | settings))
