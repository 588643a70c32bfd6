"""Tokens that an attacker made, at the two endpoints that take tokens in.

Those whose claims are at issue bear the server's own good signature. At introspection the answer is
`{"active": false}` and nothing else, at revocation the 200 that everybody gets, and no effect.
"""

import gc
import hashlib
import hmac
import json
import os
import socket
import time
import tracemalloc
from base64 import b64encode
from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import NameOID
from flask.testing import FlaskClient
from joserfc.jwk import ECKey

from keys.jose.jwk import public_jwk
from support.forged_tokens import segment, token_of
from support.refusing import revoked
from support.stage import ApplicationFixture

OURS = ("authz_server", "keys")
MAXIMUM_BODY_BYTES = 65_536
#: The answers to a token that counts for nothing.
NOTHING = {"introspect": {"active": False}, "revoke": {}}


def public_key(stage: ApplicationFixture) -> ec.EllipticCurvePublicKey:
    """Return the server's public key, as anybody can fetch it."""
    keys = json.loads(stage.services.key_rings.jwks())["keys"]
    (published,) = [key for key in keys if key["kid"] == stage.kid]
    return ECKey.import_key({name: published[name] for name in ("kty", "crv", "x", "y")}).public_key


def sign_with(key: ec.EllipticCurvePrivateKey, header: dict, claims: dict) -> str:
    """Return a token signed by a key of the attacker's."""
    from joserfc import jws  # noqa: PLC0415 - the attacker's library, needed here alone

    pem = ECKey.import_key(key)
    return jws.serialize_compact(
        header, json.dumps(claims), pem, registry=jws.JWSRegistry(strict_check_header=False)
    )


def test_what_the_forgeries_start_from_is_sound(
    stage: ApplicationFixture, endpoint, caller, claims
):
    """Case D36."""
    before = revoked(stage)
    answer = stage.post(endpoint, {"token": stage.sign(claims)}, caller)
    if endpoint == "introspect":
        assert answer.get_json()["active"] is True
    else:
        assert revoked(stage) == before + 1


def test_no_algorithm_and_misshapen_signatures(stage: ApplicationFixture, claims, refuse):
    """Case D36."""
    good = stage.sign(claims)
    head, _, signature = good.rpartition(".")
    raw = bytes.fromhex("30440220") + b"r" * 32 + bytes.fromhex("0220") + b"s" * 32
    tokens = {
        f"alg {alg!r}": token_of({"alg": alg, "kid": stage.kid, "typ": "at+jwt"}, claims, sign)
        for alg in ("none", "None", "NONE", "nOnE", "", 0, [], ["ES256"], None, True, {})
        for sign in (b"", b"s" * 64)
    }
    tokens |= {
        "no alg": stage.sign(claims, segment_free({"kid": stage.kid, "typ": "at+jwt"})),
        "no signature": f"{head}.",
        "no last segment": head,
        "zero": f"{head}.{segment(bytes(64))}",
        "zero r": f"{head}.{segment(bytes(32) + b's' * 32)}",
        "truncated": f"{head}.{signature[:-4]}",
        "extended": f"{head}.{signature}AAAA",
        "order of the group": f"{head}.{segment(P256_ORDER * 2)}",
        "ASN.1": f"{head}.{segment(raw)}",
        "padded": f"{good}=",
        "blank in front": f" {good}",
        "four segments": f"{good}.{signature}",
        "bearer in front": f"Bearer {good}",
    }
    refuse(tokens)


P256_ORDER = bytes.fromhex("ffffffff00000000ffffffffffffffffbce6faada7179e84f3b9cac2fc632551")


def segment_free(header: dict) -> bytes:
    """Return a header as bytes, so that nothing is added to it."""
    return json.dumps(header).encode()


def test_a_mac_keyed_with_the_public_key(stage: ApplicationFixture, claims, refuse):
    """Case D37."""
    key = public_key(stage)
    jwk = {**public_jwk(key), "use": "sig", "alg": "ES256", "kid": stage.kid}
    pem = key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    certificate = certificate_of(key)
    secrets = {
        "PEM": pem,
        "PEM without line end": pem.rstrip(),
        "DER": key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo),
        "point": key.public_bytes(Encoding.X962, PublicFormat.UncompressedPoint),
        "JWK": json.dumps(jwk).encode(),
        "JWK, sorted and dense": json.dumps(jwk, sort_keys=True, separators=(",", ":")).encode(),
        "JWKS": stage.services.key_rings.jwks(),
        "certificate": certificate.public_bytes(Encoding.PEM),
        "certificate, DER": certificate.public_bytes(Encoding.DER),
        "kid": stage.kid.encode(),
        "nothing": b"",
    }
    tokens = {}
    for alg, digest in (("HS256", "sha256"), ("HS384", "sha384"), ("HS512", "sha512")):
        head = f"{segment({'alg': alg, 'kid': stage.kid, 'typ': 'at+jwt'})}.{segment(claims)}"
        for name, secret in secrets.items():
            mac = hmac.new(secret, head.encode(), digest).digest()
            tokens[f"{alg} {name}"] = f"{head}.{segment(mac)}"
    refuse(tokens)


def certificate_of(key: ec.EllipticCurvePublicKey) -> x509.Certificate:
    """Return a certificate of the key, by an authority of the attacker's."""
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "authz.example")])
    now = datetime.now(UTC)
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key)
    builder = builder.serial_number(1).not_valid_before(now)
    builder = builder.not_valid_after(now + timedelta(days=1))
    return builder.sign(ec.generate_private_key(ec.SECP256R1()), hashes.SHA256())


def test_an_algorithm_that_does_not_fit_the_key(stage: ApplicationFixture, claims, refuse):
    """Case D38."""
    algorithms = ("ES384", "ES512", "ES256K", "RS256", "PS256", "EdDSA", "Ed25519", "es256")
    refuse({alg: stage.sign(claims, {"alg": alg}) for alg in algorithms})
    refuse({"alg twice": stage.sign(claims, repeated(stage, '"alg":"none","alg":"ES256"'))})


def repeated(stage: ApplicationFixture, members: str) -> bytes:
    """Return a header with these members and the usual kid and typ."""
    return f'{{{members},"kid":"{stage.kid}","typ":"at+jwt"}}'.encode()


def test_a_key_brought_along(stage: ApplicationFixture, claims, refuse):
    """Case D39."""
    own = ec.generate_private_key(ec.SECP256R1())
    chain = [b64encode(certificate_of(own.public_key()).public_bytes(Encoding.DER)).decode()]
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(0)
        url = f"http://127.0.0.1:{listener.getsockname()[1]}/jwks.json"
        members = {
            "jwk": public_jwk(own),
            "jku": url,
            "x5u": url,
            "x5c": chain,
            "x5t": hashlib.sha1(b"x", usedforsecurity=False).hexdigest(),
        }
        tokens = {}
        for kid in ({"kid": stage.kid}, {"kid": "attacker"}, {}):
            for name, value in members.items():
                header = {"alg": "ES256", "typ": "at+jwt", name: value} | kid
                tokens[f"{name} {kid}"] = sign_with(own, header, claims)
            tokens[f"nothing {kid}"] = sign_with(
                own, {"alg": "ES256", "typ": "at+jwt"} | kid, claims
            )
        # Even beside the server's own signature nothing of the kind is taken.
        tokens |= {f"own {name}": stage.sign(claims, {name: members[name]}) for name in members}
        tokens["url as kid"] = stage.sign(claims, {"kid": url})
        refuse(tokens)
        with pytest.raises(BlockingIOError):
            listener.accept()


HOSTILE_KIDS = (
    "../../../../etc/passwd",
    "/dev/random",
    "file:///etc/passwd",
    "' OR '1'='1",
    "'; DROP TABLE signing_key; --",
    "%s%s%s",
    "{0}",
    "\x00",
    "a\x00b",
    "",
    " ",
    "\ud800",
    "\N{SNOWMAN}",
    "k" * 4_000,
    [],
    ["a"],
    {},
    0,
    -1,
    1e400,
    None,
    True,
)


def test_hostile_key_ids(stage: ApplicationFixture, claims, refuse):
    """Case D40."""
    tokens = {f"{kid!r:.40}": stage.sign(claims, {"kid": kid}) for kid in HOSTILE_KIDS}
    tokens |= {
        "kid in other case": stage.sign(claims, {"kid": stage.kid.swapcase()}),
        "kid with blank": stage.sign(claims, {"kid": f"{stage.kid} "}),
        "kid in a list": stage.sign(claims, {"kid": [stage.kid]}),
        "no kid": stage.sign(claims, segment_free({"alg": "ES256", "typ": "at+jwt"})),
        "two kids": stage.sign(claims, repeated(stage, '"alg":"ES256","kid":"x"')),
    }
    refuse(tokens)


def test_thousands_of_key_ids_leave_nothing_behind(
    stage: ApplicationFixture, endpoint, caller, claims
):
    """Case D40."""
    sound = stage.sign(claims).split(".")[1:]
    headers = caller.headers() | {"Content-Type": "application/x-www-form-urlencoded"}

    def present(number: int) -> None:
        for _ in range(number):
            header = segment({"alg": "ES256", "kid": os.urandom(64).hex(), "typ": "at+jwt"})
            form = caller.form() | {"token": f"{header}.{sound[0]}.{sound[1]}"}
            # Past the watching client, which remembers every token.
            url = {"introspect": "/oauth2/introspect", "revoke": "/oauth2/revoke"}[endpoint]
            answer = FlaskClient(stage.app).post(url, data=form, headers=headers)
            assert answer.status_code == 200

    present(20)
    published = stage.services.key_rings.jwks()
    tracemalloc.start()
    present(100)  # fills what is remembered of the latest
    grown = []
    # What is kept of each id grows in every round; what a thread beside keeps does not.
    while len(grown) < 4 and min(grown, default=6_000) >= 6_000:
        before = kept_bytes()
        present(60)
        grown.append(kept_bytes() - before)
    tracemalloc.stop()
    assert min(grown) < 6_000, grown
    assert stage.services.key_rings.jwks() == published


def kept_bytes() -> int:
    """Return how much memory that the server's own code allocated is still held."""
    gc.collect()
    ours = [tracemalloc.Filter(inclusive=True, filename_pattern=f"*/{name}/*.py") for name in OURS]
    snapshot = tracemalloc.take_snapshot().filter_traces(ours)
    return sum(each.size for each in snapshot.statistics("filename"))


def test_critical_and_detached(stage: ApplicationFixture, claims, refuse):
    """Case D41."""
    values = (["exp"], ["b64"], ["x"], [], ["alg"], ["x", "x"], "exp", {}, None, ["kid", "typ"])
    tokens = {f"crit {value!r}": stage.sign(claims, {"crit": value}) for value in values}
    good = stage.sign(claims)
    header, payload, signature = good.split(".")
    general = {
        "payload": payload,
        "signatures": [{"protected": header, "signature": signature, "header": {"crit": ["x"]}}],
    }
    tokens |= {
        "unencoded": stage.sign(claims, {"b64": False, "crit": ["b64"]}),
        "b64 true": stage.sign(claims, {"b64": True}),
        "detached": f"{header}..{signature}",
        "plain payload": f"{header}.{json.dumps(claims)}.{signature}",
        "JSON form": json.dumps(general),
        "flattened": json.dumps({"protected": header, "payload": payload, "signature": signature}),
        "nested": stage.sign(good.encode(), {"cty": "JWT"}),
        "compressed": stage.sign(claims, {"zip": "DEF"}),
        "invented member": stage.sign(claims, {"x": 1}),
    }
    refuse(tokens)


ENCRYPTED = {
    "PBES2": {"alg": "PBES2-HS256+A128KW", "enc": "A128GCM", "p2c": 2**31 - 1, "p2s": "AAAA"},
    "zip bomb": {"alg": "dir", "enc": "A128GCM", "zip": "DEF"},
    "RSA1_5": {"alg": "RSA1_5", "enc": "A128CBC-HS256"},
    "ECDH-ES": {"alg": "ECDH-ES", "enc": "A128GCM", "epk": {"kty": "EC", "crv": "P-256"}},
    "key agreement": {"alg": "ECDH-ES+A128KW", "enc": "A128GCM"},
    "signature": {"alg": "ES256", "enc": "A128GCM"},
}


def test_encrypted_tokens_cost_nothing(stage: ApplicationFixture, endpoint, caller, refuse):
    """Case D43."""
    tokens = {
        name: f"{segment(header | {'kid': stage.kid})}.{segment(b'k' * 40)}.aXY.{'A' * 4_000}.dGFn"
        for name, header in ENCRYPTED.items()
    }
    refuse(tokens)
    for name, token in tokens.items():
        taken = []
        for _ in range(5):
            began = time.perf_counter()
            stage.post(endpoint, {"token": token}, caller)
            taken.append(time.perf_counter() - began)
        assert min(taken) < 0.01, name


@pytest.mark.parametrize(
    "typ", ["jwt", "at+JWT", "application/at+jwt", "", "token-introspection+jwt"]
)
def test_tokens_of_another_type(stage: ApplicationFixture, claims, refuse, typ):
    """Case D38."""
    refuse({typ: stage.sign(claims, typ=typ)})


@pytest.mark.parametrize("size", [8_193, 65_536, 5_000_000])
def test_oversized_tokens(stage: ApplicationFixture, endpoint, caller, claims, size):
    """Case D56."""
    good = stage.sign(claims)
    for token in ("x" * size, "." * size, good + "A" * size, "a.b." + "c" * size):
        form = caller.form() | {"token": token}
        url = {"introspect": "/oauth2/introspect", "revoke": "/oauth2/revoke"}[endpoint]
        client, headers, taken = FlaskClient(stage.app), caller.headers(), []
        for _ in range(3):
            began = time.process_time()
            answer = client.post(url, data=form, headers=headers)
            taken.append(time.process_time() - began)
            if size < MAXIMUM_BODY_BYTES:
                assert (answer.status_code, answer.get_json()) == (200, NOTHING[endpoint])
            else:
                assert (answer.status_code, answer.get_json()["error"]) == (413, "invalid_request")
        # The sender works in the same process: it is what takes long for millions of bytes.
        assert min(taken) < (0.02 if size < 100_000 else 1)


def test_large_tokens_that_still_fit(stage: ApplicationFixture, claims, refuse):
    """Case D56."""
    good = stage.sign(claims)
    refuse(
        {f"{n}": token for n, token in enumerate(("x" * 8_000, "." * 8_000, good + "A" * 7_000))}
    )
