"""Versions at a backend that a ring cannot use are named, and the ring goes on without them."""

from dataclasses import replace

import pytest

from keys.backend import Version
from keys.errors import KeysError
from keys.events import Alarm
from keys.lifecycle import adoption
from keys.lifecycle.first_key import create_first_key
from keys.lifecycle.orders import Freeze, Revoke, Rotate, Unfreeze
from keys.signing_key import KeyState
from support.fenced_backend import FencedBackend
from support.rotation import DAY, RING, L, P, RingFixture, T


class CopyingBackend(FencedBackend):
    """Shows further versions in a ring, as a folder or a token does into which somebody copied."""

    def __init__(self, clock) -> None:
        super().__init__(clock)
        self.copied: dict[str, list[Version]] = {}

    def describe_versions(self, ring: str):
        view = super().describe_versions(ring)
        return replace(view, versions=(*view.versions, *self.copied.get(ring, ())))


@pytest.fixture
def world() -> RingFixture:
    return RingFixture(make_backend=CopyingBackend)


def copy_of(world: RingFixture, ref: str, number: int) -> Version:
    versions = {each.ref: each for each in world.backend.describe_versions("ring").versions}
    return replace(versions[ref], ref=str(number))


def rotate_to_the_end(world: RingFixture) -> None:
    """Rotate twice; whatever was adopted signs."""
    for _ in range(2):
        world.apply(Rotate("ring", "test"))
        world.tick(P)
        world.tick(1)
        world.make_node().sign("ring", b"{}", typ="at+jwt", lifetime_seconds=L)


def test_a_version_for_another_algorithm_is_not_adopted(world):
    """It would be in no JWKS, and the ring would sign nothing from its activation on."""
    world.backend.create("ring", "ES384")
    world.tick()
    assert len(world.ring.keys) == 2
    (alarm,) = [each for each in world.received.of(Alarm) if each.event == "key.not_adopted"]
    assert "version 3" in alarm.detail
    rotate_to_the_end(world)


def test_a_key_that_another_ring_has_is_not_adopted(world):
    """A kid stands for one key of one ring; a collision must not stop the changes of a ring."""
    other = replace(RING, name="other")
    create_first_key(world.store, world.backend, other, clock=world.clock, actor="test")
    foreign = world.backend.describe_versions("other").versions[0]
    world.backend.copied["ring"] = [replace(foreign, ref="7")]
    world.tick()
    world.tick(T)
    assert 7 not in [key.version for key in world.ring.keys]
    assert "key.not_adopted" in world.received.alarms()
    assert KeyState.RETIRED in world.states(), "the ring goes on"


def test_a_key_that_the_ring_has_under_another_number_is_not_adopted(world):
    world.backend.copied["ring"] = [copy_of(world, "1", 8), copy_of(world, "2", 9)]
    world.tick()
    world.tick(T)
    assert {8, 9}.isdisjoint(key.version for key in world.ring.keys)
    assert KeyState.RETIRED in world.states(), "the ring goes on"


def test_one_new_key_under_two_numbers_is_adopted_once(world):
    made = world.backend.create("ring", "ES256")
    world.backend.copied["ring"] = [replace(made, ref="4")]
    world.tick()
    assert [key.version for key in world.ring.keys] == [1, 2, 3]


def test_an_emergency_takes_no_key_that_cannot_sign(world):
    world.backend.create("ring", "ES384")
    outcome = world.apply(Revoke(world.key(1).kid, "leak", all_versions=True))
    assert outcome.created is not None
    assert world.make_node().sign("ring", b"{}", typ="at+jwt", lifetime_seconds=L)


def adopt_blindly(world: RingFixture, monkeypatch) -> None:
    """Adopt a version of another algorithm, as earlier builds did."""
    world.backend.create("ring", "ES384")
    with monkeypatch.context() as patch:
        patch.setattr(adoption, "find_obstacle", lambda *_: "")
        world.tick()
    assert world.states()[-1] is KeyState.PUBLISHED


def test_a_version_that_an_earlier_build_adopted_and_that_cannot_sign_is_withdrawn(
    world, monkeypatch
):
    adopt_blindly(world, monkeypatch)
    world.tick(1)
    assert world.states()[2] is KeyState.REVOKED
    (alarm,) = (each for each in world.received.of(Alarm) if each.event == "key.not_adopted")
    assert "version 3 of 'ring' is withdrawn" in alarm.detail
    for _ in range(70):
        world.tick(DAY)
        world.make_node().sign("ring", b"{}", typ="at+jwt", lifetime_seconds=L)


def test_a_frozen_ring_does_not_sign_with_such_a_version_when_it_is_unfrozen(world, monkeypatch):
    adopt_blindly(world, monkeypatch)
    world.apply(Freeze("ring", "closing"))
    world.tick(T)
    world.apply(Unfreeze("ring", "over"))
    world.tick(1)
    rotate_to_the_end(world)


def test_a_build_that_does_not_know_the_algorithm_of_a_ring_withdraws_nothing(world, monkeypatch):
    monkeypatch.setattr(adoption, "_find_problem", lambda *_: "not a supported algorithm")
    world.tick(P)
    assert KeyState.REVOKED not in world.states()


class MisguidedBackend(FencedBackend):
    """Makes keys of another algorithm than that of the ring, once it is ``misguided``."""

    misguided = False

    def create(self, ring: str, alg: str):
        return super().create(ring, "ES384" if self.misguided else alg)


@pytest.fixture
def misguided() -> RingFixture:
    world = RingFixture(make_backend=MisguidedBackend)
    world.tick(P + 1)
    world.backend.misguided = True
    return world


def count_versions(world: RingFixture) -> int:
    return len(world.backend.describe_versions("ring").versions)


def test_a_version_that_cannot_be_used_is_not_made_again_at_every_tick(misguided):
    before = count_versions(misguided)
    misguided.tick(T)
    for _ in range(100):
        misguided.tick(30)
    assert count_versions(misguided) - before == 1
    assert misguided.received.alarms().count("rotation.failed") == 1
    (wait,) = (each for each in misguided.tick().plan.waits if "next version" in each.what)
    assert wait.why == "the latest one cannot be used"
    misguided.tick(3600)
    assert count_versions(misguided) - before == 2, "it is tried again later"
    misguided.backend.misguided = False
    assert misguided.tick(3600).created is not None
    assert misguided.states()[-1] is KeyState.PUBLISHED


def test_a_rotation_whose_version_cannot_be_used_says_so(misguided):
    """Once the backend is mended, the same order is carried out at once."""
    outcome = misguided.apply(Rotate("ring", "test"))
    (failure,) = outcome.failures
    assert "cannot be used: version 3 at its backend" in failure
    assert "rotation.failed" in misguided.received.alarms()
    assert not [wait for wait in outcome.plan.waits if "next version" in wait.what]
    assert len(misguided.ring.keys) == 2
    misguided.backend.misguided = False
    assert misguided.apply(Rotate("ring", "test")).failures == []
    assert [key.version for key in misguided.ring.keys] == [1, 2, 4]


def test_a_revocation_whose_new_version_cannot_be_used_says_so(misguided):
    outcome = misguided.apply(Revoke(misguided.key(1).kid, "leak", all_versions=True))
    assert any("cannot be used: version 3" in each for each in outcome.failures)
    misguided.backend.misguided = False
    misguided.tick(1)
    misguided.tick(1)
    assert misguided.make_node().sign("ring", b"{}", typ="at+jwt", lifetime_seconds=L)


@pytest.mark.parametrize("kind", ["algorithm", "copy"])
def test_a_new_ring_is_refused_with_the_version_that_is_in_its_way(world, kind):
    other = replace(RING, name="other")
    if kind == "algorithm":
        world.backend.create("other", "ES384")
        words = "other: version 1 at its backend: .*ES256"
    else:
        world.backend.create("other", "ES256")
        world.backend.copied["other"] = [copy_of(world, "1", 2)]
        words = "other: version 2 at its backend is the key of version 1 of 'ring'"
    with pytest.raises(KeysError, match=words):
        create_first_key(world.store, world.backend, other, clock=world.clock, actor="test")
