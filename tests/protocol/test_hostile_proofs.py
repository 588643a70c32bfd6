"""DPoP proofs that an attacker made, at each endpoint where proofs are read: all are refused."""

import hmac
import json
import socket
import time
import tracemalloc
from base64 import b64encode
from itertools import pairwise

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from sqlalchemy import func, select

from authz_server.database.single_use import UsedValue
from keys.jose.jwk import public_jwk
from support.dpop import ProofKey
from support.forged_tokens import segment, token_of
from support.parties import Credentials
from support.protocol import ENDPOINTS, METHODS, TOKEN_ENDPOINTS, Protocol, require_refusal

KEY = ProofKey()
P256_ORDER = bytes.fromhex("ffffffff00000000ffffffffffffffffbce6faada7179e84f3b9cac2fc632551")


@pytest.fixture(params=TOKEN_ENDPOINTS)
def endpoint(request) -> str:
    """The token endpoint that gets the proof."""
    return request.param


@pytest.fixture(params=METHODS)
def caller(request, protocol: Protocol) -> Credentials:
    """A client, of either authentication method."""
    return protocol.demo.clients[request.param]


@pytest.fixture
def claims(protocol: Protocol, endpoint: str) -> dict:
    """Sound claims of a proof."""
    return {
        "jti": "made-by-hand",
        "htm": "POST",
        "htu": f"https://authz.example{ENDPOINTS[endpoint]}",
        "iat": int(protocol.clock().timestamp()),
    }


@pytest.fixture
def refuse(protocol: Protocol, endpoint: str, caller: Credentials):
    """A function of named proofs; each must be refused, and nothing remembered of it."""

    def check(proofs: dict[str, str]) -> None:
        before = used(protocol)
        for name, proof in proofs.items():
            answer = send(protocol, endpoint, caller, proof)
            assert answer.status_code == 400, (name, answer.text)
            require_refusal(answer, 400, "invalid_dpop_proof", endpoint)
        assert used(protocol) == before

    return check


def send(protocol: Protocol, endpoint: str, caller: Credentials, proof: str):
    form = protocol.form(endpoint) | caller.form()
    return protocol.post(endpoint, form, caller.headers() | {"DPoP": proof})


def used(protocol: Protocol) -> int:
    with protocol.services.database.reading() as session:
        return session.scalar(select(func.count()).select_from(UsedValue)) or 0


def sign(claims: object, header: dict | None = None, key: ProofKey = KEY) -> str:
    return key.sign(claims if isinstance(claims, bytes) else json.dumps(claims), header)


def unsigned(claims: object, **header: object) -> str:
    """Return a proof with changes of its header, and no signature of any key."""
    return token_of(head() | header, claims)


def head(**changes: object) -> dict:
    usual = {"typ": "dpop+jwt", "alg": "ES256", "jwk": KEY.jwk} | changes
    return {name: value for name, value in usual.items() if value is not None}


@pytest.mark.usefixtures("alone")
def test_what_the_forgeries_start_from_is_sound(protocol, endpoint, caller, claims):
    """Case D36."""
    assert (
        send(
            protocol, endpoint, caller, sign(claims | {"jti": f"{endpoint} {caller.id}"})
        ).status_code
        == 200
    )


def test_no_algorithm_and_misshapen_signatures(claims, refuse):
    """Case D36."""
    good = sign(claims)
    signed, _, signature = good.rpartition(".")
    raw = bytes.fromhex("30440220") + b"r" * 32 + bytes.fromhex("0220") + b"s" * 32
    proofs = {
        f"alg {alg!r} {len(made)}": token_of(head() | {"alg": alg}, claims, made)
        for alg in ("none", "None", "nOnE", "", 0, [], ["ES256"], None, True, {})
        for made in (b"", b"s" * 64)
    }
    proofs |= {
        "no alg": token_of(head(alg=None), claims),
        "no signature": f"{signed}.",
        "no last segment": signed,
        "zero": f"{signed}.{segment(bytes(64))}",
        "zero r": f"{signed}.{segment(bytes(32) + b's' * 32)}",
        "truncated": f"{signed}.{signature[:-4]}",
        "extended": f"{signed}.{signature}AAAA",
        "order of the group": f"{signed}.{segment(P256_ORDER * 2)}",
        "ASN.1": f"{signed}.{segment(raw)}",
        "of another key": f"{signed}.{sign(claims, key=ProofKey()).rpartition('.')[2]}",
        "of other claims": f"{signed}.{sign(claims | {'jti': 'x'}).rpartition('.')[2]}",
        "padded": f"{good}=",
        "four segments": f"{good}.{signature}",
        "two proofs": f"{good}, {sign(claims | {'jti': 'other'})}",
        "twice": f"{good},{good}",
        "list with nothing": f"{good}, ",
        "scheme in front": f"DPoP {good}",
        "quoted": f'"{good}"',
        "empty": "",
    }
    refuse(proofs)


def test_a_mac_keyed_with_the_public_key(claims, refuse):
    """Case D37."""
    key = ec.generate_private_key(ec.SECP256R1()).public_key()
    jwk = public_jwk(key)
    secrets = {
        "PEM": key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo),
        "DER": key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo),
        "point": key.public_bytes(Encoding.X962, PublicFormat.UncompressedPoint),
        "JWK": json.dumps(jwk).encode(),
        "nothing": b"",
    }
    proofs = {}
    for alg, digest in (("HS256", "sha256"), ("HS512", "sha512")):
        for name, secret in secrets.items():
            for kind, member in (("EC", jwk), ("oct", {"kty": "oct", "k": segment(secret)})):
                signed = f"{segment(head(alg=alg, jwk=member))}.{segment(claims)}"
                mac = hmac.new(secret, signed.encode(), digest).digest()
                proofs[f"{alg} {name} {kind}"] = f"{signed}.{segment(mac)}"
    refuse(proofs)


def test_an_algorithm_that_does_not_fit_the_key(claims, refuse):
    """Case D38."""
    good = sign(claims).rpartition(".")[2]
    proofs = {
        alg: f"{segment(head(alg=alg))}.{segment(claims)}.{good}"
        for alg in ("ES384", "ES512", "ES256K", "RS256", "PS256", "EdDSA", "Ed25519", "es256")
    }
    twice = f'{{"typ":"dpop+jwt","alg":"none","alg":"ES256","jwk":{json.dumps(KEY.jwk)}}}'
    proofs["alg twice"] = f"{segment(twice.encode())}.{segment(claims)}.{good}"
    proofs |= {
        "alg of the key": sign(claims, {"jwk": KEY.jwk | {"alg": "ES384"}}),
        "use": sign(claims, {"jwk": KEY.jwk | {"use": "enc"}}),
        "operations": sign(claims, {"jwk": KEY.jwk | {"key_ops": ["sign"]}}),
    }
    refuse(proofs)


@pytest.mark.parametrize(
    "typ", [None, "", "jwt", "JWT", "dpop", "dpop+jwt ", "at+jwt", "dpop+JWT", 1, ["dpop+jwt"]]
)
def test_tokens_of_another_type(claims, refuse, typ):
    """Case D48. An assertion or an access token is no proof."""
    refuse({"typ": token_of(head(typ=typ), claims)})
    if typ is None or isinstance(typ, str):
        refuse({"signed": sign(claims, {"typ": typ})})


def test_keys_by_other_ways(claims, refuse):
    """Case D39."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(0)
        url = f"http://127.0.0.1:{listener.getsockname()[1]}/jwks.json"
        members = {"jku": url, "x5u": url, "x5c": [b64encode(b"certificate").decode()]}
        proofs = {
            f"{name} alone": sign(claims, {name: members[name], "jwk": None}) for name in members
        }
        proofs |= {f"{name} beside": sign(claims, {name: members[name]}) for name in members}
        proofs |= {
            "jwk with an address": sign(claims, {"jwk": {"kty": "EC", "x5u": url}}),
            "no key": sign(claims, {"jwk": None}),
            "kid alone": sign(claims, {"jwk": None, "kid": "mine"}),
            "url as jwk": sign(claims, {"jwk": url}),
        }
        refuse(proofs)
        with pytest.raises(BlockingIOError):
            listener.accept()


def test_keys_that_are_none(claims, refuse):
    """Case D55. RFC 9449, 4.3: the key in a proof is public."""
    private = KEY.key.as_dict(private=True)
    off_curve = KEY.jwk | {"y": segment(bytes(31) + b"\x01")}
    short = {"kty": "EC", "crv": "P-256", "x": KEY.jwk["x"][:-3], "y": KEY.jwk["y"]}
    proofs = {
        f"{value!r:.30}": sign(claims, {"jwk": value})
        for value in ("", "x", 1, True, [], [KEY.jwk], {}, {"kty": "EC"}, {"kty": ["EC"]})
    }
    proofs |= {
        "private": sign(claims, {"jwk": private}),
        "a private member of another type": sign(claims, {"jwk": KEY.jwk | {"p": "AQAB"}}),
        "a symmetric member": sign(claims, {"jwk": KEY.jwk | {"k": "AQAB"}}),
        "off the curve": sign(claims, {"jwk": off_curve}),
        "infinity": sign(
            claims, {"jwk": KEY.jwk | {"x": segment(bytes(32)), "y": segment(bytes(32))}}
        ),
        "short": sign(claims, {"jwk": short}),
        "unknown curve": sign(claims, {"jwk": KEY.jwk | {"crv": "P-192"}}),
        "another curve": sign(claims, {"jwk": KEY.jwk | {"crv": "secp256k1"}}),
        "JWK set": sign(claims, {"jwk": {"keys": [KEY.jwk]}}),
        "padded": sign(claims, {"jwk": KEY.jwk | {"x": KEY.jwk["x"] + "="}}),
        "zero in front": sign(claims, {"jwk": KEY.jwk | {"x": longer(KEY.jwk["x"])}}),
    }
    refuse(proofs)


def longer(coordinate: str) -> str:
    """Return a coordinate with a byte of zero before it: another thumbprint of the same key."""
    from joserfc.util import urlsafe_b64decode  # noqa: PLC0415 - needed here alone

    return segment(b"\0" + urlsafe_b64decode(coordinate.encode()))


@pytest.mark.parametrize(("bits", "exponent"), [(1_024, 65_537), (2_048, 3), (8_192, 65_537)])
def test_rsa_keys_that_are_too_weak_or_too_large(claims, refuse, bits, exponent):
    """Case D55. No private key is needed: the key is refused before the signature."""
    modulus = rsa_modulus(bits)
    jwk = {"kty": "RSA", "n": segment(modulus), "e": segment(exponent.to_bytes(3).lstrip(b"\0"))}
    signed = f"{segment(head(alg='PS256', jwk=jwk))}.{segment(claims)}"
    refuse({"rsa": f"{signed}.{segment(b's' * (bits // 8))}"})


def rsa_modulus(bits: int) -> bytes:
    """Return an odd number of this size; a true modulus up to 2048 bits."""
    if bits <= 2_048:
        numbers = rsa.generate_private_key(65_537, max(bits, 1_024)).public_key().public_numbers()
        return numbers.n.to_bytes(bits // 8)
    return b"\xc1" + bytes(bits // 8 - 2) + b"\x01"


HOSTILE_KIDS = ("k" * 4_000, "k" * 129, [], ["a"], {}, 0, None, True)


def test_hostile_key_ids(claims, refuse):
    """Case D40. A proof needs no kid; the type of one is checked all the same."""
    refuse({f"{kid!r:.40}": unsigned(claims, kid=kid) for kid in HOSTILE_KIDS})


@pytest.mark.usefixtures("alone")
def test_thousands_of_keys_leave_nothing_behind(protocol, endpoint, caller, claims):
    """Case D40. What is kept of each refused key would grow."""
    tracemalloc.start()
    sizes = []
    for _ in range(4):
        for number in range(50):
            proof = sign(claims, {"kid": f"key-{number}-{len(sizes)}"}) + "A"
            assert send(protocol, endpoint, caller, proof[:-2]).status_code == 400
        filters = [tracemalloc.Filter(inclusive=True, filename_pattern="*/authz_server/tokens/*")]
        snapshot = tracemalloc.take_snapshot().filter_traces(filters)
        sizes.append(sum(each.size for each in snapshot.statistics("filename")))
    tracemalloc.stop()
    assert min(after - before for before, after in pairwise(sizes)) < 5_000


def test_critical_and_detached(claims, refuse):
    """Case D41."""
    values = (["exp"], ["b64"], ["x"], [], ["alg"], ["x", "x"], "exp", {}, None)
    proofs = {f"crit {value!r}": unsigned(claims, crit=value) for value in values}
    good = sign(claims)
    protected, payload, signature = good.split(".")
    flattened = {"protected": protected, "payload": payload, "signature": signature}
    proofs |= {
        "b64": unsigned(claims, b64=True),
        "detached": f"{protected}..{signature}",
        "flattened": json.dumps(flattened),
        "compressed": unsigned(claims, zip="DEF"),
        "nested": sign(good.encode()),
        "encrypted": unsigned(claims, enc="A128GCM"),
    }
    refuse(proofs)


def test_encrypted_proofs_cost_nothing(protocol, endpoint, caller, refuse):
    """Case D43."""
    headers = (
        {"alg": "PBES2-HS256+A128KW", "enc": "A128GCM", "p2c": 2**31 - 1, "p2s": "AAAA"},
        {"alg": "dir", "enc": "A128GCM", "zip": "DEF"},
        {"alg": "RSA1_5", "enc": "A128CBC-HS256"},
        {"alg": "ECDH-ES", "enc": "A128GCM", "epk": {"kty": "EC", "crv": "P-256"}},
    )
    proofs = {
        f"{header['alg']}": f"{segment(header)}.{segment(b'k' * 40)}.aXY.{'A' * 2_000}.dGFn"
        for header in headers
    }
    refuse(proofs)
    for name, proof in proofs.items():
        taken = []
        for _ in range(5):
            began = time.process_time()
            send(protocol, endpoint, caller, proof)
            taken.append(time.process_time() - began)
        assert min(taken) < 0.01, name


DATES = (
    *('"1900000000"', "true", "null", "NaN", "Infinity", "1e400", "1900000000.5", "1e9", "[]"),
    *("{}", '""', "-1", "0", "1" + "0" * 400, "1" * 1_500, "01900000000"),
)


@pytest.mark.parametrize("claim", ["iat", "exp", "nbf"])
def test_impossible_dates(claims, refuse, claim):
    """Case D46."""
    marked = json.dumps(claims | {claim: "MARK"})
    dates = DATES if claim == "iat" else [each for each in DATES if each not in {"-1", "0"}]
    refuse({each: sign(marked.replace('"MARK"', each).encode()) for each in dates})


def test_wrong_types_and_hostile_strings(claims, refuse):
    """Case D47."""
    proofs = {
        f"{claim} {value!r:.30}": sign(claims | {claim: value})
        for claim in ("jti", "htm", "htu", "iat")
        for value in ([claims[claim]], {"x": claims[claim]}, None, True, [], "")
    }
    proofs |= {
        f"no {name}": sign({k: v for k, v in claims.items() if k != name}) for name in claims
    }
    proofs |= {
        "long jti": sign(claims | {"jti": "j" * 257}),
        "lone surrogate": sign(b'{"jti":"\\ud800",' + json.dumps(claims).encode()[1:]),
        "surrogate as jti": sign(json.dumps(claims | {"jti": "\ud800"}).encode()),
        "NUL in htu": sign(claims | {"htu": claims["htu"] + "\0"}),
        "member twice": sign(b'{"jti":"a",' + json.dumps(claims).encode()[1:]),
        "not UTF-8": sign(json.dumps(claims).encode()[:-1] + b',"x":"\xff"}'),
    }
    for payload in (b"", b"[]", b"null", b'"x"', b"1", b"{", b"[" * 1_000, b'{"a":' * 500):
        if payload:
            proofs[f"payload {payload[:10]!r}"] = sign(payload)
    refuse(proofs)


def test_oversized_proofs(protocol, endpoint, caller, claims, refuse):
    """Case D56."""
    good = sign(claims)
    sizes = {
        "one segment": "x" * 6_000,
        "dots": "." * 6_000,
        "long signature": good + "A" * 4_000,
        "long claims": sign(claims | {"x": "x" * 4_000}),
        "long header": sign(claims, {"x": "x" * 4_000}),
    }
    refuse(sizes)
    for name, proof in sizes.items():
        taken = []
        for _ in range(3):
            began = time.process_time()
            send(protocol, endpoint, caller, proof)
            taken.append(time.process_time() - began)
        assert min(taken) < 0.02, name


@pytest.mark.usefixtures("alone")
def test_further_members_are_ignored(protocol, endpoint, caller, claims):
    """Case D41. RFC 7515, 4 and RFC 7519, 4: what is not understood and not critical is ignored."""
    proof = sign(
        claims | {"jti": f"further {endpoint} {caller.id}", "x": [1]},
        {"x": {"y": 1}, "kid": "mine"},
    )
    assert send(protocol, endpoint, caller, proof).status_code == 200
