import re
import threading

import pytest

from authz_server.clients import secrets as secrets_module
from authz_server.clients.secrets import (
    Argon2Record,
    HmacRecord,
    SecretScheme,
    generate_secret,
)
from authz_server.errors import InvalidChangeError, OAuthError

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


def test_a_generated_secret_is_verified_against_its_record_alone():
    record = SCHEME.parse_record(SCHEME.record(b"a secret"))
    assert record == HmacRecord(SCHEME.digest(b"a secret"))
    assert SCHEME.verify_generated(record, b"a secret")
    assert not SCHEME.verify_generated(record, b"another")


@pytest.mark.parametrize("secret", [b"s: %+& \xc3\xa9x", b"12345678", b"x" * 1_024])
def test_an_imported_secret_is_kept_as_argon2id_and_verified(secret):
    record = SCHEME.parse_record(SCHEME.import_record(secret))
    assert isinstance(record, Argon2Record)
    assert record.encoded.startswith("$argon2id$")
    assert SCHEME.verify_imported(record, secret)
    assert SCHEME.verify_imported(record.encoded, secret)
    assert not SCHEME.verify_imported(record, secret + b"x")


@pytest.mark.parametrize(
    "secret", [b"", b"        ", b"short", b"x" * 1_025, b"new\nlines!", b"\xff" * 9, b"nul\0bytes"]
)
def test_empty_short_or_unprintable_secrets_cannot_be_imported(secret):
    """Case A9."""
    with pytest.raises(InvalidChangeError, match=r"^secret:"):
        SCHEME.import_record(secret)


def test_a_flood_of_guesses_waits_for_a_slot_and_is_then_refused(monkeypatch):
    scheme = SecretScheme(b"p" * 32, argon2_concurrency=1)
    record = scheme.parse_record(scheme.import_record(b"imported secret"))
    begun, finish = threading.Event(), threading.Event()

    class SlowHasher:
        def verify(self, _encoded, _secret):
            begun.set()
            return finish.wait(30)

    monkeypatch.setattr(secrets_module, "_argon2", SlowHasher())
    monkeypatch.setattr(secrets_module, "ARGON2_WAIT_SECONDS", 0.05)
    first = threading.Thread(target=scheme.verify_imported, args=(record, b"guess"))
    first.start()
    assert begun.wait(10)
    with pytest.raises(OAuthError) as refusal:
        scheme.verify_imported(record, b"another guess")
    assert refusal.value.reason == "temporarily_unavailable"
    finish.set()
    first.join()
    assert scheme.verify_imported(record, b"guess")


@pytest.mark.parametrize(
    "record", ["", "hmac-sha256$", "hmac-sha256$00", "hmac-sha256$zz", "plain$secret", "secret"]
)
def test_a_record_of_no_known_scheme_is_refused(record):
    with pytest.raises(ValueError, match=r".+"):
        SCHEME.parse_record(record)


def test_a_damaged_argon2id_record_matches_nothing():
    assert not SCHEME.verify_imported(Argon2Record("$argon2id$nonsense"), b"imported secret")
