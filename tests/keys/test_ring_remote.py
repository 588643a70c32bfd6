"""Signing with remote backends, wrong clocks and unknown keys."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keys.errors import (
    BackendBroken,
    BackendError,
    BackendUnavailable,
    LifetimeExceededError,
    NoActiveKeyError,
    TokenRefusedError,
    VersionUnusable,
)
from keys.events import SignatureDiscarded, Signed, UnknownKidPresented
from keys.lifecycle.orders import Revoke
from keys.ring import KeyRings
from support.rotation import RING, URI, L, RingFixture, T

PAYLOAD = b'{"iss":"x"}'
D = 5


def sign(rings, *, lifetime_seconds=60):
    return rings.sign("ring", PAYLOAD, typ="at+jwt", lifetime_seconds=lifetime_seconds)


def open_rings(world, backends=None):
    """Return the rings of a process that counts what happens."""
    backends = {URI: world.backend} if backends is None else backends
    rings = KeyRings(
        world.store, backends, world.clock, "ring", timing=world.timing, notify=world.received
    )
    rings.refresh()
    return rings


@pytest.fixture
def world():
    world = RingFixture()
    world.tick()
    return world


@given(st.floats(-60, 60))
def test_a_process_signs_while_its_clock_is_near_the_stores(offset_seconds):
    """Invariant 5."""
    world = RingFixture()
    world.store.offset_seconds = offset_seconds
    rings = open_rings(world)
    if abs(offset_seconds) <= D:
        assert sign(rings).kid == world.key(1).kid
    else:
        with pytest.raises(BackendUnavailable, match="clock is") as error:
            sign(rings)
        assert error.value.retry_after > 0


def test_a_clock_that_was_set_right_signs_again_from_the_next_reading(world):
    token = sign(open_rings(world)).token
    world.store.offset_seconds = -D - 0.1
    rings = open_rings(world)
    with pytest.raises(BackendUnavailable):
        sign(rings)
    assert rings.verify(token).ring == "ring", "verifying needs no clock"
    world.store.offset_seconds = 0.0
    rings.refresh()
    assert sign(rings).kid == world.key(1).kid


@given(st.integers(-10, 4000))
def test_no_token_outlives_its_ring(lifetime_seconds):
    """Invariant 3."""
    rings = open_rings(RingFixture())
    if 0 < lifetime_seconds <= L:
        sign(rings, lifetime_seconds=lifetime_seconds)
    else:
        with pytest.raises(LifetimeExceededError):
            sign(rings, lifetime_seconds=lifetime_seconds)


def test_a_clock_a_little_behind_signs_with_a_key_that_another_let_sign_now(world):
    world.apply(Revoke(world.key(1).kid, "leaked"))
    world.clock.advance(-D)
    rings = open_rings(world)
    assert sign(rings).kid == world.key(2).kid
    world.clock.advance(-1)
    with pytest.raises(NoActiveKeyError):
        sign(rings)


class Swapping:
    """Signs with the newest version, whichever is asked for, as an unpinned backend would."""

    def __init__(self, backend) -> None:
        self._backend = backend

    def __getattr__(self, name):
        return getattr(self._backend, name)

    def sign(self, ring, ref, alg, inputs):
        del ref
        return self._backend.sign(
            ring, self._backend.describe_versions(ring).versions[-1].ref, alg, inputs
        )


def test_a_signature_by_another_version_is_dropped_and_told(world):
    """Invariant 6."""
    rings = open_rings(world, {URI: Swapping(world.backend)})
    with pytest.raises(BackendBroken, match="does not match the published key"):
        sign(rings)
    assert SignatureDiscarded("ring", world.key(1).kid) in world.received.all
    assert [event.result for event in world.received.of(Signed)] == ["broken"]


def test_nothing_falls_back_to_another_backend(world):
    """Invariant 12."""
    elsewhere = RingFixture(definition=replace(RING, backend_uri="other://"))
    rings = open_rings(world, {"other://": elsewhere.backend})
    with pytest.raises(BackendBroken, match="is not open"):
        sign(rings)
    world.backend.away = True
    rings = open_rings(world, {URI: world.backend, "other://": elsewhere.backend})
    with pytest.raises(BackendUnavailable, match="away"):
        sign(rings)


def test_a_key_that_is_switched_off_signs_nothing_and_stays_published(world):
    rings = open_rings(world)
    token = sign(rings).token
    world.backend.disabled = True
    with pytest.raises(VersionUnusable):
        sign(rings)
    assert rings.verify(token).kid == world.key(1).kid


def test_calls_are_counted_by_how_they_ended(world):
    rings = open_rings(world)
    sign(rings)
    for name in ("away", "disabled"):
        setattr(world.backend, name, True)
        with pytest.raises(BackendError):
            sign(rings)
        setattr(world.backend, name, False)
    told = [event[:3] for event in world.received.of(Signed)]
    assert told == [("fenced", "ES256", each) for each in ("ok", "unavailable", "unusable")]


def test_a_key_that_nobody_ever_knew_is_counted_and_one_that_was_withdrawn_is_not(world):
    rings, stranger = open_rings(world), open_rings(RingFixture())
    own, foreign = sign(rings).token, sign(stranger).token
    with pytest.raises(TokenRefusedError, match="unknown key"):
        rings.verify(foreign)
    assert len(world.received.of(UnknownKidPresented)) == 1
    world.clock.advance(T)
    world.apply(Revoke(world.key(1).kid, "leaked"))
    rings.refresh()
    with pytest.raises(TokenRefusedError, match="unknown key"):
        rings.verify(own)
    assert len(world.received.of(UnknownKidPresented)) == 1
