"""Hostile tokens at the ring: whatever it is, it ends as one refusal."""

import base64
import gc
import hashlib
import json
import socket
import sys
import tracemalloc

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

from keys.errors import TokenRefusedError
from keys.jose.algorithms import get_algorithm
from keys.jose.jwk import public_jwk
from keys.jose.signatures import generate_private_key
from support.forged_tokens import segment, token_of

PAYLOAD = b'{"iss":"https://authz.example.org","exp":1900000000}'
P256_ORDER = ec.SECP256R1().group_order
ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"


def refuse(rings, token):
    with pytest.raises(TokenRefusedError) as caught:
        rings.verify(token)
    assert caught.value.reason
    assert len(caught.value.reason) < 60
    return caught.value


@pytest.fixture
def kid(ring_set):
    return ring_set.key("ES256", 1).kid


@pytest.fixture
def good(ring_set):
    return ring_set.rings.sign("ES256", PAYLOAD, typ="at+jwt", lifetime_seconds=900).token


@pytest.fixture
def sign_own(ring_set):
    """Sign anything with the ring's own key, as if the server had gone mad."""

    def sign(header, payload=PAYLOAD):
        signing_input = f"{segment(header)}.{segment(payload)}"
        (signature,) = ring_set.backend.sign("ES256", "1", "ES256", [signing_input.encode()])
        return f"{signing_input}.{segment(signature)}"

    return sign


def test_a_good_token_is_given_back_whole(ring_set, good, kid):
    verified = ring_set.rings.verify(good)
    assert (verified.kid, verified.ring, verified.payload) == (kid, "ES256", PAYLOAD)
    assert verified.header == {"alg": "ES256", "kid": kid, "typ": "at+jwt"}


@pytest.mark.parametrize(
    "alg",
    ["none", "None", "NONE", "nOnE", "", None, 0, 1.5, True, [], ["ES256"], {}, "ES256 ", "es256"],
)
def test_no_or_another_algorithm(ring_set, sign_own, kid, alg):
    """Case D36."""
    for token in (
        sign_own({"alg": alg, "kid": kid, "typ": "at+jwt"}),
        token_of({"alg": alg, "kid": kid, "typ": "at+jwt"}, signature=b""),
    ):
        refuse(ring_set.rings, token)


@pytest.mark.parametrize("absent", ["alg", "kid", "typ"])
def test_a_missing_header_member(ring_set, sign_own, kid, absent):
    """Case D36."""
    header = {"alg": "ES256", "kid": kid, "typ": "at+jwt"}
    del header[absent]
    refuse(ring_set.rings, sign_own(header))


@pytest.mark.parametrize("member", ["typ", "kid"])
@pytest.mark.parametrize("value", [None, 1, True, [], ["at+jwt"], {}])
def test_a_header_member_of_another_type(ring_set, sign_own, kid, member, value):
    """Case D40."""
    header = {"alg": "ES256", "kid": kid, "typ": "at+jwt"} | {member: value}
    refuse(ring_set.rings, sign_own(header))


def signature_of(good):
    return good.rpartition(".")[2]


def der_of(good):
    raw = decode(signature_of(good))
    return encode_dss_signature(int.from_bytes(raw[:32]), int.from_bytes(raw[32:]))


def decode(text):
    return base64.urlsafe_b64decode(text + "==")


@pytest.mark.parametrize(
    "signature",
    [
        bytes(64),
        bytes(32) + b"\x01" * 32,
        b"\x01" * 32 + bytes(32),
        P256_ORDER.to_bytes(32) + b"\x01" * 32,
        b"\x01" * 32 + P256_ORDER.to_bytes(32),
        P256_ORDER.to_bytes(32) * 2,
        b"\xff" * 64,
        b"\x00" * 63 + b"\x01",
        (1).to_bytes(32) + (1).to_bytes(32),
        b"s",
        b"s" * 63,
        b"s" * 65,
        b"s" * 96,
        b"s" * 4096,
    ],
)
def test_a_misshapen_ecdsa_signature(ring_set, good, signature):
    """Case D36."""
    refuse(ring_set.rings, f"{good.rpartition('.')[0]}.{segment(signature)}")


def test_an_empty_truncated_padded_or_der_coded_signature(ring_set, good):
    """Case D36."""
    head, signature = good.rpartition(".")[0], decode(signature_of(good))
    refuse(ring_set.rings, head + ".")
    refuse(ring_set.rings, head)
    refuse(ring_set.rings, f"{head}.{segment(der_of(good))}")
    for size in range(1, 64):
        refuse(ring_set.rings, f"{head}.{segment(signature[:size])}")
    refuse(ring_set.rings, f"{head}.{segment(signature + bytes(1))}")
    refuse(ring_set.rings, f"{head}.{segment(bytes(1) + signature)}")
    # The same number s, written one byte longer.
    refuse(ring_set.rings, f"{head}.{segment(signature[:32] + bytes(1) + signature[32:])}")


def test_a_refusal_says_whether_a_signature_was_verified(ring_set, good):
    head = good.rpartition(".")[0]
    assert refuse(ring_set.rings, f"{head}.{segment(b's' * 64)}").signature_checked
    assert not refuse(ring_set.rings, f"{head}.{segment(bytes(64))}").signature_checked
    assert not refuse(ring_set.rings, "x").signature_checked


BROUGHT_KEYS = ("jwk", "jku", "x5u", "x5c", "x5t", "x5t#S256")
OTHER_MEMBERS = ("crit", "b64", "zip", "enc", "epk", "p2c", "cty", "iss", "KID", "kid ", "")


@pytest.fixture
def no_network(monkeypatch):
    monkeypatch.setattr(socket, "socket", None)


@pytest.mark.parametrize("member", BROUGHT_KEYS)
@pytest.mark.parametrize("named", ["known", "unknown", "absent"])
@pytest.mark.usefixtures("no_network")
def test_a_key_brought_along(ring_set, sign_own, kid, member, named):
    """Case D39."""
    attacker = generate_private_key(get_algorithm("ES256"))
    value = {"jwk": public_jwk(attacker), "x5c": ["MIIB"]}.get(member, "https://evil.example/keys")
    header = {"alg": "ES256", "typ": "at+jwt", member: value}
    if named != "absent":
        header["kid"] = kid if named == "known" else "attacker"
    head = f"{segment(header)}.{segment(PAYLOAD)}"
    der = attacker.sign(head.encode(), ec.ECDSA(hashes.SHA256()))
    refuse(ring_set.rings, f"{head}.{segment(der)}")
    refuse(ring_set.rings, sign_own(header))


@pytest.mark.parametrize(
    "hostile",
    [
        "",
        "unknown",
        "../../../etc/passwd",
        "/dev/zero",
        "' OR '1'='1",
        "1; DROP TABLE signing_key",
        "\x00",
        "\ud800",
        "\u202e",
        "a\r\nb",
        "k" * 128,
        "k" * 129,
        "k" * 10_240,
    ],
)
def test_a_hostile_kid(ring_set, sign_own, hostile):
    """Case D40."""
    refuse(ring_set.rings, sign_own({"alg": "ES256", "kid": hostile, "typ": "at+jwt"}))


def test_a_kid_with_something_around_it(ring_set, sign_own, kid):
    """Case D40."""
    for near in (kid + "\x00", kid + " ", " " + kid, kid[:-1], kid.swapcase(), kid + "="):
        refuse(ring_set.rings, sign_own({"alg": "ES256", "kid": near, "typ": "at+jwt"}))


def test_random_kids_ask_nobody_and_leave_nothing(ring_set, monkeypatch):
    """Case D40."""
    asked = []
    monkeypatch.setattr(ring_set.store, "load_rings", asked.append)
    monkeypatch.setattr(ring_set.storage, "load", asked.append)

    def present(count):
        for number in range(count):
            kid = hashlib.sha256(str(number).encode()).hexdigest()
            refuse(ring_set.rings, token_of({"alg": "ES256", "kid": kid, "typ": "at+jwt"}))

    present(500)
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    present(2_000)
    gc.collect()
    grown = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    assert asked == []
    assert grown < 100_000


@pytest.mark.parametrize(
    "crit", [["exp"], [], ["b64"], ["b64", "b64"], ["alg"], ["unknown"], "b64", None, [1], {}]
)
def test_a_critical_header(ring_set, sign_own, kid, crit):
    """Case D41."""
    header = {"alg": "ES256", "kid": kid, "typ": "at+jwt", "crit": crit}
    refuse(ring_set.rings, sign_own(header))
    refuse(ring_set.rings, sign_own(header | {"b64": False, "unknown": 1}))


@pytest.mark.parametrize("member", OTHER_MEMBERS)
@pytest.mark.parametrize("value", [False, True, "x", None])
def test_any_other_header_member(ring_set, sign_own, kid, member, value):
    """Case D41."""
    header = {"alg": "ES256", "kid": kid, "typ": "at+jwt", member: value}
    refuse(ring_set.rings, sign_own(header))


def test_a_detached_or_unencoded_payload(ring_set, good, kid):
    """Case D41."""
    header, _payload, signature = good.split(".")
    refuse(ring_set.rings, f"{header}..{signature}")
    refuse(ring_set.rings, f"{header}.{PAYLOAD.decode()}.{signature}")
    general = {"payload": segment(PAYLOAD), "signatures": [{"header": {"kid": kid}}]}
    refuse(ring_set.rings, json.dumps(general))
    flattened = {"protected": header, "payload": segment(PAYLOAD), "signature": signature}
    refuse(ring_set.rings, json.dumps(flattened))


def test_repeated_header_members(ring_set, kid):
    """Case D36, D40, D41."""
    for header in (
        f'{{"alg":"none","alg":"ES256","kid":"{kid}","typ":"at+jwt"}}',
        f'{{"alg":"ES256","kid":"x","kid":"{kid}","typ":"at+jwt"}}',
        f'{{"alg":"ES256","kid":"{kid}","typ":"JWT","typ":"at+jwt"}}',
        f'{{"alg":"ES256","kid":"{kid}","typ":"at+jwt","\\u0061lg":"ES256"}}',
    ):
        head = f"{segment(header.encode())}.{segment(PAYLOAD)}"
        (signature,) = ring_set.backend.sign("ES256", "1", "ES256", [head.encode()])
        refuse(ring_set.rings, f"{head}.{segment(signature)}")


@pytest.mark.parametrize(
    "header",
    [
        b"null",
        b"[]",
        b"1",
        b'"x"',
        b"{",
        b"\xff\xfe{}",
        '{"alg":"ES256"}'.encode("utf-16"),
        b"[" * 8000,
        b'{"alg":' * 1500,
        b'{"alg":NaN}',
        b'{"alg":1e400}',
        b'{"alg":-Infinity}',
        b'{"alg":' + b"9" * 5000 + b"}",
        b'{"alg":"\\ud800","kid":"x","typ":"y"}',
        b"\xef\xbb\xbf{}",
    ],
)
def test_a_header_that_is_no_sound_json_object(ring_set, header):
    """Case D36."""
    refuse(ring_set.rings, token_of(header))


ENCRYPTED_HEADERS = [
    {"alg": "PBES2-HS256+A128KW", "enc": "A128GCM", "p2c": 2**31, "p2s": "AAAA"},
    {"alg": "dir", "enc": "A128GCM", "zip": "DEF"},
    {"alg": "RSA1_5", "enc": "A128CBC-HS256"},
    {"alg": "ECDH-ES", "enc": "A128GCM", "epk": {"kty": "EC", "crv": "P-256"}},
    {"alg": "ECDH-ES+A128KW", "enc": "A128GCM"},
]


@pytest.mark.parametrize("header", ENCRYPTED_HEADERS)
def test_an_encrypted_token_is_refused_before_any_work(ring_set, header, kid, monkeypatch):
    """Case D43."""
    monkeypatch.setattr("keys.jose.compact.decode_segment", None)
    token = f"{segment(header | {'kid': kid})}.a2V5.aXY.Y2lwaGVy.dGFn"
    assert refuse(ring_set.rings, token).reason == "not three segments"


@pytest.mark.parametrize("size", [16_385, 65_536, 5_000_000])
@pytest.mark.parametrize("shape", ["x", ".", "a.b.c", "dots around", "grown"])
def test_a_large_token_is_refused_before_it_is_copied(ring_set, good, size, shape):
    """Case D56."""
    token = {
        "dots around": "." + "x" * size + ".",
        "grown": good + "A" * size,
        "a.b.c": ("a.b.c" * (size // 5 + 1))[:size],
    }.get(shape, shape * size)
    tracemalloc.start()
    error = refuse(ring_set.rings, token)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert error.reason == "too large"
    assert peak < 16_384


def test_a_segment_that_is_not_the_one_canonical_spelling(ring_set, good):
    """Case D36."""
    head, _, signature = good.rpartition(".")
    # 64 bytes leave four unused bits in the last character: 15 other spellings decode alike.
    for other in ALPHABET:
        if other != signature[-1]:
            refuse(ring_set.rings, f"{head}.{signature[:-1]}{other}")
    for changed in (
        good + "=",
        good + "==",
        good + "\n",
        " " + good,
        good.replace(".", ". "),
        good.replace("-", "+").replace("_", "/") + ("+" if not set("-_") & set(good) else ""),
        f"{head}.{signature[:10]}\n{signature[10:]}",
        f"{head}.{signature[:10]}*{signature[10:]}",
        f"{head}.{signature[:10]}={signature[10:]}",
        f"{head}.{signature[:10]}é{signature[10:]}",
        f"{head}.{signature[:10]}\ud800{signature[10:]}",
        f"{head}.{signature[:10]}\x00{signature[10:]}",
        f".{good}",
        f"{good}.",
    ):
        refuse(ring_set.rings, changed)


def test_a_payload_exchanged_under_the_same_signature(ring_set, good):
    header, _payload, signature = good.split(".")
    refuse(ring_set.rings, f"{header}.{segment(PAYLOAD[:-1] + b' }')}.{signature}")


def test_deep_recursion_elsewhere_does_not_change_the_answer(ring_set):

    def deep(levels):
        if levels:
            return deep(levels - 1)
        return refuse(ring_set.rings, token_of(b'{"alg":' + b"[" * 900))

    assert deep(sys.getrecursionlimit() - 250).reason == "not a JSON object"
