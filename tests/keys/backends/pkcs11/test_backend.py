"""Keys on a PKCS#11 token: the contract on SoftHSM, what is adopted, what is not."""

from contextlib import suppress
from dataclasses import replace
from datetime import timedelta
from itertools import count

import pkcs11
import pytest
from pkcs11 import Attribute, ObjectClass

from keys.backend import Fences
from keys.backends.pkcs11.backend import UNFINISHED_LIFETIME
from keys.backends.registry import BackendContext
from keys.errors import BackendBroken, BackendDenied, KeysError, VersionUnusable
from keys.jose.algorithms import get_algorithm
from keys.jose.jwk import load_public_key
from keys.jose.signatures import make_verifier
from keys.testing import KeyBackendContract
from support.clock import FakeClock
from support.opened_backends import open_backend
from support.softhsm import make_foreign_key, on_token

RING = "ring"
_labels = count()


@pytest.fixture
def token(softhsm):
    """A token without keys."""
    return softhsm.add_token(f"token-{next(_labels)}")


@pytest.fixture
def clock():
    return FakeClock()


@pytest.fixture
def backend(token, clock):
    return open_backend(token.uri(), BackendContext(clock=clock))


class TestPkcs11Backend(KeyBackendContract):
    @pytest.fixture
    def backend(self, token):
        return open_backend(token.uri(), BackendContext(clock=FakeClock()))


class TestPkcs11BackendWithEdwardsKeys(KeyBackendContract):
    alg = "EdDSA"

    @pytest.fixture
    def backend(self, token):
        return open_backend(token.uri(), BackendContext(clock=FakeClock()))


def labels_on(token):
    def work(session):
        private = {Attribute.CLASS: ObjectClass.PRIVATE_KEY}
        return sorted(key[Attribute.LABEL] for key in list(session.get_objects(private)))

    return on_token(token, work)


def test_it_offers_every_algorithm_that_the_token_can_do(backend):
    backend.health()
    assert backend.caps.algs == {"ES256", "ES384", "ES512", "RS256", "PS256", "EdDSA"}
    assert not backend.caps.in_process
    assert not isinstance(backend, Fences)


def test_a_private_key_never_leaves_the_token(backend, token):
    for alg in ("ES256", "RS256", "EdDSA"):
        backend.create(alg.lower(), alg)

    def work(session):
        keys = list(session.get_objects({Attribute.CLASS: ObjectClass.PRIVATE_KEY}))
        assert len(keys) == 3
        for key in keys:
            assert key[Attribute.SENSITIVE]
            assert key[Attribute.ALWAYS_SENSITIVE]
            assert not key[Attribute.EXTRACTABLE]
            assert key[Attribute.NEVER_EXTRACTABLE]
            for secret in (Attribute.VALUE, Attribute.PRIVATE_EXPONENT):
                with pytest.raises(pkcs11.PKCS11Error):
                    key[secret]
            for power in (Attribute.DECRYPT, Attribute.UNWRAP, Attribute.DERIVE):
                assert not key[power]

    on_token(token, work)


@pytest.mark.parametrize(
    ("private", "sentence"),
    [
        ({Attribute.EXTRACTABLE: True}, "is extractable"),
        ({Attribute.SENSITIVE: False}, "is not sensitive"),
        ({Attribute.SIGN: False}, "is not for signing"),
    ],
)
def test_a_key_that_could_leave_the_token_is_not_adopted(backend, token, caplog, private, sentence):
    first = backend.create(RING, "ES256")
    make_foreign_key(token, f"{RING}-2", private=private)
    assert backend.describe_versions(RING).versions == (first,)
    assert sentence in caplog.text
    with pytest.raises(BackendBroken, match=sentence):
        backend.sign(RING, "2", "ES256", [b"data"])
    assert backend.create(RING, "ES256").ref == "3"


def test_a_key_that_was_extractable_once_is_not_adopted(backend, token, caplog):
    make_foreign_key(
        token, f"{RING}-1", private={Attribute.EXTRACTABLE: True, Attribute.SENSITIVE: False}
    )

    def close(session):
        (key,) = list(session.get_objects({Attribute.CLASS: ObjectClass.PRIVATE_KEY}))
        key[Attribute.EXTRACTABLE] = False
        key[Attribute.SENSITIVE] = True

    on_token(token, close)
    assert backend.describe_versions(RING).versions == ()
    assert "was not always sensitive" in caplog.text


def test_a_key_that_an_operator_made_on_the_token_is_adopted(backend, token, clock):
    make_foreign_key(token, f"{RING}-1")
    (version,) = backend.describe_versions(RING).versions
    assert (version.ref, version.created_at) == ("1", clock())
    clock.advance(60)
    assert backend.describe_versions(RING).versions == (version,)
    (signature,) = backend.sign(RING, "1", "ES256", [b"data"])
    public = load_public_key(version.jwk, "ES256")
    make_verifier(public, get_algorithm("ES256"))(signature, b"data")
    assert backend.create(RING, "ES256").ref == "2"


def test_the_day_that_an_operator_gave_a_key_is_its_beginning(backend, token, clock):
    make_foreign_key(token, f"{RING}-1", public={Attribute.START_DATE: clock()})
    (version,) = backend.describe_versions(RING).versions
    assert version.created_at == clock().replace(hour=0, minute=0, second=0, microsecond=0)


def test_two_keys_under_one_label_are_an_alarm(backend, token, caplog):
    make_foreign_key(token, f"{RING}-1", key_id=b"a")
    make_foreign_key(token, f"{RING}-1", key_id=b"b")
    with pytest.raises(BackendBroken, match="2 private keys"):
        backend.sign(RING, "1", "ES256", [b"data"])
    assert backend.describe_versions(RING).versions == ()
    assert "2 private keys" in caplog.text


def test_a_private_key_without_its_public_half_is_not_adopted(backend, token, caplog):
    make_foreign_key(token, f"{RING}-1", public=None)
    second = backend.create(RING, "ES256")
    view = backend.describe_versions(RING)
    assert view.versions == (second,)
    assert "0 public keys" in caplog.text
    # A floor at 2 would be read as the order to revoke 1.
    assert (view.sign_floor, view.verify_floor) == (None, None)


@pytest.mark.parametrize("label", [f"{RING}-01", f"{RING}-0", f"{RING}-x", f"{RING}1", "xring-1"])
def test_other_labels_are_other_keys(backend, token, label):
    make_foreign_key(token, label)
    assert backend.describe_versions(RING).versions == ()


def test_rings_whose_names_begin_alike_are_apart(backend):
    backend.create("a", "ES256")
    backend.create("a-1", "ES256")
    assert [version.ref for version in backend.describe_versions("a").versions] == ["1"]
    assert [version.ref for version in backend.describe_versions("a-1").versions] == ["1"]
    assert backend.describe_versions("a").versions != backend.describe_versions("a-1").versions


def test_a_uri_with_a_label_is_for_one_ring(token):
    context = BackendContext(clock=FakeClock(), ring=RING)
    backend = open_backend(token.uri("oidc keys"), context)
    assert backend.create(RING, "ES256").ref == "1"
    assert labels_on(token) == ["oidc keys-1"]
    assert backend.describe_versions("another").versions == ()
    with pytest.raises(VersionUnusable):
        backend.sign("another", "1", "ES256", [b"data"])
    with pytest.raises(BackendDenied, match="not for the ring 'another'"):
        backend.create("another", "ES256")
    with pytest.raises(VersionUnusable):
        backend.destroy("another", "1")
    with pytest.raises(KeysError, match="needs the name of a ring"):
        open_backend(token.uri("oidc keys"), replace(context, ring=""))


def test_what_a_broken_off_maker_left_is_deleted_in_the_end(token, backend, clock, monkeypatch):
    def die(*_arguments, **_named):
        raise KeyboardInterrupt

    monkeypatch.setattr("keys.backends.pkcs11.backend.take_number", die)
    with suppress(KeyboardInterrupt):
        backend.create(RING, "ES256")
    monkeypatch.undo()
    clock.advance(UNFINISHED_LIFETIME / timedelta(seconds=1))
    assert backend.create(RING, "ES256").ref == "1"
    assert labels_on(token) == [f"{RING}-1", f"{RING}~draft"]
    clock.advance(1)
    assert backend.create(RING, "ES256").ref == "2"
    assert labels_on(token) == [f"{RING}-1", f"{RING}-2"]
