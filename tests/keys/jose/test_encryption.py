"""Encryption to the keys of others: which keys are taken, and that another library decrypts."""

import pytest
from joserfc import jwe
from joserfc.jwk import ECKey, OKPKey, RSAKey

from keys.errors import KeysError
from keys.jose.encryption import CONTENT_ENCRYPTION, KEY_MANAGEMENT, EncryptionKey
from keys.jose.foreign import parse_key_set

KEYS = {
    "RSA": RSAKey.generate_key(2_048),
    "P-256": ECKey.generate_key("P-256"),
    "P-521": ECKey.generate_key("P-521"),
    "X25519": OKPKey.generate_key("X25519"),
}
FITTING = [
    (name, alg)
    for name in KEYS
    for alg in KEY_MANAGEMENT
    if (name == "RSA") == alg.startswith("RSA")
]


EVEN_MODULUS = KEYS["RSA"].as_dict(private=False)["n"][:-4] + "AAAA"


def public(name, **members):
    return KEYS[name].as_dict(private=False) | {"use": "enc"} | members


@pytest.mark.parametrize("enc", CONTENT_ENCRYPTION)
@pytest.mark.parametrize(("name", "alg"), FITTING)
def test_another_library_decrypts_what_was_encrypted(name, alg, enc):
    key = EncryptionKey(public(name, kid="k-1"))
    assert alg in key.algorithms
    message = key.encrypt(b"a nested token", alg, enc, cty="JWT")
    found = jwe.decrypt_compact(message, KEYS[name], algorithms=[alg, enc])
    assert found.plaintext == b"a nested token"
    expected = {"alg": alg, "enc": enc, "cty": "JWT", "kid": "k-1"}
    assert expected.items() <= found.protected.items()


@pytest.mark.parametrize(
    "jwk",
    [
        None,
        {},
        public("RSA", use="sig"),
        {name: value for name, value in public("RSA").items() if name != "use"},
        public("RSA", alg="RSA1_5"),
        public("P-256", alg="RSA-OAEP-256"),
        public("P-256", y=public("P-256")["x"]),
        public("P-256", crv="secp256k1"),
        public("P-256", x="AAAA"),
        public("X25519", crv="Ed25519"),
        # They load, but nothing can be encrypted to them.
        public("X25519", x="A" * 43),
        public("RSA", n=EVEN_MODULUS, e="Aw"),
        public("RSA", n="AQAB"),
        public("RSA", n="A" * 10_000),
        public("RSA", n=1),
        public("RSA", kid=1),
        public("RSA", kid="k" * 200),
        public("RSA", e=public("RSA")["n"]),
        public("RSA", key_ops=["verify"]),
        public("P-256", key_ops="deriveKey"),
        public("P-256", x5t={"a": [7]}),
        public("P-256", key_ops=[["deriveKey"]]),
        public("P-256", alg=[]),
        public("P-256", alg={}),
        public("P-256", crv=[]),
        public("P-256", kty=[]),
        {**KEYS["RSA"].as_dict(private=True), "use": "enc"},
        {"kty": "oct", "k": "AAAA", "use": "enc"},
    ],
)
def test_a_key_that_cannot_be_used_is_refused(jwk):
    with pytest.raises(KeysError):
        EncryptionKey(jwk)


@pytest.mark.parametrize(
    ("name", "operations"),
    [
        ("P-256", []),
        ("P-256", ["deriveBits"]),
        ("RSA", ["wrapKey", "verify"]),
        ("RSA", ["encrypt"]),
    ],
)
def test_a_key_may_say_that_it_is_for_encryption(name, operations):
    assert EncryptionKey(public(name, key_ops=operations)).algorithms


def test_a_key_is_used_for_its_own_algorithm_alone():
    key = EncryptionKey(public("P-256", alg="ECDH-ES"))
    with pytest.raises(KeysError, match="does not fit"):
        key.encrypt(b"", "ECDH-ES+A256KW", "A256GCM", cty="JWT")


def test_a_key_for_encryption_verifies_no_signature():
    assert len(parse_key_set({"keys": [public("P-256")]})) == 0
