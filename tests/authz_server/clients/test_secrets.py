import re

import pytest

from authz_server.clients.secrets import SecretScheme, generate_secret
from authz_server.errors import InvalidChangeError
from support.cheap_argon2 import SERVERS_OWN

SCHEME = SecretScheme(b"p" * 32, argon2_concurrency=1)


def test_generated_secrets_have_256_bits_that_need_no_escaping():
    made = {generate_secret() for _ in range(1_000)}
    assert len(made) == 1_000
    assert all(re.fullmatch(r"[A-Za-z0-9_-]{43}", secret) for secret in made)


def test_the_record_of_a_generated_secret_depends_on_secret_and_pepper():
    record = SCHEME.record(b"a secret")
    assert re.fullmatch(r"hmac-sha256\$[0-9a-f]{64}", record)
    assert record == SCHEME.record(b"a secret")
    assert record != SCHEME.record(b"a secreT")
    assert record != SecretScheme(b"q" * 32, 1).record(b"a secret")


def test_the_record_of_a_generated_secret_holds_its_digest():
    assert SCHEME.entry_parts(SCHEME.record(b"a secret")) == (SCHEME.digest(b"a secret"), "")


@pytest.mark.parametrize("secret", [b"s: %+& \xc3\xa9x", b"12345678", b"x" * 1_024])
def test_an_imported_secret_is_kept_as_argon2id_and_verified(secret):
    digest, encoded = SCHEME.entry_parts(SCHEME.import_record(secret))
    assert digest == b""
    assert encoded.startswith("$argon2id$")
    assert SCHEME.verify_imported(encoded, secret)
    assert not SCHEME.verify_imported(encoded, secret + b"x")


def test_an_imported_secret_is_kept_at_the_cost_that_rfc_9106_recommends(monkeypatch):
    """Section 4, the second recommended option."""
    monkeypatch.setattr("authz_server.clients.secrets._argon2", SERVERS_OWN)
    _, encoded = SCHEME.entry_parts(SCHEME.import_record(b"a secret"))
    assert encoded.startswith("$argon2id$v=19$m=65536,t=3,p=1$")
    assert SCHEME.verify_imported(encoded, b"a secret")


@pytest.mark.parametrize(
    "secret", [b"", b"        ", b"short", b"x" * 1_025, b"new\nlines!", b"\xff" * 9, b"nul\0bytes"]
)
def test_empty_short_or_unprintable_secrets_cannot_be_imported(secret):
    """Case A9."""
    with pytest.raises(InvalidChangeError, match=r"^secret:"):
        SCHEME.import_record(secret)


@pytest.mark.parametrize(
    "record",
    [
        *("", "hmac-sha256$", "hmac-sha256$00", "hmac-sha256$zz", "plain$secret", "secret"),
        *("derived-hmac-sha512$", "derived-hmac-sha512$00", "derived-hmac-sha512$zz"),
    ],
)
def test_a_record_of_no_known_scheme_is_refused(record):
    with pytest.raises(ValueError, match=r".+"):
        SCHEME.entry_parts(record)


def test_a_derived_secret_follows_from_its_record_and_the_pepper():
    record, secret = SCHEME.derived_record()
    assert re.fullmatch(r"derived-hmac-sha512\$[0-9a-f]{64}", record)
    assert re.fullmatch(r"[A-Za-z0-9_-]{86}", secret)
    assert SCHEME.derive(SCHEME.salt_of(record)) == secret.encode()
    assert SCHEME.entry_parts(record) == (SCHEME.digest(secret.encode()), "")
    assert SecretScheme(b"q" * 32, 1).derive(SCHEME.salt_of(record)) != secret.encode()
    assert SCHEME.derived_record()[1] != secret
    assert SCHEME.salt_of(SCHEME.record(b"a secret")) == b""


def test_a_damaged_argon2id_record_matches_nothing():
    assert not SCHEME.verify_imported("$argon2id$nonsense", b"imported secret")
