"""Tokens and keys of other parties: what is read, what is refused, which key verifies."""

import zlib
from time import thread_time

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given
from hypothesis import strategies as st

from keys.errors import KeysError, TokenRefusedError
from keys.jose.compact import encode_segment
from keys.jose.foreign import (
    FOREIGN_ALGORITHMS,
    ForeignKey,
    parse_foreign,
    parse_key_set,
)
from keys.jose.jwk import public_jwk, thumbprint
from keys.jose.signatures import make_signer
from keys.jose.stand_ins import spend_one_verification, stand_in_verifier
from support.forged_tokens import segment, token_of

MAXIMUM = 8_192
PRIVATE = {
    "P-256": ec.generate_private_key(ec.SECP256R1()),
    "P-384": ec.generate_private_key(ec.SECP384R1()),
    "P-521": ec.generate_private_key(ec.SECP521R1()),
    "RSA": rsa.generate_private_key(65537, 2048),
    "Ed25519": ed25519.Ed25519PrivateKey.generate(),
}
JWKS = {name: public_jwk(key) for name, key in PRIVATE.items()}
KEY_OF = {name: each.crv or each.kty for name, each in FOREIGN_ALGORITHMS.items()}


def signed(alg: str, payload: object = b"{}", **members: object) -> str:
    head = f"{segment({'alg': alg, **members})}.{segment(payload)}"
    signature = make_signer(PRIVATE[KEY_OF[alg]], FOREIGN_ALGORITHMS[alg])(head.encode())
    return f"{head}.{encode_segment(signature).decode()}"


def read_and_verify(token: str, keys: dict[str, object]) -> bytes:
    parsed = parse_foreign(token, MAXIMUM)
    verify = parse_key_set(keys).find(parsed.header.get("kid"), parsed.header["alg"])
    if verify is None:
        raise TokenRefusedError("unknown key")
    verify(parsed.signature, parsed.signing_input)
    return parsed.payload


@pytest.mark.parametrize("alg", FOREIGN_ALGORITHMS)
def test_a_key_of_every_algorithm_verifies_its_signatures(alg):
    payload = b'{"sub":"partner"}'
    keys = {"keys": [{**JWKS[KEY_OF[alg]], "use": "sig", "alg": alg, "x5t": "ignored"}]}
    assert read_and_verify(signed(alg, payload, cty="x"), keys) == payload
    with pytest.raises(TokenRefusedError) as refused:
        read_and_verify(f"{signed(alg, payload).rpartition('.')[0]}.{flawed(alg)}", keys)
    assert refused.value.signature_checked


def flawed(alg: str) -> str:
    signature = bytearray(parse_foreign(signed(alg), MAXIMUM).signature)
    signature[10] ^= 1
    return segment(bytes(signature))


@pytest.mark.parametrize(("registered", "presented"), [("EdDSA", "Ed25519"), ("Ed25519", "EdDSA")])
def test_both_names_of_an_edwards_key(registered, presented):
    keys = {"keys": [{**JWKS["Ed25519"], "alg": registered}]}
    assert read_and_verify(signed(presented), keys) == b"{}"


@pytest.mark.parametrize("alg", FOREIGN_ALGORITHMS)
def test_impossible_signatures_are_refused_before_key_work(alg):
    """Case D36."""
    verify = ForeignKey(JWKS[KEY_OF[alg]]).verifier(alg)
    right = parse_foreign(signed(alg), MAXIMUM).signature
    wrong = [b"", right[:-1], right + b"\0", b"\xff" * len(right)]
    if KEY_OF[alg].startswith("P-"):
        wrong.append(bytes(len(right)))
        wrong.append(PRIVATE[KEY_OF[alg]].sign(b"data", ec.ECDSA(SHA256())))
    for signature in wrong:
        with pytest.raises(TokenRefusedError) as refused:
            verify(signature, b"data")
        assert not refused.value.signature_checked
    with pytest.raises(TokenRefusedError):
        verify(bytes(len(right)), b"data")


SIGNED = signed("ES256")
ODD_ALGS = (None, 7, True, ["ES256"], {"a": 1}, {})


@pytest.mark.parametrize("alg", ["none", "None", "NONE", "nOnE", "", "es256", *ODD_ALGS])
def test_no_algorithm(alg):
    """Case D36."""
    with pytest.raises((TokenRefusedError, KeyError)):
        read_and_verify(token_of({"alg": alg}), {"keys": [JWKS["P-256"]]})
    with pytest.raises(TokenRefusedError):
        parse_foreign(token_of({"typ": "JWT"}), MAXIMUM)
    with pytest.raises(TokenRefusedError):
        parse_foreign(token_of({"alg": alg}, signature=b""), MAXIMUM)


def test_a_public_key_is_never_a_symmetric_one():
    """Case D37: no algorithm of a foreign key takes its bytes as a secret."""
    assert not [name for name in FOREIGN_ALGORITHMS if name.startswith("HS")]
    for jwk in JWKS.values():
        for alg in ("HS256", "HS384", "HS512"):
            assert parse_key_set({"keys": [jwk]}).find(None, alg) is None
            with pytest.raises(KeysError):
                ForeignKey({**jwk, "alg": alg})
    pem = PRIVATE["RSA"].public_key().public_bytes(Encoding.PEM, PublicFormat.PKCS1)
    with pytest.raises(KeysError):
        ForeignKey({"kty": "oct", "k": segment(pem), "alg": "HS256"})


@pytest.mark.parametrize("name", JWKS)
@pytest.mark.parametrize("alg", FOREIGN_ALGORITHMS)
def test_a_key_fits_its_own_algorithms_only(alg, name):
    """Case D38."""
    keys = parse_key_set({"keys": [JWKS[name]]})
    if KEY_OF[alg] == name:
        assert keys.find(None, alg) is not None
        assert ForeignKey(JWKS[name]).verifier(alg)
    else:
        assert keys.find(None, alg) is None
        with pytest.raises(KeysError):
            ForeignKey(JWKS[name]).verifier(alg)


@pytest.mark.parametrize(
    "members",
    [
        {"alg": "ES384"},
        {"alg": "RS256"},
        {"alg": "none"},
        {"alg": 7},
        {"use": "enc"},
        {"use": None},
        {"key_ops": ["encrypt"]},
        {"key_ops": []},
        {"key_ops": "verify"},
        {"key_ops": ["verify", {"a": [7]}]},
        {"key_ops": ["verify", None]},
        {"x5t": {"a": [7]}},
        {"x5t#S256": 10**19},
        {"kid": 7},
        {"kid": "k" * 129},
        {"crv": "P-384"},
        {"crv": ["P-256"]},
        {"kty": "RSA"},
        {"kty": ["EC"]},
        {"kty": None},
    ],
)
def test_a_key_that_contradicts_itself(members):
    """Case D38."""
    with pytest.raises(KeysError):
        ForeignKey({**JWKS["P-256"], **members})


ATTACKER = ec.generate_private_key(ec.SECP256R1())


@pytest.mark.parametrize(
    "members",
    [
        {"jwk": public_jwk(ATTACKER)},
        {"jku": "https://attacker.example/jwks"},
        {"x5u": "https://attacker.example/certificate"},
        {"x5c": ["AAAA"]},
        {"crit": ["exp"]},
        {"crit": []},
        {"crit": ["exp", "exp"]},
        {"crit": ["alg"]},
        {"crit": None},
        {"crit": ["b64"], "b64": False},
        {"b64": False},
        {"b64": True},
        {"zip": "DEF"},
        {"enc": "A256GCM"},
    ],
)
def test_header_members_that_provide_a_key_or_change_the_rules(members):
    """Cases D39, D41."""
    with pytest.raises(TokenRefusedError):
        parse_foreign(signed("ES256", **members), MAXIMUM)


def test_a_key_in_the_header_is_read_only_where_it_is_asked_for():
    """Case D39."""
    token = signed("ES256", jwk=JWKS["P-256"])
    assert parse_foreign(token, MAXIMUM, permitted=frozenset({"jwk"})).header["jwk"]
    for members in ({"jku": "https://a.example"}, {"crit": ["jwk"]}, {"x5c": ["AAAA"]}):
        with pytest.raises(TokenRefusedError):
            parse_foreign(
                signed("ES256", jwk=JWKS["P-256"], **members),
                MAXIMUM,
                permitted=frozenset({"jwk"}),
            )


def test_a_header_that_was_read_before_is_the_same_and_cannot_be_changed():
    first, second = (parse_foreign(signed("ES256", kid="a"), MAXIMUM).header for _ in range(2))
    assert first == second == {"alg": "ES256", "kid": "a"}
    with pytest.raises(TypeError):
        first["alg"] = "none"
    # What is permitted in one token stays refused in another with the same header.
    token = signed("ES256", jwk={"kty": "EC"})
    parse_foreign(token, MAXIMUM, permitted=frozenset({"jwk"}))
    with pytest.raises(TokenRefusedError, match="header members"):
        parse_foreign(token, MAXIMUM)


@pytest.mark.parametrize("kid", [["a"], 7, None, {"kid": "a"}, True, "k" * 129, "k" * 6_000])
def test_impossible_key_ids(kid):
    """Case D40."""
    with pytest.raises(TokenRefusedError):
        parse_foreign(signed("ES256", kid=kid), MAXIMUM)


@pytest.mark.parametrize("kid", ["../../etc/passwd", "' OR 1=1", "\x00", "", "unknown", "\u2028"])
def test_unknown_key_ids(kid):
    """Case D40."""
    keys = {"keys": [{**JWKS["P-256"], "kid": "known"}]}
    with pytest.raises(TokenRefusedError, match="unknown key"):
        read_and_verify(signed("ES256", kid=kid), keys)


def test_which_key_a_token_identifies():
    other = public_jwk(ATTACKER)
    named, unnamed = {**JWKS["P-256"], "kid": "a"}, dict(JWKS["P-256"])
    alone, both = {"keys": [named]}, {"keys": [named, {**other, "kid": "b"}]}
    assert read_and_verify(signed("ES256"), alone) == b"{}"
    assert read_and_verify(signed("ES256", kid="a"), both) == b"{}"
    for keys, members in ((alone, {"kid": "b"}), (both, {}), (both, {"kid": "c"})):
        with pytest.raises(TokenRefusedError):
            read_and_verify(signed("ES256", **members), keys)
    mixed = {"keys": [unnamed, {**other, "kid": "b"}]}
    assert read_and_verify(signed("ES256", kid=thumbprint(unnamed)), mixed) == b"{}"
    assert read_and_verify(signed("ES256", kid="any"), mixed) == b"{}"
    with pytest.raises(TokenRefusedError, match="wrong signature"):
        read_and_verify(signed("ES256", kid="b"), mixed)


def five_parts(**header: object) -> str:
    return ".".join([segment({"enc": "A256GCM", **header}), *["AAAA"] * 4])


@pytest.mark.parametrize(
    "token",
    [
        five_parts(alg="PBES2-HS512+A256KW", p2c=2**31, p2s="AA"),
        five_parts(alg="RSA1_5"),
        five_parts(alg="ECDH-ES+A256KW", epk=JWKS["P-256"]),
        five_parts(alg="dir", zip="DEF").replace("AAAA", segment(zlib.compress(b"0" * 10**6)), 1),
        SIGNED.rpartition(".")[0],
        SIGNED + ".",
        SIGNED.rpartition(".")[0] + ".",
        ".".join([SIGNED.split(".")[0], "", SIGNED.split(".")[2]]),
        SIGNED + "=",
        " " + SIGNED,
        SIGNED.replace(".", ".\n", 1),
        SIGNED + "\u00e9",
        "",
        "..",
        "A" * (MAXIMUM + 1),
        signed("ES256", b"0" * MAXIMUM),
    ],
)
def test_what_is_no_signed_token(token):
    """Cases D41, D43, D56."""
    with pytest.raises(TokenRefusedError):
        parse_foreign(token, MAXIMUM)


@pytest.mark.parametrize("size", [65_536, 5_000_000])
def test_large_tokens_are_refused_at_once(size):
    """Case D56."""
    token = "A" * (size // 2) + "." + "A" * (size // 2) + ".AA"
    began = thread_time()
    with pytest.raises(TokenRefusedError):
        parse_foreign(token, MAXIMUM)
    assert thread_time() - began < 0.02


@given(st.text() | st.binary().map(lambda data: f"{segment(data)}.{segment(data)}.AA"))
def test_arbitrary_text(token):
    """Cases D41, D47."""
    try:
        parse_foreign(token, MAXIMUM)
    except TokenRefusedError:
        return


@pytest.mark.parametrize(
    ("typ", "read"),
    [("JWT", "jwt"), ("application/JWT", "jwt"), ("DPoP+jwt", "dpop+jwt"), (None, "")],
)
def test_the_type_of_a_token(typ, read):
    members = {} if typ is None else {"typ": typ}
    assert parse_foreign(signed("ES256", **members), MAXIMUM).typ == read


@pytest.mark.parametrize("alg", [*FOREIGN_ALGORITHMS, "none", "HS256"])
def test_spending_a_verification_raises_nothing(alg):
    for size in (1, 64, 256, 512):
        spend_one_verification(alg, bytes(size), b"data")


@pytest.mark.parametrize("alg", FOREIGN_ALGORITHMS)
def test_a_stand_in_refuses_every_signature(alg):
    """Case A2."""
    right = parse_foreign(signed(alg), MAXIMUM)
    with pytest.raises(TokenRefusedError):
        stand_in_verifier(alg, len(right.signature))(right.signature, right.signing_input)
