"""The thumbprint of a message key, as given and as computed from what partners send."""

import hashlib
import json
from base64 import urlsafe_b64encode
from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, x25519
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)
from cryptography.x509.oid import NameOID

from authz_server.clients.message_keys import check_message_key, check_sender_id
from authz_server.errors import InvalidChangeError
from keys.jose.jwk import public_jwk

#: RFC 7638, 3.1.
RSA_JWK = {
    "kty": "RSA",
    "n": "0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1RK7aPFFxuhDR1"
    "L6tSoc_BJECPebWKRXjBZCiFV4n3oknjhMstn64tZ_2W-5JsGY4Hc5n9yBXArwl93lqt7_RN5w6Cf0h4"
    "QyQ5v-65YGjQR0_FDW2QvzqY368QQMicAtaSqzs8KJZgnYb9c7d0zgdAZHzu6qMQvRL5hajrn1n91CbO"
    "pbISD08qNLyrdkt-bFTWhAI4vMQFh6WeZu0fM4lFd2NcRwr3XPksINHaQ-G_xBniIqbw0Ls1jF44-csF"
    "Cur-kEgU8awapJzKnqDKgw",
    "e": "AQAB",
    "alg": "RS256",
    "kid": "2011-04-29",
}
RSA_THUMBPRINT = "NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs"
KEY = ed25519.Ed25519PrivateKey.generate()
EC_KEY = ec.generate_private_key(ec.SECP256R1())


def certificate() -> x509.Certificate:
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "partner")])
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(EC_KEY.public_key())
        .serial_number(1)
        .not_valid_before(now)
        .not_valid_after(now + timedelta(days=1))
        .sign(EC_KEY, hashes.SHA256())
    )


def test_the_thumbprint_of_a_jwk_is_that_of_rfc_7638():
    """Members beyond the required ones do not count."""
    assert check_message_key(RSA_JWK) == {"jkt": RSA_THUMBPRINT}
    assert check_message_key(RSA_THUMBPRINT) == {"jkt": RSA_THUMBPRINT}
    assert check_message_key({"jkt": RSA_THUMBPRINT}) == {"jkt": RSA_THUMBPRINT}


def test_a_public_key_in_pem_has_the_thumbprint_of_its_jwk():
    """Partners of G2P Connect sign with Ed25519 by the interface's example."""
    public = KEY.public_key()
    pem = public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()
    assert check_message_key(pem) == check_message_key(public_jwk(public))


def test_a_certificate_is_named_by_its_own_thumbprint():
    """SHA-256 of the DER, as in RFC 8705, 3.1."""
    found = certificate()
    digest = hashlib.sha256(found.public_bytes(Encoding.DER)).digest()
    x5t = urlsafe_b64encode(digest).rstrip(b"=").decode()
    assert check_message_key(found.public_bytes(Encoding.PEM).decode()) == {"x5t#S256": x5t}
    assert check_message_key({"x5t#S256": x5t}) == {"x5t#S256": x5t}


EXCHANGE_PEM = (
    x25519.X25519PrivateKey.generate()
    .public_key()
    .public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    .decode()
)
#: JWKs have no name for the first curve, and the server takes no keys of the second.
OTHER_CURVES_PEM = [
    ec.generate_private_key(curve)
    .public_key()
    .public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    .decode()
    for curve in (ec.SECP224R1(), ec.SECP256K1())
]
PRIVATE_PEM = KEY.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()


@pytest.mark.parametrize(
    "value",
    [
        "",
        None,
        7,
        [],
        {},
        RSA_THUMBPRINT[:-1],
        RSA_THUMBPRINT[:-1] + "t",
        RSA_THUMBPRINT + "=",
        {"jkt": ""},
        {"jkt": RSA_THUMBPRINT, "x5t#S256": RSA_THUMBPRINT},
        {"jwt": RSA_THUMBPRINT},
        {"kty": "oct", "k": "c2VjcmV0"},
        {"kty": "unknown"},
        {"kty": ["EC"]},
        RSA_JWK | {"d": "AQAB"},
        RSA_JWK | {"n": ""},
        {"kty": "EC", "crv": "P-256", "x": "AA", "y": "AA"},
        {"kty": "OKP", "crv": "Ed25519"},
        PRIVATE_PEM,
        EXCHANGE_PEM,
        *OTHER_CURVES_PEM,
        "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
        "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n",
    ],
    ids=lambda value: json.dumps(value)[:30],
)
def test_other_values_are_refused_without_repeating_a_key(value):
    """A private key in the wrong place is not stored and not printed."""
    with pytest.raises(InvalidChangeError, match="message_key_thumbprint") as refusal:
        check_message_key(value)
    assert "MC4CAQ" not in str(refusal.value)


@pytest.mark.parametrize("value", ["", " ", "a b", "a\n", "é", "x" * 201, 7, None])
def test_a_sender_id_is_printable_ascii(value):
    """It goes into tokens, logs and headers."""
    with pytest.raises(InvalidChangeError, match="sender_id"):
        check_sender_id(value)
    assert check_sender_id("spp.example.org") == "spp.example.org"
