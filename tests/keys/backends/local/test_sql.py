"""The local backend: the contract, and private keys that are of no use at rest."""

from dataclasses import replace

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_der_private_key,
)

from keys.backends.local.envelope import Envelope
from keys.backends.local.sql import LocalBackend, open_backend
from keys.backends.registry import BackendContext
from keys.errors import (
    BackendBroken,
    BackendDenied,
    BackendUnavailable,
    KeysError,
    VersionUnusable,
)
from keys.jose.jwk import public_jwk, thumbprint
from keys.memory import MemoryEncryptedKeyStorage
from keys.testing import KeyBackendContract
from support.clock import FakeClock

KEY_ENCRYPTION_KEY = bytes(range(32))
RING = "ring"


class TestLocalBackend(KeyBackendContract):
    @pytest.fixture
    def backend(self):
        return LocalBackend(MemoryEncryptedKeyStorage(), KEY_ENCRYPTION_KEY, FakeClock())


@pytest.fixture
def storage():
    """A storage with two versions of one ring."""
    storage = MemoryEncryptedKeyStorage()
    backend = reopen(storage)
    backend.create(RING, "ES256")
    backend.create(RING, "ES256")
    return storage


def reopen(storage, key=KEY_ENCRYPTION_KEY):
    return LocalBackend(storage, key, FakeClock())


def sign(storage, ref="1", key=KEY_ENCRYPTION_KEY, ring=RING, alg="ES256"):
    return reopen(storage, key).sign(ring, ref, alg, [b"data"])


def test_another_process_signs_with_the_same_key(storage):
    assert len(sign(storage)[0]) == 64


@pytest.mark.parametrize("alg", ["ES256", "EdDSA", "RS256"])
def test_no_private_key_is_stored_in_clear(alg):
    """Case G85."""
    storage = MemoryEncryptedKeyStorage()
    backend = reopen(storage)
    backend.create(RING, alg)
    key = storage.keys[0]
    plain = Envelope(KEY_ENCRYPTION_KEY).open(key.envelope, ring=RING, version=1, kid=key.kid)
    private = load_der_private_key(plain, password=None)
    for part in (plain, plain[-24:], private_number(private, plain)):
        assert part not in key.envelope
    assert "envelope" not in repr(key)
    assert len(key.envelope) == 1 + 8 + 12 + len(plain) + 16


def private_number(private, plain):
    if isinstance(private, ec.EllipticCurvePrivateKey):
        return private.private_numbers().private_value.to_bytes(32)
    if isinstance(private, rsa.RSAPrivateKey):
        return private.private_numbers().d.to_bytes(256)
    return plain[-32:]


def test_one_key_sealed_twice_looks_different():
    envelope = Envelope(KEY_ENCRYPTION_KEY)
    sealed = {envelope.seal(b"key", ring=RING, version=1, kid="kid") for _ in range(100)}
    assert len(sealed) == 100


def test_another_key_encryption_key_is_named_as_the_cause(storage):
    with pytest.raises(BackendDenied, match="another key-encryption key"):
        sign(storage, key=bytes(32))
    health = reopen(storage, bytes(32)).health()
    assert not health.usable
    assert health.detail == "the keys here are encrypted under another key-encryption key"


def test_another_key_encryption_key_makes_no_version(storage):
    for ring in (RING, "another"):
        with pytest.raises(BackendDenied, match="another key-encryption key"):
            reopen(storage, bytes(32)).create(ring, "ES256")
    assert [key.version for key in storage.keys] == [1, 2]


def test_a_ring_whose_encryption_key_is_lost_is_abandoned_by_order(storage):
    """The other rings are not; versions are counted on, and need no further order."""
    reopen(storage).create("other", "ES256")
    backend = reopen(storage, bytes(32))
    backend.abandon(RING)
    assert backend.create(RING, "ES256").ref == "3"
    later = reopen(storage, bytes(32))
    assert later.create(RING, "ES256").ref == "4"
    with pytest.raises(BackendDenied, match="another key-encryption key"):
        later.create("other", "ES256")


def test_the_newest_key_decides_on_health(storage):
    """After the loss of a key-encryption key, older ones cannot be opened."""
    clock = FakeClock()
    clock.advance(60)
    newer = LocalBackend(storage, bytes(32), clock)
    newer.abandon("other")
    newer.create("other", "ES256")
    assert newer.health().usable
    assert not reopen(storage).health().usable


def test_a_changed_envelope_stops_no_rotation(storage):
    changed = storage.keys[0].envelope[:-1] + b"\0"
    storage.keys[0] = replace(storage.keys[0], envelope=changed)
    assert reopen(storage).create(RING, "ES256").ref == "3"


@pytest.mark.parametrize("size", [0, 16, 31, 33, 64])
def test_a_key_encryption_key_of_another_size_is_refused(size):
    with pytest.raises(KeysError, match="32 bytes"):
        reopen(MemoryEncryptedKeyStorage(), bytes(size))


def test_an_envelope_moved_to_another_version_does_not_open(storage):
    first, second = storage.keys
    storage.keys = [replace(first, envelope=second.envelope), second]
    with pytest.raises(BackendBroken, match="was changed"):
        sign(storage)


def test_rows_that_swapped_their_versions_do_not_open(storage):
    first, second = storage.keys
    storage.keys = [replace(second, version=1), replace(first, version=2)]
    for ref in ("1", "2"):
        with pytest.raises(BackendBroken, match="was changed"):
            sign(storage, ref)


def test_a_row_copied_to_another_ring_does_not_open(storage):
    storage.keys.append(replace(storage.keys[0], ring="other"))
    with pytest.raises(BackendBroken, match="was changed"):
        sign(storage, ring="other")


def test_every_changed_byte_is_noticed(storage):
    first = storage.keys[0]
    for place in range(len(first.envelope)):
        changed = bytearray(first.envelope)
        changed[place] ^= 1
        storage.keys[0] = replace(first, envelope=bytes(changed))
        with pytest.raises((BackendBroken, BackendDenied)):
            sign(storage)


@pytest.mark.parametrize("size", [0, 1, 20, 21, 36])
def test_a_cut_envelope_is_noticed(storage, size):
    storage.keys[0] = replace(storage.keys[0], envelope=storage.keys[0].envelope[:size])
    with pytest.raises(BackendBroken):
        sign(storage)


def test_a_private_key_of_another_public_key_is_noticed(storage):
    first = storage.keys[0]
    other = ec.generate_private_key(ec.SECP256R1())
    plain = other.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
    sealed = Envelope(KEY_ENCRYPTION_KEY).seal(plain, ring=RING, version=1, kid=first.kid)
    storage.keys[0] = replace(first, envelope=sealed)
    with pytest.raises(BackendBroken, match="another public key"):
        sign(storage)


def test_an_exchanged_public_key_is_noticed(storage):
    other = public_jwk(ec.generate_private_key(ec.SECP256R1()))
    storage.keys[0] = replace(storage.keys[0], public_jwk=other)
    with pytest.raises(BackendBroken, match="another thumbprint"):
        reopen(storage).describe_versions(RING)


def test_a_key_of_a_later_releases_algorithm_is_unusable(storage):
    storage.keys[0] = replace(storage.keys[0], alg="ES999")
    with pytest.raises(VersionUnusable, match="unknown algorithm"):
        sign(storage, alg="ES999")


def test_the_kid_is_the_thumbprint(storage):
    assert [key.kid for key in storage.keys] == [thumbprint(key.public_jwk) for key in storage.keys]


def test_a_loaded_key_signs_on_when_the_storage_is_away(storage):
    backend = reopen(storage)
    backend.sign(RING, "1", "ES256", [b"data"])

    def unreachable(_ring):
        raise BackendUnavailable("away", retry_after=5)

    storage.load = unreachable
    assert len(backend.sign(RING, "1", "ES256", [b"data"])) == 1
    with pytest.raises(BackendUnavailable):
        backend.sign(RING, "2", "ES256", [b"data"])


def test_an_endless_race_for_a_number_ends(storage):
    storage.add = lambda _key: False
    with pytest.raises(BackendUnavailable, match="keep adding"):
        reopen(storage).create(RING, "ES256")


def test_an_empty_backend_is_healthy():
    health = reopen(MemoryEncryptedKeyStorage()).health()
    assert health.usable
    assert "no keys yet" in health.detail


@pytest.mark.parametrize("uri", ["sql:", "sql://elsewhere", "sql://?x=1", "sql"])
def test_a_uri_that_says_more_than_the_scheme_is_refused(uri):
    context = BackendContext(
        clock=FakeClock(),
        encrypted_keys=MemoryEncryptedKeyStorage(),
        key_encryption_key=KEY_ENCRYPTION_KEY,
    )
    with pytest.raises(KeysError, match="sql://"):
        open_backend(uri, context)


@pytest.mark.parametrize("missing", ["encrypted_keys", "key_encryption_key"])
def test_a_context_that_lacks_something_is_refused(missing):
    context = BackendContext(
        clock=FakeClock(),
        encrypted_keys=MemoryEncryptedKeyStorage(),
        key_encryption_key=KEY_ENCRYPTION_KEY,
    )
    with pytest.raises(KeysError, match="needs a key-encryption key and a database"):
        open_backend("sql://", replace(context, **{missing: None}))


def test_the_key_encryption_key_is_not_printed():
    context = BackendContext(clock=FakeClock(), key_encryption_key=b"k" * 32)
    assert "kkkk" not in repr(context)
