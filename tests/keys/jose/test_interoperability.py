"""Tokens and JWKS against JOSE libraries that others wrote."""

import json

import jwt
import pytest
from joserfc import jws
from joserfc.jwk import KeySet
from jwcrypto.jwk import JWKSet
from jwcrypto.jws import JWS

from keys.errors import TokenRefusedError

ALGORITHMS = ("ES256", "ES384", "ES512", "RS256", "PS256", "EdDSA")
PAYLOAD = b'{"iss":"https://authz.example.org","sub":"client","exp":1900000000}'


@pytest.fixture(scope="module", params=ALGORITHMS)
def signed(request, shared_ring_set):
    """A ring of each algorithm, its JWKS and a token."""
    alg = request.param
    shared_ring_set.add(alg)
    rings = shared_ring_set.rings
    return alg, rings, rings.sign(alg, PAYLOAD, typ="at+jwt", lifetime_seconds=900)


@pytest.mark.filterwarnings("ignore:EdDSA is deprecated")
def test_joserfc_verifies(signed):
    alg, rings, token = signed
    keys = KeySet.import_key_set(json.loads(rings.jwks()))
    verified = jws.deserialize_compact(token.token, keys, algorithms=[alg])
    assert verified.payload == PAYLOAD
    assert verified.headers()["kid"] == token.kid


def test_pyjwt_verifies(signed):
    alg, rings, token = signed
    key = jwt.PyJWKSet.from_json(rings.jwks().decode())[token.kid]
    assert jwt.api_jws.decode(token.token, key, algorithms=[alg]) == PAYLOAD


def test_jwcrypto_verifies(signed):
    alg, rings, token = signed
    keys = JWKSet.from_json(rings.jwks().decode())
    verifier = JWS()
    verifier.allowed_algs = [alg]
    verifier.deserialize(token.token, keys.get_key(token.kid))
    assert verifier.payload == PAYLOAD
    assert keys.get_key(token.kid).thumbprint() == token.kid


def test_what_others_sign_with_the_same_private_key_verifies_here(signed, shared_ring_set):
    alg, rings, token = signed
    private = shared_ring_set.private_key(alg, 1)
    headers = {"typ": "at+jwt", "kid": token.kid}
    theirs = jwt.api_jws.encode(PAYLOAD, private, algorithm=alg, headers=headers)
    assert rings.verify(theirs).payload == PAYLOAD


def test_what_others_sign_with_another_private_key_does_not(signed, shared_ring_set):
    alg, rings, token = signed
    private = shared_ring_set.private_key(alg, 2)
    headers = {"typ": "at+jwt", "kid": token.kid}
    theirs = jwt.api_jws.encode(PAYLOAD, private, algorithm=alg, headers=headers)
    with pytest.raises(TokenRefusedError, match="wrong signature"):
        rings.verify(theirs)
