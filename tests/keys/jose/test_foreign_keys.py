"""Public keys of other parties: which are refused, and which are ignored in published sets."""

import json

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa, x25519
from jwcrypto.jwk import JWK

from keys.errors import KeysError
from keys.jose.compact import decode_segment
from keys.jose.foreign import (
    ForeignKey,
    ForeignKeys,
    parse_key_set,
    parse_published_key_set,
)
from keys.jose.jwk import public_jwk
from support.forged_tokens import segment

EC = ec.generate_private_key(ec.SECP256R1())
RSA = rsa.generate_private_key(65537, 2048)
OTHER_EC = public_jwk(ec.generate_private_key(ec.SECP256R1()))
JWKS = {
    "P-256": public_jwk(EC),
    "P-384": public_jwk(ec.generate_private_key(ec.SECP384R1())),
    "RSA": public_jwk(RSA),
    "Ed25519": public_jwk(ed25519.Ed25519PrivateKey.generate()),
}


def rsa_jwk(n: int, e: int) -> dict[str, str]:
    return {"kty": "RSA", "n": _number(n), "e": _number(e)}


def _number(value: int) -> str:
    return segment(value.to_bytes((value.bit_length() + 7) // 8))


def longer(member: str) -> str:
    """Return a member with a byte of zero before it: the same number in another spelling."""
    return segment(b"\0" + decode_segment(member.encode()))


MODULUS = RSA.public_key().public_numbers().n
HIDDEN = JWK.from_pyca(EC).export_private(as_dict=True)
#: The y of the point of P-256 whose x is 5, and the prime of the field.
POINT_Y = 0x459243B9AA581806FE913BCE99817ADE11CA503C64D9A3C533415C083248FBCC
FIELD = 2**256 - 2**224 + 2**192 + 2**96 - 1


def small_point(x: int) -> dict[str, str]:
    y = segment(POINT_Y.to_bytes(32))
    return {"kty": "EC", "crv": "P-256", "x": segment(x.to_bytes(32)), "y": y}


REFUSED_KEYS = {
    "RSA-1024": rsa_jwk(2**1_023 + 1, 65537),
    "RSA-8192": rsa_jwk(MODULUS**4, 65537),
    "RSA-million-bits": rsa_jwk(2**1_000_000 + 1, 65537),
    "exponent-1": rsa_jwk(MODULUS, 1),
    "exponent-3": rsa_jwk(MODULUS, 3),
    "exponent-even": rsa_jwk(MODULUS, 65_538),
    "exponent-huge": rsa_jwk(MODULUS, 2**1_024 + 1),
    "modulus-even": rsa_jwk(MODULUS - 1, 65537),
    "off-curve": {**JWKS["P-256"], "y": JWKS["P-256"]["x"]},
    "short-coordinate": {**JWKS["P-256"], "x": "AA"},
    "long-coordinate": {**JWKS["P-256"], "x": longer(JWKS["P-256"]["x"])},
    "coordinate-beyond-the-field": small_point(5 + FIELD),
    "empty-coordinate": {**JWKS["P-256"], "x": ""},
    "padded-coordinate": {**JWKS["P-256"], "x": JWKS["P-256"]["x"] + "="},
    "coordinate-number": {**JWKS["P-256"], "x": 7},
    "no-coordinate": {"kty": "EC", "crv": "P-256", "x": JWKS["P-256"]["x"]},
    "secp256k1": public_jwk(ec.generate_private_key(ec.SECP256K1())),
    "X25519": JWK.from_pyca(x25519.X25519PrivateKey.generate()).export_public(as_dict=True),
    "Ed448": JWK.from_pyca(ed448.Ed448PrivateKey.generate()).export_public(as_dict=True),
    "oct": {"kty": "oct", "k": "A" * 43},
    "private": HIDDEN,
    "half-private": {**JWKS["RSA"], "p": "AQAB"},
    "list": [],
    "text": "key",
    "null": None,
}


@pytest.mark.parametrize("name", REFUSED_KEYS)
def test_keys_that_cannot_be_registered(name):
    """Case D55."""
    jwk = REFUSED_KEYS[name]
    with pytest.raises(KeysError):
        ForeignKey(jwk)
    with pytest.raises(KeysError):
        parse_key_set({"keys": [JWKS["Ed25519"], jwk]})
    published = json.dumps({"keys": [jwk, JWKS["Ed25519"]]}).encode()
    assert len(parse_published_key_set(published)) == 1


@pytest.mark.parametrize("jwk", [small_point(5), *JWKS.values()], ids=["zeros", *JWKS])
def test_a_key_has_the_thumbprint_that_another_library_finds(jwk):
    """Also where a coordinate begins with zeros, which belong to it (RFC 7518, 6.2.1.2)."""
    assert ForeignKey({**jwk, "kid": "a"}).thumbprint == JWK(**jwk).thumbprint()


def test_an_rsa_key_with_leading_zeros_has_the_thumbprint_of_the_key():
    padded = {**JWKS["RSA"], "n": longer(JWKS["RSA"]["n"])}
    assert ForeignKey(padded).thumbprint == JWK(**JWKS["RSA"]).thumbprint()


def many(count: int) -> list[dict[str, str]]:
    return [{**JWKS["P-256"], "kid": str(number)} for number in range(count)]


@pytest.mark.parametrize(
    "document",
    [
        None,
        [],
        {},
        {"keys": None},
        {"keys": {}},
        {"keys": []},
        {"keys": many(1_000)},
        {"keys": [{**JWKS["P-256"], "kid": "a"}, {**OTHER_EC, "kid": "a"}]},
        {"keys": [{**JWKS["RSA"], "kid": "a"}, {**JWKS["RSA"], "kid": "a", "alg": "PS256"}]},
        {"keys": [{**JWKS["P-256"], "kid": "a"}, {**JWKS["P-256"], "kid": "b"}]},
        {"keys": [JWKS["P-256"], JWKS["P-256"]]},
        JWKS["P-256"],
    ],
)
def test_sets_that_cannot_be_registered(document):
    """Case D55."""
    with pytest.raises(KeysError):
        parse_key_set(document)


@pytest.mark.parametrize(
    "document", [b"", b"[]", b"{}", b'{"keys":{}}', b'{"keys":[', b'{"keys":[],"keys":[]}', b"\xff"]
)
def test_published_documents_that_are_no_key_set(document):
    with pytest.raises(KeysError):
        parse_published_key_set(document)


def test_published_keys_that_cannot_be_used_are_ignored():
    """Case D55."""
    keys = [
        *REFUSED_KEYS.values(),
        {**JWKS["RSA"], "use": "enc"},
        {**JWKS["Ed25519"], "kid": "good"},
    ]
    published = parse_published_key_set(json.dumps({"keys": keys}).encode(), maximum_keys=100)
    assert len(published) == 1
    assert published.find("good", "EdDSA") is not None
    with pytest.raises(KeysError):
        parse_published_key_set(json.dumps({"keys": keys}).encode())


def both_ways(*keys: dict[str, str]) -> list[ForeignKeys]:
    """Return a set as a client registers it, and as it publishes it."""
    document = {"keys": list(keys)}
    return [parse_key_set(document), parse_published_key_set(json.dumps(document).encode())]


def test_keys_of_different_algorithms_may_share_an_id():
    """RFC 7517, 4.5: "different kty values" and one kid; FAPI 2.0, 5.4.3: alg and use count too."""
    of_types = [{**JWKS[name], "kid": "a"} for name in ("P-256", "P-384", "RSA", "Ed25519")]
    for keys in both_ways(*of_types, {**OTHER_EC, "kid": "a", "use": "enc"}):
        assert all(keys.find("a", alg) for alg in ("ES256", "ES384", "PS256", "EdDSA"))
        assert keys.find("a", "ES512") is None
    of_algorithms = [{**JWKS["RSA"], "kid": "a", "alg": alg} for alg in ("PS256", "RS256")]
    for keys in both_ways(*of_algorithms):
        assert keys.find("a", "PS256") is not keys.find("a", "RS256")
        assert keys.find("a", "PS512") is None


def test_of_published_keys_with_one_id_and_algorithm_none_verifies():
    """A key chosen by chance would refuse every second signature; other algorithms are clear."""
    listed = [JWKS["P-256"], OTHER_EC, JWKS["Ed25519"]]
    document = json.dumps({"keys": [{**jwk, "kid": "a"} for jwk in listed]}).encode()
    keys = parse_published_key_set(document)
    assert keys.find("a", "ES256") is None
    assert keys.find("a", "EdDSA") is not None


def test_a_key_that_is_published_twice_is_one_key():
    twice = [{**JWKS["RSA"], "kid": "a"}, {**JWKS["RSA"], "kid": "a", "alg": "PS256"}]
    keys = parse_published_key_set(json.dumps({"keys": twice}).encode())
    assert all(keys.find(kid, alg) for kid in ("a", None) for alg in ("PS256", "RS256"))
