"""Public keys as JWK: what is read, what is refused, thumbprints as the RFC prints them."""

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from jwcrypto.jwk import JWK

from keys.errors import KeysError
from keys.jose.algorithms import ALGORITHMS, get_algorithm
from keys.jose.jwk import PUBLIC_MEMBERS, load_public_key, public_jwk, thumbprint
from keys.jose.signatures import generate_private_key

#: RFC 7638, 3.1.
RFC_MODULUS = (
    "0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1RK7aPFFxuhDR1L6tSoc_BJECPebWKRX"
    "jBZCiFV4n3oknjhMstn64tZ_2W-5JsGY4Hc5n9yBXArwl93lqt7_RN5w6Cf0h4QyQ5v-65YGjQR0_FDW2QvzqY368QQMicAtaS"
    "qzs8KJZgnYb9c7d0zgdAZHzu6qMQvRL5hajrn1n91CbOpbISD08qNLyrdkt-bFTWhAI4vMQFh6WeZu0fM4lFd2NcRwr3XPksIN"
    "HaQ-G_xBniIqbw0Ls1jF44-csFCur-kEgU8awapJzKnqDKgw"
)


def test_the_thumbprint_is_that_of_the_rfc():
    jwk = {"kty": "RSA", "n": RFC_MODULUS, "e": "AQAB"}
    assert thumbprint(jwk) == "NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs"


@pytest.mark.parametrize("alg", list(ALGORITHMS))
def test_a_generated_key_is_public_readable_and_its_own(alg):
    private = generate_private_key(get_algorithm(alg))
    jwk = public_jwk(private)
    assert set(jwk) == set(PUBLIC_MEMBERS[jwk["kty"]])
    assert jwk == public_jwk(private.public_key())
    assert load_public_key(jwk, alg) == private.public_key()


@pytest.mark.parametrize("alg", list(ALGORITHMS))
def test_thumbprints_are_those_of_another_library(alg):
    jwk = public_jwk(generate_private_key(get_algorithm(alg)))
    assert thumbprint(jwk) == JWK(**jwk).thumbprint()


@pytest.mark.parametrize("curve", [ec.SECP192R1(), ec.SECP224R1()], ids=lambda each: each.name)
def test_a_key_of_a_curve_without_a_name_in_jwks_is_refused(curve):
    private = ec.generate_private_key(curve)
    for key in (private, private.public_key()):
        with pytest.raises(KeysError, match="unsupported curve"):
            public_jwk(key)


KEYS = {
    "EC P-256": ec.generate_private_key(ec.SECP256R1()),
    "EC P-384": ec.generate_private_key(ec.SECP384R1()),
    "EC P-521": ec.generate_private_key(ec.SECP521R1()),
    "EC secp256k1": ec.generate_private_key(ec.SECP256K1()),
    "RSA 2048": rsa.generate_private_key(65537, 2048),
    "OKP Ed25519": ed25519.Ed25519PrivateKey.generate(),
}
FITS = {
    ("ES256", "EC P-256"),
    ("ES384", "EC P-384"),
    ("ES512", "EC P-521"),
    ("RS256", "RSA 2048"),
    ("PS256", "RSA 2048"),
    ("EdDSA", "OKP Ed25519"),
}


@pytest.mark.parametrize("name", list(KEYS))
@pytest.mark.parametrize("alg", list(ALGORITHMS))
def test_a_key_fits_its_own_algorithm_only(alg, name):
    """Case D38."""
    jwk = public_jwk(KEYS[name])
    if (alg, name) in FITS:
        assert load_public_key(jwk, alg) == KEYS[name].public_key()
    else:
        with pytest.raises(KeysError):
            load_public_key(jwk, alg)


EC_KEY = public_jwk(KEYS["EC P-256"])


@pytest.mark.parametrize(
    "jwk",
    [
        {},
        {"kty": "EC"},
        {"kty": "oct", "k": "AAAA"},
        JWK.from_pyca(KEYS["EC P-256"]).export_private(as_dict=True),
        EC_KEY | {"kid": "x"},
        EC_KEY | {"d": "AAAA"},
        EC_KEY | {"use": "enc"},
        EC_KEY | {"crv": "P-257"},
        EC_KEY | {"x": EC_KEY["y"], "y": EC_KEY["x"]},
        EC_KEY | {"x": ""},
        EC_KEY | {"x": "*"},
        EC_KEY | {"x": 1},
        EC_KEY | {"y": None},
        EC_KEY | {"x": ["AAAA"]},
        EC_KEY | {"crv": {}},
    ],
)
def test_anything_but_a_sound_public_key_is_refused(jwk):
    """Case D55."""
    with pytest.raises(KeysError):
        load_public_key(jwk, "ES256")


def weak_rsa_keys():
    small = public_jwk(rsa.generate_private_key(65537, 1024))  # noqa: S505 - to be refused
    strong = public_jwk(KEYS["RSA 2048"])
    return [small, strong | {"e": "Aw"}, strong | {"e": "AQAA"}, strong | {"e": "AQ"}]


@pytest.mark.parametrize("jwk", weak_rsa_keys())
def test_a_weak_rsa_key_is_refused(jwk):
    """Case D55."""
    for alg in ("RS256", "PS256"):
        with pytest.raises(KeysError):
            load_public_key(jwk, alg)
