"""Rotations by the clock and by order, on a backend that can do everything."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta

import pytest

from keys.errors import BackendUnavailable, InvariantError, OrderRefusedError
from keys.lifecycle.first_key import create_first_key
from keys.lifecycle.invariants import require_invariants
from keys.lifecycle.orders import Move, Rotate
from keys.lifecycle.state import NO_PERMISSIONS, Readiness, RotationMode
from keys.signing_key import KeyState
from support.rotation import DAY, RING, L, P, RingFixture, T

S = KeyState
PAYLOAD = b'{"iss":"x"}'


def sign(node):
    return node.sign("ring", PAYLOAD, typ="at+jwt", lifetime_seconds=L)


@pytest.fixture
def world():
    world = RingFixture()
    world.tick()
    return world


def test_the_standby_signs_after_the_interval_and_a_new_one_is_made(world):
    """Case G75."""
    assert world.states() == [S.ACTIVE, S.PUBLISHED]
    assert world.key(2).activate_at == world.key(1).activate_at + timedelta(seconds=T)
    world.tick(T - 1)
    assert world.states() == [S.ACTIVE, S.PUBLISHED]
    world.tick(1)
    assert world.states() == [S.RETIRED, S.ACTIVE, S.PUBLISHED]
    assert (world.key(2).activate_at - world.key(2).published_at).total_seconds() >= P
    assert world.backend.created == 3


def test_the_change_over_needs_nobody_alive(world):
    node = world.make_node()
    assert sign(node).kid == world.key(1).kid
    world.clock.advance(T)
    assert sign(node).kid == world.key(2).kid
    assert world.states() == [S.ACTIVE, S.PUBLISHED], "nobody has recorded it"


def test_a_retired_key_stays_until_its_last_token_has_expired(world):
    """Case G76."""
    world.tick(T)
    world.tick(60)
    retired = world.key(1)
    assert retired.fenced_at == world.clock()
    assert world.backend.sign_floor["ring"] == 2
    assert (retired.remove_after - retired.fenced_at).total_seconds() == L + 60 + 5
    world.tick(L + 64)
    assert world.states()[0] is S.RETIRED
    world.tick(1)
    assert world.states()[0] is S.REMOVED


def test_without_a_fence_the_oldest_reading_is_waited_for():
    world = RingFixture(permissions=NO_PERMISSIONS)
    world.rotator = world.make_rotator(permissions=NO_PERMISSIONS)
    world.tick()
    world.tick(T)
    retired = world.key(1)
    assert retired.fenced_at is None
    assert (retired.remove_after - retired.stopped_at).total_seconds() == L + 60 + 5 + 120


def test_an_operators_rotation_lets_the_standby_sign_once_it_was_published_long_enough(world):
    outcome = world.apply(Rotate("ring", "quarterly"))
    assert outcome.created.ref == "3"
    standby = world.key(2)
    assert (standby.activate_at - standby.published_at).total_seconds() == P
    assert world.key(3).activate_at > standby.activate_at
    world.tick(P)
    assert world.states() == [S.RETIRED, S.ACTIVE, S.PUBLISHED]


def test_a_dry_run_changes_nothing_and_says_what_would_happen(world):
    before = world.ring
    outcome = world.apply(Rotate("ring", "why not"), dry_run=True)
    assert world.ring == before
    assert world.backend.created == 2
    assert outcome.plan.create
    assert any("begins to sign" in wait.what for wait in outcome.plan.waits)


def test_a_version_made_in_the_backend_by_others_is_adopted():
    """Case G77."""
    world = RingFixture(mode=RotationMode.EXTERNAL)
    world.rotator = world.make_rotator(permissions=NO_PERMISSIONS)
    world.tick(DAY)
    assert world.states() == [S.ACTIVE, S.PUBLISHED]
    assert world.key(2).activate_at is None, "in this drive only a newer version lets it sign"
    world.backend.create("ring", "ES256")
    world.tick()
    assert world.key(2).activate_at == world.clock(), "published long enough"
    world.tick(1)
    assert world.states() == [S.RETIRED, S.ACTIVE, S.PUBLISHED]


def test_a_crash_between_making_and_publishing_heals(world):
    world.tick(T)
    world.backend.create("ring", "ES256")
    world.tick()
    assert [key.version for key in world.ring.keys] == [1, 2, 3, 4]
    assert (world.key(3).activate_at - world.key(3).published_at).total_seconds() == P


def test_of_many_rotators_at_once_one_makes_the_version(world):
    """Case G77."""
    rotators = [world.make_rotator() for _ in range(6)]
    for round_number in range(20):
        world.clock.advance(T)
        made = world.backend.created
        with ThreadPoolExecutor(6) as pool:
            list(pool.map(lambda rotator: rotator.tick("ring", actor="test"), rotators))
        assert world.backend.created == made + 1, round_number
        assert sum(state is S.ACTIVE for state in world.states()) == 1
    assert len({key.kid for key in world.ring.keys}) == len(world.ring.keys)


def test_of_two_orders_at_once_one_rotates(world):
    """Case G77."""
    rotators = [world.make_rotator() for _ in range(4)]

    def rotate(rotator):
        try:
            return rotator.apply(Rotate("ring", "order"), actor="anna")
        except OrderRefusedError:
            return None

    with ThreadPoolExecutor(4) as pool:
        done = [outcome for outcome in pool.map(rotate, rotators) if outcome]
    assert len(done) == world.backend.created - 2 == 1


def test_a_failed_rotation_changes_nothing_that_signing_depends_on(world):
    """Case G79."""
    world.tick(T)
    before = list(world.ring.keys)
    world.backend.away = True
    with pytest.raises(BackendUnavailable):
        world.apply(Rotate("ring", "order"))
    assert list(world.ring.keys) == before
    assert world.ring.claimed_until is None
    world.tick(60)
    assert "rotation.failed" in world.received.alarms()
    world.backend.away = False
    world.apply(Rotate("ring", "order"))
    assert len(world.ring.keys) == len(before) + 1


def test_a_late_reading_removes_nothing_and_makes_no_second_version(world):
    world.backend.late = 1
    world.tick(T)
    assert len(world.ring.keys) == 3
    world.tick(60)
    world.tick(60)
    assert world.backend.created == 3
    assert world.states() == [S.RETIRED, S.ACTIVE, S.PUBLISHED]


def test_a_key_that_the_backend_shows_differently_is_not_believed(world):
    world.backend.exchange_keys(RingFixture().backend)
    world.tick()
    assert "key.not_adopted" in world.received.alarms()
    assert len(world.ring.keys) == 2


def test_a_raised_signing_floor_is_an_emergency_activation(world):
    world.backend.sign_floor["ring"] = 2
    world.tick(60)
    assert world.states()[:2] == [S.RETIRED, S.ACTIVE]
    assert world.key(2).reason == "the backend signs nothing below version 2"
    assert "emergency.exception" in world.events()
    assert "floor.changed_externally" in world.received.alarms()


def test_activation_waits_for_verifiers_where_the_gate_is_binding():
    world = RingFixture(readiness=Readiness(missing=("bank 10.0.0.0/24",), binding=True))
    world.tick(T)
    assert world.states() == [S.ACTIVE, S.PUBLISHED]
    assert world.key(2).activate_at is None
    world.readiness = Readiness(binding=True)
    world.tick(60)
    world.tick(1)
    assert world.states() == [S.RETIRED, S.ACTIVE, S.PUBLISHED]


def test_activation_waits_for_a_live_node_that_lags_behind(world):
    world.tick(T - 30)
    world.clock.advance(25)
    world.store.report_node("laggard", {"ring": world.ring.epoch - 1}, 0.0)
    outcome = world.tick()
    assert [alarm.event for alarm in outcome.plan.alarms] == ["node.behind"]
    world.tick(5)
    assert world.states() == [S.ACTIVE, S.PUBLISHED]
    world.tick(600)
    assert world.states() == [S.RETIRED, S.ACTIVE, S.PUBLISHED], "it is not live any more"


def test_the_fence_waits_for_a_node_that_lags_behind(world):
    world.tick(T)
    world.store.report_node("laggard", {"ring": world.ring.epoch - 1}, 0.0)
    world.tick(60)
    assert "ring" not in world.backend.sign_floor
    world.tick(60)
    assert world.backend.sign_floor["ring"] == 2, "no reading can be that old"


def test_new_durations_of_the_settings_are_taken_over(world):
    longer = replace(RING, prepublication_seconds=2 * DAY)
    world.definition = longer
    world.rotator = world.make_rotator()
    world.tick(1)
    assert world.ring.prepublication_seconds == 2 * DAY
    assert "ring.configured" in world.events()


def test_a_ring_is_succeeded_once_verifiers_know_the_successors_key(world):
    successor = replace(RING, name="other")
    other = replace(world.ring, name="other", keys=(), epoch=0)
    world.store.rings["other"] = other
    with pytest.raises(OrderRefusedError, match="no key that is planned"):
        world.apply(Move("ring", "other", "to Vault"))
    create_first_key(
        world.store, world.backend, successor, clock=world.clock, actor="anna", in_use=True
    )
    far = world.clock() + timedelta(days=3_651)
    with pytest.raises(OrderRefusedError, match="more than 3650 days from now"):
        world.apply(Move("ring", "other", "to Vault", at=far))
    outcome = world.apply(Move("ring", "other", "to Vault"))
    assert outcome.plan.waits[-1].until == world.ring.succeeded_at
    assert (world.ring.succeeded_at - world.clock()).total_seconds() == P
    node = world.make_node()
    assert sign(node).kid == world.key(1).kid
    world.clock.advance(P)
    assert sign(node).kid == world.store.rings["other"].keys[0].kid
    world.tick()
    assert world.states() == [S.RETIRED, S.RETIRED]
    world.tick(L + 65 + 120)
    assert world.states() == [S.REMOVED, S.REMOVED]
    assert not any("no_standby" in alarm for alarm in world.received.alarms())


def test_every_change_of_state_has_exactly_one_event(world):
    """Invariant 10."""
    world.tick(T)
    world.tick(60)
    events = [
        (change.key.kid, change.event)
        for change in world.store.events
        if hasattr(change, "key") and change.event in {"key.activated", "key.retired"}
    ]
    first, second = world.key(1).kid, world.key(2).kid
    assert events == [
        (first, "key.activated"),
        (first, "key.retired"),
        (second, "key.activated"),
    ]


@pytest.mark.parametrize(
    ("number", "change"),
    [
        (1, {"activate_at": True}),
        (2, {"state": S.REMOVED}),
        (4, {"state": S.ACTIVE}),
        (7, {"kid": "another"}),
        (7, {"state": S.DESTROYED}),
    ],
)
def test_a_change_that_breaks_a_rule_is_refused_by_its_number(world, number, change):
    key = world.key(2)
    if "activate_at" in change:
        change = {"activate_at": world.clock()}
    if change.get("state") is S.REMOVED:
        key = replace(key, state=S.RETIRED)
        world.store.rings["ring"] = replace(world.ring, keys=(world.key(1), key))
    broken = replace(key, **change)
    with pytest.raises(InvariantError) as error:
        require_invariants(world.ring, (world.key(1), broken), world.timing, world.clock())
    assert error.value.number == number
