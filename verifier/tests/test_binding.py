"""Tokens bound to a key (RFC 9449) or a certificate (RFC 8705)."""

import base64
import datetime as dt
import time
from urllib.parse import quote

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding

from authz_verifier import Refusal, Request, Verifier
from authz_verifier.certificates import certificate_thumbprint
from authz_verifier.dpop import ReplayCache, normalize_url
from authz_verifier.signing import SigningKey
from authz_verifier.testing import DEFAULT_AUDIENCE, proof

URL = f"{DEFAULT_AUDIENCE}/mapper/link"


class FromNow(int):
    """Seconds from the time of the test."""


def resolve(changes: dict) -> dict:
    now = int(time.time())
    return {k: now + v if isinstance(v, FromNow) else v for k, v in changes.items()}


def refuse(verifier: Verifier, request: Request) -> Refusal:
    with pytest.raises(Refusal) as caught:
        verifier.authenticate(request)
    return caught.value


@pytest.mark.parametrize("algorithm", ["ES256", "ES384", "PS256", "RS256", "EdDSA"])
def test_a_bound_token_with_its_proof_is_accepted_once(verifier, issuer, present, algorithm):
    key = SigningKey(algorithm)
    token = issuer.token(proof_key=key)
    request = present(token, "DPoP", proofs=(proof(key, "POST", f"{URL}?a=b", token),))
    assert verifier.authenticate(request).confirmation == {"jkt": key.thumbprint}
    assert refuse(verifier, request).reason == "replayed"


KEY = SigningKey()


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"htm": "GET"}, "htm"),
        ({"htm": "post"}, "htm"),
        ({"htm": None}, "htm"),
        ({"htu": f"{DEFAULT_AUDIENCE}/mapper/unlink"}, "htu"),
        ({"htu": "http://api.example/mapper/link"}, "htu"),
        ({"htu": f"{DEFAULT_AUDIENCE}:444/mapper/link"}, "htu"),
        ({"htu": 7}, "htu"),
        ({"htu": "https://["}, "htu"),
        ({"ath": None}, "ath"),
        ({"ath": "AA"}, "ath"),
        ({"iat": FromNow(-80)}, "iat"),
        ({"iat": FromNow(90)}, "iat"),
        ({"iat": None}, "iat"),
        ({"iat": "1"}, "iat"),
        ({"jti": None}, "jti"),
        ({"jti": ""}, "jti"),
        ({"jti": "j" * 300}, "jti"),
        ({"header": {"typ": "JWT"}}, "typ"),
        ({"header": {"jwk": None}}, "jwk"),
        ({"header": {"jwk": KEY.bare_jwk | {"d": "AA"}}}, "jwk"),
        ({"header": {"jwk": SigningKey().bare_jwk}}, "signature"),
        ({"header": {"alg": "none"}}, "algorithm"),
        ({"header": {"alg": "HS256"}}, "algorithm"),
        ({"header": {"jwk": {"kty": "oct", "k": "AA"}}}, "jwk"),
        ({"header": {"crit": ["exp"]}}, "header members"),
    ],
)
def test_a_wrong_proof_is_refused(verifier, issuer, present, changes, reason):
    token = issuer.token(proof_key=KEY)
    wrong = proof(KEY, "POST", URL, token, **resolve(changes))
    refusal = refuse(verifier, present(token, "DPoP", proofs=(wrong,)))
    assert (refusal.error, refusal.reason) == ("invalid_dpop_proof", reason)


def test_the_proof_of_another_key_is_refused(verifier, issuer, present):
    token = issuer.token(proof_key=KEY)
    stolen = proof(SigningKey(), "POST", URL, token)
    refusal = refuse(verifier, present(token, "DPoP", proofs=(stolen,)))
    assert refusal.reason == "another key than the token's"


@pytest.mark.parametrize("count", [0, 2])
def test_one_proof_is_needed(verifier, issuer, present, count):
    token = issuer.token(proof_key=KEY)
    proofs = tuple(proof(KEY, "POST", URL, token) for _ in range(count))
    assert refuse(verifier, present(token, "DPoP", proofs=proofs)).error == "invalid_dpop_proof"


def test_a_scheme_that_does_not_fit_the_token_is_refused(verifier, issuer, present):
    bound, free = issuer.token(proof_key=KEY), issuer.token()
    proofs = (proof(KEY, "POST", URL, bound),)
    assert refuse(verifier, present(bound, "Bearer", proofs=proofs)).error == "invalid_token"
    proofs = (proof(KEY, "POST", URL, free),)
    assert refuse(verifier, present(free, "DPoP", proofs=proofs)).error == "invalid_token"


def test_binding_may_be_required(issuer, present):
    with Verifier(issuer.url, DEFAULT_AUDIENCE, require_binding=True) as verifier:
        refusal = refuse(verifier, present(issuer.token()))
        (challenge,) = verifier.responses.challenges(refusal)
    assert challenge.startswith("DPoP ")


def test_the_public_url_is_that_of_the_proof(issuer, present):
    public = "https://public.example"
    with Verifier(issuer.url, DEFAULT_AUDIENCE, public_url=public) as verifier:
        token = issuer.token(proof_key=KEY)
        made = proof(KEY, "POST", f"{public}/mapper/link", token)
        assert verifier.authenticate(present(token, "DPoP", proofs=(made,)))


def test_a_full_replay_cache_refuses_and_recovers():
    cache = ReplayCache(capacity=2)
    assert cache.use(b"a", 0, 10)
    assert cache.use(b"b", 1, 11)
    with pytest.raises(Refusal) as caught:
        cache.use(b"c", 2, 12)
    assert caught.value.status == 503
    assert not cache.use(b"a", 3, 13)
    assert cache.use(b"c", 10, 20)


@pytest.mark.parametrize(
    ("written", "normal"),
    [
        ("HTTPS://API.example:443", "https://api.example/"),
        ("https://api.example/%7Ea?b#c", "https://api.example/~a"),
        ("https://api.example/a%2fb", "https://api.example/a%2Fb"),
        ("http://[::1]:80/a", "http://[::1]/a"),
    ],
)
def test_urls_are_normalized(written, normal):
    assert normalize_url(written) == normal


@pytest.fixture(scope="module")
def certificate() -> bytes:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "client")])
    now = dt.datetime.now(dt.UTC)
    builder = x509.CertificateBuilder(name, name, key.public_key(), 1, now, now)
    return builder.sign(key, hashes.SHA256()).public_bytes(Encoding.PEM)


def test_a_certificate_in_each_form_is_accepted(verifier, issuer, present, certificate):
    pem = certificate.decode()
    der = base64.b64encode(x509.load_pem_x509_certificate(certificate).public_bytes(Encoding.DER))
    token = issuer.token(cnf={"x5t#S256": certificate_thumbprint(pem)})
    for form in (pem, quote(pem), f":{der.decode()}:", der.decode(), quote(der)):
        assert verifier.authenticate(present(token, certificate=form))


@pytest.mark.parametrize(
    "wrong", ["", "x", ":AA", ":AAAA:", "AAAA", "AAAA,AAAA", "-----BEGIN CERTIFICATE-----", "%"]
)
def test_another_certificate_is_refused(verifier, issuer, present, certificate, wrong):
    token = issuer.token(cnf={"x5t#S256": certificate_thumbprint(certificate.decode())})
    assert refuse(verifier, present(token, certificate=wrong)).error == "invalid_token"
