"""Authentication of this server to the provider."""

from types import SimpleNamespace
from urllib.parse import parse_qs

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
)

from authz_server.admin.people.provider_keys import make_authentication
from authz_server.settings import RuleError, Secret, SettingsError
from authz_server.settings.operators import OpenIDSettings

CLIENT = SimpleNamespace(client_id="console")
URL = "https://login.example/token"


def provider(**credentials: bytes) -> OpenIDSettings:
    secrets = {name: Secret(value) for name, value in credentials.items()}
    return OpenIDSettings(issuer="https://login.example", client_id="console", **secrets)


def pem(key, encryption=None) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption or NoEncryption())


@pytest.mark.parametrize(
    ("key", "alg"),
    [
        (rsa.generate_private_key(65_537, 2_048), "RS256"),
        (ec.generate_private_key(ec.SECP256R1()), "ES256"),
        (ec.generate_private_key(ec.SECP384R1()), "ES384"),
        (ed25519.Ed25519PrivateKey.generate(), "EdDSA"),
    ],
    ids=["RS256", "ES256", "ES384", "EdDSA"],
)
def test_a_private_key_signs_an_assertion_for_each_request(key, alg):
    authenticate = make_authentication(provider(private_key=pem(key)))
    assertions = []
    for _ in range(2):
        url, headers, body = authenticate(CLIENT, "POST", URL, {"Content-Length": "6"}, "code=x")
        form = parse_qs(body)
        assert (url, headers, form["code"]) == (URL, {}, ["x"])
        assert form["client_assertion_type"] == [
            "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
        ]
        (assertion,) = form["client_assertion"]
        assertions.append(jwt.decode(assertion, key.public_key(), [alg], audience=URL))
    assert all(each["iss"] == each["sub"] == "console" for each in assertions)
    assert all(each["exp"] - each["iat"] <= 60 for each in assertions)
    assert assertions[0]["jti"] != assertions[1]["jti"]


@pytest.mark.parametrize(
    "text",
    [
        b"not a key",
        pem(ec.generate_private_key(ec.SECP256K1())),
        pem(ec.generate_private_key(ec.SECP256R1()), BestAvailableEncryption(b"x")),
    ],
    ids=["malformed", "secp256k1", "encrypted"],
)
def test_another_key_is_refused(text):
    with pytest.raises(SettingsError, match=r"admin\.openid\.private_key"):
        make_authentication(provider(private_key=text))


def test_a_provider_needs_one_credential_and_https():
    for credentials in ({}, {"client_secret": b"x", "private_key": b"x"}):
        with pytest.raises(RuleError):
            provider(**credentials)
    for issuer in ("http://login.example", "ftp://login.example", "https://LOGIN.example", "login"):
        with pytest.raises(RuleError):
            OpenIDSettings(issuer=issuer, client_id="console", client_secret=Secret(b"x"))
    with pytest.raises(RuleError):
        OpenIDSettings(
            issuer="https://login.example",
            client_id="console",
            client_secret=Secret(b"x"),
            scopes=("profile",),
        )
