"""Any value in any member of a token, proof or key set ends in a refusal, and in nothing else."""

import json

import pytest

from authz_verifier import Refusal
from authz_verifier.documents import parse_key_set, parse_metadata
from authz_verifier.signing import SigningKey
from authz_verifier.testing import DEFAULT_AUDIENCE, proof

KEY = SigningKey()
URL = f"{DEFAULT_AUDIENCE}/mapper/link"
ODD = [
    *(None, True, 0, -1, 1.5, 2**63, "", " ", "none", "\x00", "\u2028", "a" * 3_000),
    *([], [None], [[]], {}, {"a": []}, "https://[", "ES256", "AA"),
]
CLAIMS = ["iss", "sub", "aud", "exp", "iat", "nbf", "jti", "scope", "client_id", "cnf"]
HEADER = ["alg", "kid", "typ", "crit", "jwk", "x5t", "zip"]
PROOF = ["jti", "htm", "htu", "iat", "ath"]
JWK = ["kty", "crv", "x", "y", "alg", "use", "kid", "n", "e", "key_ops"]


def is_decided(verifier, request) -> bool:
    try:
        verifier.authenticate(request)
    except Refusal as refusal:
        return refusal.status in {400, 401}
    return True


def signed(header: dict, claims: dict, key: SigningKey = KEY) -> str:
    return key.sign_segments(json.dumps(header).encode(), json.dumps(claims).encode())


@pytest.mark.parametrize("name", CLAIMS)
def test_claims(verifier, issuer, present, name):
    key = issuer.keys[0]
    header = {"alg": "ES256", "typ": "at+jwt", "kid": key.kid}
    for value in ODD:
        token = signed(header, issuer.claims() | {name: value}, key)
        assert is_decided(verifier, present(token))
    for value in ODD:
        for member in ("jkt", "x5t#S256"):
            token = signed(header, issuer.claims() | {"cnf": {member: value}}, key)
            bound = present(token, "DPoP", proofs=(proof(KEY, "POST", URL, token),))
            assert is_decided(verifier, bound)


@pytest.mark.parametrize("name", HEADER)
def test_headers(verifier, issuer, present, name):
    key = issuer.keys[0]
    for value in ODD:
        header = {"alg": "ES256", "typ": "at+jwt", "kid": key.kid, name: value}
        assert is_decided(verifier, present(signed(header, issuer.claims(), key)))


@pytest.mark.parametrize("name", [*HEADER, *JWK, *PROOF])
def test_proofs(verifier, issuer, present, name):
    token = issuer.token(proof_key=KEY)
    for value in ODD:
        header = {"typ": "dpop+jwt", "alg": "ES256", "jwk": KEY.bare_jwk}
        claims = {"jti": "x", "htm": "POST", "htu": URL, "iat": 0, "ath": "x"}
        if name in PROOF:
            claims[name] = value
        elif name in HEADER:
            header[name] = value
        for jwk in ({}, {name: value}):
            made = signed(
                header | {"jwk": header["jwk"] if not jwk else KEY.bare_jwk | jwk}, claims
            )
            assert is_decided(verifier, present(token, "DPoP", proofs=(made,)))


@pytest.mark.parametrize("name", JWK)
def test_key_sets(name):
    sound = SigningKey().public_jwk
    for value in ODD:
        data = json.dumps({"keys": [KEY.public_jwk | {name: value}, value, sound]}).encode()
        assert sound["kid"] in parse_key_set(data).kids


@pytest.mark.parametrize(
    "name",
    ["issuer", "jwks_uri", "introspection_endpoint", "id_token_signing_alg_values_supported"],
)
def test_metadata(name):
    issuer = "https://auth.example.org"
    sound = {"issuer": issuer, "jwks_uri": f"{issuer}/jwks"}
    for value in ODD:
        try:
            metadata = parse_metadata(json.dumps(sound | {name: value}).encode(), issuer)
        except ValueError:
            continue
        assert metadata.jwks_uri == f"{issuer}/jwks"
