"""Claims, headers and keys of client assertions: which are accepted, and hostile ones."""

import hmac
import json
from random import Random
from time import perf_counter

import pytest

from support.assertion_cast import Cast
from support.assertions import (
    HMAC_ALGORITHMS,
    METHODS,
    Signer,
    jwks_of,
    new_key,
)
from support.forged_tokens import segment
from support.hostile_tokens import hostile_token
from support.protocol import ENDPOINTS
from support.settings_file import ISSUER

AUDIENCES = {
    "token endpoint": f"{ISSUER}/oauth2/token",
    "slash": f"{ISSUER}/",
    "case": ISSUER.upper(),
    "port": f"{ISSUER}:443",
    "http": ISSUER.replace("https", "http"),
    "other issuer": "https://elsewhere.example",
    "empty": "",
    "empty list": [],
    "list with another": [ISSUER, "https://elsewhere.example"],
    "list with itself": [ISSUER, ISSUER],
    "nested list": [[ISSUER]],
    "object": {"0": ISSUER},
    "number": 7,
    "missing": None,
}


@pytest.mark.parametrize("name", AUDIENCES)
@pytest.mark.parametrize("method", METHODS)
def test_the_audience_is_the_issuer_alone(cast: Cast, method: str, name: str):
    """Case D48."""
    signer = cast.signers[method]
    assertion = signer.assertion(aud=AUDIENCES[name])
    assert cast.refusal(signer, assertion) == "assertion_audience"


def test_the_issuer_as_the_one_element_of_a_list(cast: Cast):
    """Case D48."""
    signer = cast.signers["private_key_jwt"]
    assert cast.accepts(signer, signer.assertion(aud=[ISSUER]))


@pytest.mark.parametrize("typ", ["JWT", "jwt", "client-authentication+jwt", "application/JWT"])
def test_permitted_types(cast: Cast, typ: str):
    """Case D48."""
    signer = cast.signers["private_key_jwt"]
    assert cast.accepts(signer, signer.assertion({"typ": typ}))


@pytest.mark.parametrize("typ", ["at+jwt", "dpop+jwt", "JOSE", "x", "token-introspection+jwt"])
@pytest.mark.parametrize("method", METHODS)
def test_other_types(cast: Cast, method: str, typ: str):
    """Case D48."""
    signer = cast.signers[method]
    assert cast.refusal(signer, signer.assertion({"typ": typ})) == "assertion_type"


@pytest.mark.parametrize(
    ("claims", "cause"),
    [
        ({"iat": 8, "exp": 60}, ""),
        ({"nbf": 8, "exp": 60}, ""),
        ({"iat": 10, "exp": 310}, ""),
        ({"iat": 0, "exp": 300}, ""),
        ({"iat": None, "exp": 300}, ""),
        ({"iat": -280, "exp": 20}, ""),
        ({"iat": -60, "exp": -9}, ""),
        ({"iat": 11, "exp": 60}, "assertion_not_yet_valid"),
        ({"iat": 61, "exp": 90}, "assertion_not_yet_valid"),
        ({"iat": 0, "nbf": 61, "exp": 90}, "assertion_not_yet_valid"),
        ({"iat": None, "nbf": 61, "exp": 90}, "assertion_not_yet_valid"),
        ({"iat": -60, "exp": -10}, "assertion_expired"),
        ({"iat": -600, "exp": -300}, "assertion_expired"),
        ({"iat": 0, "exp": 301}, "assertion_lifetime"),
        ({"iat": -280, "exp": 60}, "assertion_lifetime"),
        ({"iat": 10, "exp": 311}, "assertion_lifetime"),
        ({"iat": None, "exp": 311}, "assertion_lifetime"),
        ({"iat": None, "exp": 3_600}, "assertion_lifetime"),
        ({"iat": 5, "exp": 5}, "assertion_malformed"),
        ({"nbf": 9, "exp": 5}, "assertion_malformed"),
    ],
)
def test_times(cast: Cast, claims: dict, cause: str):
    """Case D50. The numbers are seconds from the present."""
    signer = cast.signers["private_key_jwt"]
    now = int(cast.now())
    times = {name: None if value is None else now + value for name, value in claims.items()}
    assertion = signer.assertion(**times)
    if cause:
        assert cast.refusal(signer, assertion) == cause
    else:
        assert cast.accepts(signer, assertion)


NUMBERS = (
    *("NaN", "Infinity", "-Infinity", "1e400", "1" + "0" * 400, "9" * 5_000),
    *("-1", "1.5", "1e9", "0x10", '"1900000000"', "true", "null", "[]", "{}"),
)


@pytest.mark.parametrize("number", NUMBERS)
@pytest.mark.parametrize("name", ["exp", "iat", "nbf"])
def test_numbers_that_are_no_times(cast: Cast, name: str, number: str):
    """Case D46."""
    signer = cast.signers["private_key_jwt"]
    claims = signer.claims()
    claims.pop(name, None)
    payload = f'{json.dumps(claims)[:-1]}, "{name}": {number}}}'
    assert cast.refusal(signer, signer.sign(payload)) == "assertion_malformed"


@pytest.mark.parametrize("name", ["iss", "sub", "jti", "exp"])
def test_a_claim_that_is_missing(cast: Cast, name: str):
    """Case D50."""
    signer = cast.signers["private_key_jwt"]
    assert cast.refusal(signer, signer.assertion(**{name: None})) == "assertion_malformed"


@pytest.mark.parametrize(
    "value", [[], ["x"], {}, {"a": 1}, 7, True, "", "a\0b", "a\nb", "x" * 5_000, "\u2028"]
)
@pytest.mark.parametrize("name", ["iss", "sub", "jti"])
def test_a_claim_of_another_kind(cast: Cast, name: str, value: object):
    """Case D47."""
    signer = cast.signers["private_key_jwt"]
    cause = cast.refusal(signer, signer.assertion(**{name: value}))
    is_text = isinstance(value, str) and value
    # Another subject is another client; another issuer is none of this client.
    allowed = {"assertion_malformed", *(["client_unknown"] if is_text and name == "sub" else [])}
    allowed |= {"assertion_issuer"} if is_text and name == "iss" else set()
    assert cause in allowed


def test_a_lone_surrogate_in_a_claim(cast: Cast):
    """Case D47."""
    signer = cast.signers["private_key_jwt"]
    payload = json.dumps(signer.claims(jti="surrogate")).replace("surrogate", "\\ud800")
    assert cast.refusal(signer, signer.sign(payload)) == "assertion_malformed"
    repeated = json.dumps(signer.claims())[:-1] + f', "sub": "{signer.id}"}}'
    assert cast.refusal(signer, signer.sign(repeated)) == "assertion_malformed"


@pytest.mark.parametrize("kid", ["../../etc/passwd", "' OR 1=1 --", "\0", "k" * 128, "other"])
def test_unknown_key_ids(cast: Cast, kid: str):
    """Case D40."""
    signer = cast.signers["private_key_jwt"]
    assert cast.refusal(signer, signer.assertion({"kid": kid})) == "assertion_key_unknown"


@pytest.mark.parametrize(
    "header",
    [
        {"kid": "k" * 5_000},
        {"jku": "https://attacker.example"},
        {"x5u": "https://attacker.example"},
        {"x5c": ["AAAA"]},
        {"jwk": jwks_of(new_key())["keys"][0]},
        {"zip": "DEF"},
        {"enc": "A256GCM"},
    ],
)
def test_headers_that_are_refused(cast: Cast, header: dict):
    """Cases D39, D40, D41."""
    signer = cast.signers["private_key_jwt"]
    assert cast.refusal(signer, signer.assertion(header)) == "assertion_malformed"


def test_an_attacker_s_key_in_the_header(cast: Cast):
    """Case D39: also where the client has no key of its own."""
    attacker = new_key()
    keyless = cast.new(properties={})
    for signer in (keyless, cast.signers["private_key_jwt"]):
        forged = Signer(signer.id, attacker, cast.now)
        header = {"jwk": jwks_of(attacker)["keys"][0]}
        assert cast.refusal(forged, forged.assertion(header)) == "assertion_malformed"
        assert cast.refusal(forged, forged.assertion()) in {
            "assertion_key_unknown",
            "assertion_signature",
        }


@pytest.mark.parametrize(
    "alg", ["none", "None", "NONE", "", "HS1", "RSA1_5", "ES256K", "ML-DSA-44"]
)
def test_algorithms_that_do_not_exist_here(cast: Cast, alg: str):
    """Case D36."""
    signer = cast.signers["private_key_jwt"]
    payload = segment(signer.claims())
    for signature in ("", segment(b"x" * 64)):
        token = f"{segment({'alg': alg})}.{payload}.{signature}"
        cause = "assertion_algorithm" if signature else "assertion_malformed"
        assert cast.refusal(signer, token) == cause


def test_a_public_key_as_the_secret(cast: Cast):
    """Case D37."""
    signer = cast.signers["private_key_jwt"]
    public = signer.key.as_dict(private=False)
    texts = [signer.key.as_pem(private=False), signer.key.as_der(private=False)]
    texts += [json.dumps(public).encode(), json.dumps(public | {"kid": "key-1"}).encode()]
    for text in texts:
        for alg in HMAC_ALGORITHMS:
            head = f"{segment({'alg': alg, 'kid': 'key-1'})}.{segment(signer.claims())}"
            signature = hmac.digest(text, head.encode(), alg.replace("HS", "sha"))
            token = f"{head}.{segment(signature)}"
            assert cast.refusal(signer, token) == "assertion_signature"


def five_parts(**header: object) -> str:
    return ".".join([segment({"enc": "A256GCM", **header}), *["AAAA"] * 4])


@pytest.mark.parametrize(
    "token",
    [
        five_parts(alg="PBES2-HS512+A256KW", p2c=2**31, p2s="AA"),
        five_parts(alg="RSA1_5"),
        five_parts(alg="dir", zip="DEF"),
        "e30.e30.e30",
        "e30.e30.",
        "..",
        "a.b",
        f"{segment(b'[' * 2_000)}.e30.AA",
        f"{segment({'alg': 'ES256'})}.{segment(b'[' * 2_000)}.AA",
        "\u00e9.\u00e9.\u00e9",
    ],
)
@pytest.mark.parametrize("endpoint", ENDPOINTS)
def test_what_is_no_signed_token(cast: Cast, endpoint: str, token: str):
    """Cases D41, D43."""
    signer = cast.signers["private_key_jwt"]
    assert cast.refusal(signer, token, endpoint) == "assertion_malformed"


@pytest.mark.parametrize("size", [9_000, 64_000, 5_000_000])
@pytest.mark.parametrize("endpoint", ENDPOINTS)
def test_large_assertions(cast: Cast, endpoint: str, size: int):
    """Case D56."""
    part = "A" * (size // 3)
    form = cast.signers["private_key_jwt"].form(f"{part}.{part}.{part}")
    began = perf_counter()
    answer = cast.offer(endpoint, form)
    assert answer.status_code in {400, 413}
    # Most of it is the time of the test's own client.
    assert perf_counter() - began < 10


@pytest.mark.parametrize("method", METHODS)
def test_mutations_of_a_sound_assertion(cast: Cast, method: str):
    """Cases D36, D47: none is accepted, and none uses the sound one up."""
    random, signer = Random(9), cast.new(method)
    sound = signer.assertion()
    for number in range(400):
        token = hostile_token(random, sound)
        if token in {sound, ""}:
            continue
        endpoint = tuple(ENDPOINTS)[number % len(ENDPOINTS)]
        answer = cast.offer(endpoint, signer.form(token))
        assert answer.status_code in {400, 401, 413}, token
        assert answer.json["error"] in {"invalid_client", "invalid_request"}
    assert cast.accepts(signer, sound)
