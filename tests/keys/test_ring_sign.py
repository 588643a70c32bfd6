"""Signing: only the active key, only in the ring's bounds, only what verifies."""

import base64
import json
from dataclasses import replace
from datetime import timedelta

import pytest

from keys.backends.local.sql import LocalBackend
from keys.errors import (
    BackendBroken,
    BackendUnavailable,
    LifetimeExceededError,
    NoActiveKeyError,
    StoreUnavailable,
    TokenTooLargeError,
)
from keys.memory import MemoryEncryptedKeyStorage
from keys.ring import KeyRings
from keys.signing_key import KeyState

PAYLOAD = b'{"iss":"https://authz.example.org","exp":1900000000}'


def sign(rings, ring="ES256", payload=PAYLOAD, lifetime_seconds=900):
    return rings.sign(ring, payload, typ="at+jwt", lifetime_seconds=lifetime_seconds)


def test_a_token_names_its_algorithm_key_and_type(ring_set):
    signed = sign(ring_set.rings)
    header, payload, _signature = signed.token.split(".")
    assert json.loads(base64.urlsafe_b64decode(header + "==")) == {
        "alg": "ES256",
        "kid": ring_set.key("ES256", 1).kid,
        "typ": "at+jwt",
    }
    assert base64.urlsafe_b64decode(payload + "==") == PAYLOAD
    assert signed.kid == ring_set.key("ES256", 1).kid


@pytest.mark.parametrize("lifetime_seconds", [3601, 10**12, 0, -1])
def test_a_life_beyond_the_rings_is_refused(ring_set, lifetime_seconds):
    with pytest.raises(LifetimeExceededError, match="3600 s of ring 'ES256'"):
        sign(ring_set.rings, lifetime_seconds=lifetime_seconds)
    assert sign(ring_set.rings, lifetime_seconds=3600)


def test_a_token_that_would_be_refused_is_not_issued(ring_set):
    payload = b'{"a":"%b"}' % (b"x" * 11_992)
    largest = sign(ring_set.rings, payload=payload)
    assert ring_set.rings.verify(largest.token).payload == payload
    with pytest.raises(TokenTooLargeError):
        sign(ring_set.rings, payload=b"x" * 12_200)


@pytest.mark.parametrize(
    "state",
    [
        KeyState.RETIRED,
        KeyState.REMOVED,
        KeyState.DESTROYED,
        KeyState.TAINTED,
        KeyState.REVOKED,
    ],
)
def test_a_key_that_is_not_live_never_signs(ring_set, state):
    ring_set.change("ES256", 1, state)
    ring_set.rings.refresh()
    assert not ring_set.rings.has_active_key("ES256")
    with pytest.raises(NoActiveKeyError):
        sign(ring_set.rings)


def test_no_request_ever_makes_a_key(empty_ring_set):
    with pytest.raises(NoActiveKeyError):
        sign(empty_ring_set.rings)
    assert empty_ring_set.storage.keys == []
    assert empty_ring_set.store.rings == {}


def test_the_standby_takes_over_at_its_time_without_anybody(ring_set):
    first, second = ring_set.key("ES256", 1).kid, ring_set.key("ES256", 2).kid
    at = ring_set.clock() + timedelta(seconds=60)
    ring_set.change("ES256", 2, KeyState.PUBLISHED, activate_at=at)
    ring_set.rings.refresh()
    old = sign(ring_set.rings)
    assert old.kid == first
    ring_set.clock.advance(60)
    new = sign(ring_set.rings)
    assert new.kid == second
    assert {ring_set.rings.verify(token.token).kid for token in (old, new)} == {first, second}


def test_a_snapshot_that_is_too_old_is_read_again_before_signing(ring_set):
    ring_set.change("ES256", 1, KeyState.REVOKED)
    ring_set.clock.advance(120)
    assert sign(ring_set.rings)
    ring_set.clock.advance(0.001)
    with pytest.raises(NoActiveKeyError):
        sign(ring_set.rings)


def test_nothing_is_signed_from_an_old_snapshot_while_the_store_is_away(ring_set, monkeypatch):
    asked = []

    def unreachable(_loaded_at):
        asked.append(1)
        raise StoreUnavailable("away")

    token = sign(ring_set.rings).token
    monkeypatch.setattr(ring_set.store, "load_rings", unreachable)
    ring_set.clock.advance(121)
    for _ in range(100):
        with pytest.raises(BackendUnavailable) as caught:
            sign(ring_set.rings)
    assert caught.value.retry_after == 5
    assert len(asked) == 1
    assert ring_set.rings.verify(token).payload == PAYLOAD
    monkeypatch.undo()
    ring_set.clock.advance(5)
    assert sign(ring_set.rings)


class ElsewhereBackend(LocalBackend):
    """A backend outside the process that can lie."""

    scheme = "elsewhere"
    caps = replace(LocalBackend.caps, in_process=False)
    lie = staticmethod(lambda signature: signature)

    def sign(self, ring, ref, alg, inputs):
        return [self.lie(signature) for signature in super().sign(ring, ref, alg, inputs)]


def open_elsewhere(ring_set, lie):
    backend = ElsewhereBackend(ring_set.storage, bytes(range(32)), ring_set.clock)
    backend.lie = lie
    rings = KeyRings(ring_set.store, {"sql://": backend}, ring_set.clock, "ES256")
    rings.refresh()
    return rings


def test_a_signature_from_elsewhere_is_verified_and_released(ring_set):
    rings = open_elsewhere(ring_set, lambda signature: signature)
    assert ring_set.rings.verify(sign(rings).token).payload == PAYLOAD


@pytest.mark.parametrize(
    "lie",
    [
        lambda signature: signature[::-1],
        lambda signature: signature[:-1],
        lambda _signature: bytes(64),
        lambda _signature: b"",
    ],
)
def test_a_wrong_signature_from_elsewhere_is_dropped(ring_set, lie):
    with pytest.raises(BackendBroken, match="does not match the published key"):
        sign(open_elsewhere(ring_set, lie))


def test_a_backend_elsewhere_that_turns_wrong_later_is_noticed(ring_set):
    lies = iter([False] * 5 + [True])
    rings = open_elsewhere(ring_set, lambda signature: bytes(64) if next(lies) else signature)
    for _ in range(5):
        assert ring_set.rings.verify(sign(rings).token)
    with pytest.raises(BackendBroken, match="does not match the published key"):
        sign(rings)


def test_a_local_key_that_is_not_the_published_one_signs_nothing(ring_set):
    other = MemoryEncryptedKeyStorage()
    backend = LocalBackend(other, bytes(32), ring_set.clock)
    backend.create("ES256", "ES256")
    rings = KeyRings(ring_set.store, {"sql://": backend}, ring_set.clock, "ES256")
    rings.refresh()
    with pytest.raises(BackendBroken, match="does not match the published key"):
        sign(rings)


def test_a_backend_that_is_not_open_is_named(ring_set):
    rings = KeyRings(ring_set.store, {}, ring_set.clock, "ES256")
    rings.refresh()
    with pytest.raises(BackendBroken, match="the backend of ring 'ES256' is not open"):
        sign(rings)


def test_a_wrong_key_encryption_key_is_logged_at_the_first_reading(ring_set, caplog):
    backend = LocalBackend(ring_set.storage, b"w" * 32, ring_set.clock)
    KeyRings(ring_set.store, {"sql://": backend}, ring_set.clock, "ES256").refresh()
    assert "another key-encryption key" in caplog.text
