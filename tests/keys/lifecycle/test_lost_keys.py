"""A backend that has lost a ring's keys, or has other ones there: none is made in their place."""

from dataclasses import replace

import pytest

from keys.errors import BackendDenied
from keys.lifecycle.orders import Revoke, Rotate
from keys.signing_key import KeyState
from support.rotation import RingFixture, T


@pytest.fixture
def world():
    world = RingFixture()
    world.tick()
    return world


def lose_every_version(world) -> None:
    world.backend.hidden = {1, 2, 3, 4}


def test_an_order_to_rotate_makes_no_key_under_the_name_of_a_lost_one(world):
    """The lost key could not be restored then; and the ring would not adopt the other one."""
    lose_every_version(world)
    made, before = world.backend.created, list(world.ring.keys)
    with pytest.raises(BackendDenied, match="no version of ring any more"):
        world.apply(Rotate("ring", "order"))
    assert world.backend.created == made
    assert list(world.ring.keys) == before
    assert world.ring.claimed_until is None
    world.backend.hidden = set()
    world.apply(Rotate("ring", "order"))
    assert len(world.ring.keys) == len(before) + 1


def test_the_clock_makes_none_either(world):
    world.tick(T)  # the standby has become active
    made = world.backend.created
    lose_every_version(world)
    before = len(world.events())
    for _ in range(3):
        outcome = world.tick(T)
        assert any("shows no version of ring any more" in each for each in outcome.failures)
    assert world.backend.created == made
    # Each minute, on each node, until somebody restores them.
    assert "ring.version_ordered" not in world.events()[before:]
    assert "backend.disabled" in world.received.alarms()


def test_an_emergency_revokes_without_the_other_key_and_says_so(world):
    lose_every_version(world)
    made = world.backend.created
    world.apply(Revoke(world.key(2).kid, "leaked"))
    outcome = world.apply(Revoke(world.key(1).kid, "leaked"))
    assert world.states() == [KeyState.REVOKED, KeyState.REVOKED]
    assert world.backend.created == made
    assert any("shows no version of ring any more" in each for each in outcome.failures)


def test_a_version_made_under_a_known_number_is_reported_as_unusable(world, monkeypatch):
    """As in a store that was restored from an older copy, and counts on from there."""
    made = replace(RingFixture().backend.create("ring", "ES256"), ref="2")
    monkeypatch.setattr(world.backend, "create", lambda _ring, _alg: made)
    outcome = world.apply(Rotate("ring", "order"))
    assert any("the version made cannot be used" in each for each in outcome.failures)
    assert "rotation.failed" in world.received.alarms()
    assert len(world.ring.keys) == 2


def test_a_tick_makes_no_standby_where_the_backend_has_other_keys(world):
    """And goes on with the rest of its work."""
    world.backend.exchange_keys(RingFixture().backend)
    world.clock.advance(T)
    made = world.backend.created
    outcome = world.tick()
    assert world.key(2).state is KeyState.ACTIVE
    assert world.backend.created == made
    assert any("is another key" in each for each in outcome.failures)
    assert "key.not_adopted" in world.received.alarms()
