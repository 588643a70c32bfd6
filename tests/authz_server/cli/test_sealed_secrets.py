"""``--encrypt-to``: a generated secret leaves the command line encrypted alone."""

import codecs
import json
import re
from functools import cache, partial
from itertools import count

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa, x25519
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)
from joserfc import jwe
from joserfc.jwk import import_key

from authz_server.errors import InvalidChangeError
from authz_server.operations.sealed_secrets import open_recipient

KEYS = {
    "RSA": partial(rsa.generate_private_key, 65_537, 2_048),
    "EC": partial(ec.generate_private_key, ec.SECP256R1()),
    "OKP": x25519.X25519PrivateKey.generate,
}
SECRET = re.compile(r"[A-Za-z0-9_-]{43}")
NEW_CLIENT = ("client", "create", "payer", "--name", "Payer", "--scope", "mapper/link")


@cache
def key_of(kind: str):
    """Return the one key of a kind."""
    return KEYS[kind]()


def public_pem(key) -> bytes:
    return key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def private_pem(key) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def opened(sealed: str, kind: str) -> str:
    """Return the text of a JWE, by a library of another maker."""
    key = import_key(private_pem(key_of(kind)), kind)
    algorithms = ["ECDH-ES", "RSA-OAEP-256", "A256GCM"]
    return jwe.decrypt_compact(sealed, key, algorithms).plaintext.decode()


@pytest.mark.parametrize("kind", KEYS)
def test_a_generated_secret_is_printed_encrypted(stocked, tmp_path, kind):
    """Cases H88, H98: for every command that generates one."""
    file = tmp_path / "key.pem"
    file.write_bytes(public_pem(key_of(kind)))
    mapper = ("--name", "Mapper", "--identifier", "https://mapper.example")
    secrets = set()
    for command in (
        NEW_CLIENT,
        ("client", "secret", "add", "payer"),
        ("client", "secret", "rotate", "payer", "--end-old-at", "+1d"),
        ("resource-server", "create", "mapper", *mapper),
        ("resource-server", "secret", "add", "mapper"),
    ):
        printed = stocked.json(*command, "--encrypt-to", file)
        assert "secret" not in printed
        secret = opened(printed["secret_jwe"], kind)
        assert SECRET.fullmatch(secret)
        secrets.add(secret)
    assert len(secrets) == 5
    written = tmp_path / "sealed"
    told = stocked.must(
        *("client", "secret", "add", "payer", "--encrypt-to", file, "--secret-output", written)
    )
    assert "encrypted" in told
    assert written.stat().st_mode & 0o777 == 0o600
    assert SECRET.fullmatch(opened(written.read_text().strip(), kind))
    text = stocked.must("client", "secret", "add", "payer", "--encrypt-to", file)
    assert SECRET.fullmatch(opened(text.splitlines()[-1], kind))


def test_a_recipients_key_may_begin_with_a_byte_order_mark():
    jwk = import_key(public_pem(key_of("EC")), "EC").as_dict(private=False)
    for content in (json.dumps(jwk).encode(), public_pem(key_of("EC"))):
        seal = open_recipient(codecs.BOM_UTF8 + content)
        assert opened(seal("the secret"), "EC") == "the secret"


def test_a_recipient_that_cannot_be_used_makes_nothing(stocked, tmp_path):
    """Case H98."""
    file = tmp_path / "key.pem"
    file.write_bytes(private_pem(key_of("EC")))
    refused = stocked.run(*NEW_CLIENT, "--encrypt-to", file)
    assert refused.exit_code == 2
    assert "a private or symmetric key" in refused.stderr
    assert stocked.json("client", "list") == []


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{}",
        b"[1]",
        b"\xff",
        b"[" * 100_000,
        b"-----BEGIN PUBLIC KEY-----",
        public_pem(ed25519.Ed25519PrivateKey.generate()),
        public_pem(ec.generate_private_key(ec.SECP256K1())),
        public_pem(rsa.generate_private_key(65_537, 1_024)),  # noqa: S505 - it is refused
        json.dumps({"kty": "oct", "k": "c2VjcmV0"}).encode(),
        json.dumps(import_key(public_pem(key_of("EC")), "EC").as_dict() | {"use": "sig"}).encode(),
    ],
    # Not by content: each process has keys of its own, and the names must agree.
    ids=count(),
)
def test_other_keys_are_refused(content):
    with pytest.raises(InvalidChangeError):
        open_recipient(content)
