"""A machine whose clock is off neither signs nor changes a ring."""

from datetime import timedelta

import pytest

from keys.errors import ClockOffError
from keys.lifecycle.first_key import create_first_key
from keys.lifecycle.orders import (
    Activate,
    Destroy,
    Freeze,
    Move,
    Prune,
    Revoke,
    Rotate,
    Taint,
    Unfreeze,
)
from keys.memory import MemoryKeyStore
from keys.signing_key import KeyState, RingDefinition
from support.clock import FakeClock
from support.fenced_backend import FencedBackend
from support.rotation import DAY, RING, L, P, RingFixture, T

HOUR = 3_600
S = KeyState


@pytest.fixture
def world():
    """A ring a day before its standby takes over."""
    world = RingFixture()
    world.tick()
    world.tick(T - DAY)
    return world


def set_ahead(world, seconds: float) -> None:
    """Set this machine's clock ahead; the store's stays."""
    world.clock.advance(seconds)
    world.store.offset_seconds -= seconds


def rotate(world, **options):
    return world.apply(Rotate("ring", "x"), **options)


def activate(world, **options):
    return world.apply(Activate(world.key(2).kid, "x", emergency=True), **options)


def succeed(world, **options):
    world.store.rings["other"] = world.ring
    return world.apply(Move("ring", "other", "x"), **options)


def tick(world, **options):
    return world.rotator.tick("ring", actor="server", **options)


def prune(world, **options):
    return world.apply(Prune("ring"), **options)


def destroy(world, **options):
    return world.apply(Destroy("ring", "x"), **options)


def unfreeze(world, **options):
    return world.apply(Unfreeze("ring", "x"), **options)


PLANS = [tick, rotate, activate, succeed, prune, destroy, unfreeze]
OFFSETS = [HOUR, -HOUR, 30 * DAY, 5.1, -5.1]


@pytest.mark.parametrize("dry_run", [False, True])
@pytest.mark.parametrize("offset", OFFSETS)
@pytest.mark.parametrize("plan", PLANS)
def test_no_ring_is_changed_and_it_is_an_alarm(world, plan, offset, dry_run):
    set_ahead(world, offset)
    before, created = world.ring, world.backend.created
    for _ in range(2):
        with pytest.raises(ClockOffError, match="this machine's clock is"):
            plan(world, dry_run=dry_run)
    assert world.ring == before
    assert world.backend.created == created
    assert world.backend.sign_floor == {}
    assert world.received.alarms() == ["clock.off"]


@pytest.mark.parametrize("plan", PLANS)
def test_within_the_tolerance_the_stores_time_is_what_counts(world, plan):
    set_ahead(world, 4)
    world.apply(Freeze("ring", "x"))
    if plan is unfreeze:
        unfreeze(world)
    stored = world.clock() - timedelta(seconds=4)
    assert {change.at for change in world.store.events[-1:]} == {stored}
    assert world.received.alarms() == []


def test_a_key_is_not_activated_before_its_time_by_a_clock_that_is_ahead(world):
    rotate(world)
    planned = world.key(2).activate_at
    set_ahead(world, HOUR)
    with pytest.raises(ClockOffError):
        tick(world)
    set_ahead(world, -HOUR)
    world.tick(DAY - 59 * 60)
    assert world.key(2).activate_at == planned


def test_a_key_within_the_tolerance_is_published_by_the_stores_time(world):
    set_ahead(world, -4)
    rotate(world)
    made = world.key(3)
    assert made.published_at == world.clock() + timedelta(seconds=4)
    assert (world.key(2).activate_at - world.key(2).published_at).total_seconds() >= P


def test_nothing_is_removed_before_its_time(world):
    world.tick(DAY)
    world.tick(60)
    assert world.states()[0] is S.RETIRED
    set_ahead(world, 2 * HOUR)
    for plan in (tick, prune):
        with pytest.raises(ClockOffError):
            plan(world)
    assert world.states()[0] is S.RETIRED
    set_ahead(world, -2 * HOUR)
    world.tick(L + 70)
    assert world.states()[0] is S.REMOVED


def test_nothing_is_removed_early_by_a_clock_within_the_tolerance(world):
    world.tick(DAY)
    world.tick(60)
    left = (world.key(1).remove_after - world.clock()).total_seconds()
    set_ahead(world, 4)
    world.tick(left - 1)
    assert world.states()[0] is S.RETIRED
    world.tick(1)
    assert world.states()[0] is S.REMOVED


STOPS = {
    "revoke": lambda world, **options: world.apply(Revoke(world.key(1).kid, "leaked"), **options),
    "revoke all": lambda world, **options: world.apply(
        Revoke(world.key(1).kid, "leaked", all_versions=True), **options
    ),
    "taint": lambda world, **options: world.apply(Taint(world.key(1).kid, "unsure"), **options),
    "freeze": lambda world, **options: world.apply(Freeze("ring", "unsure"), **options),
}


@pytest.mark.parametrize("offset", OFFSETS)
@pytest.mark.parametrize("stop", STOPS)
def test_an_emergency_goes_on_by_the_stores_time_and_is_an_alarm(world, stop, offset):
    now = world.clock()
    set_ahead(world, offset)
    outcome = STOPS[stop](world)
    assert outcome.written
    assert {event.at for event in world.store.events[-1:]} == {now}
    assert world.received.alarms() == ["clock.off"]
    set_ahead(world, -offset)
    if stop != "freeze":
        assert world.states()[0] in {S.REVOKED, S.TAINTED}
        node = world.make_node()
        assert node.sign("ring", b"{}", typ="at+jwt", lifetime_seconds=60).kid != world.key(1).kid


def test_a_clock_that_went_back_behind_the_last_change_moves_nothing(world):
    """As where the database has no clock but this machine's: SQLite."""
    rotate(world)
    before = world.ring
    world.clock.advance(-HOUR)
    for plan in (tick, activate, prune):
        with pytest.raises(ClockOffError, match="before the last change"):
            plan(world)
    assert world.ring == before
    assert world.received.alarms() == ["clock.off"]
    assert STOPS["revoke"](world).written
    world.clock.advance(HOUR)
    world.tick()


def test_a_clock_that_is_right_again_plans_again(world):
    set_ahead(world, HOUR)
    with pytest.raises(ClockOffError):
        tick(world)
    set_ahead(world, -HOUR)
    world.tick(DAY)
    assert world.states() == [S.RETIRED, S.ACTIVE, S.PUBLISHED]


@pytest.mark.parametrize("offset", OFFSETS)
def test_what_people_withdraw_in_the_vault_is_followed(world, offset):
    """It stops a key, so it is an emergency too."""
    now, created = world.clock(), world.backend.created
    set_ahead(world, offset)
    world.backend.verify_floor["ring"] = 2
    with pytest.raises(ClockOffError):
        tick(world)
    assert world.states() == [S.REVOKED, S.PUBLISHED]
    assert (world.key(1).revoked_at, world.key(2).activate_at) == (now, now)
    assert world.backend.created == created, "no standby is made"
    assert world.received.alarms() == ["clock.off", "floor.changed_externally"]
    before = world.ring
    with pytest.raises(ClockOffError):
        tick(world)
    assert world.ring == before
    set_ahead(world, -offset)
    world.tick()
    assert world.states() == [S.REVOKED, S.ACTIVE, S.PUBLISHED]


def test_what_people_withdraw_is_followed_by_itself(world):
    """A clock that leapt plans nothing else."""
    world.backend.verify_floor["ring"] = 2
    world.clock.advance(2 * DAY)
    world.rotator.withdraw("ring", actor="server")
    assert world.states() == [S.REVOKED, S.PUBLISHED]


@pytest.mark.parametrize("offset", OFFSETS)
def test_no_first_key_is_made(offset):
    clock = FakeClock()
    store, backend = MemoryKeyStore(clock), FencedBackend(clock)
    store.offset_seconds = offset
    world = RingFixture()
    with pytest.raises(ClockOffError):
        create_first_key(store, backend, RING, clock=clock, actor="anna", notify=world.received)
    assert backend.created == 0
    assert store.events == []
    assert world.received.alarms() == ["clock.off"]


def test_first_keys_are_dated_by_the_stores_time_and_the_tolerance_is_a_setting():
    clock = FakeClock()
    store, backend = MemoryKeyStore(clock), FencedBackend(clock)
    store.offset_seconds = 60
    definition = RingDefinition(name="ring", alg="ES256", backend_uri="fenced://")
    create_first_key(
        store, backend, definition, clock=clock, actor="anna", clock_tolerance_seconds=60
    )
    (ring,) = store.load_rings(clock())
    assert {key.published_at for key in ring.keys} == {clock() + timedelta(seconds=60)}


@pytest.mark.parametrize("plan", [tick, rotate, activate, prune, *STOPS.values()])
def test_a_dry_run_does_not_look_for_leaps_which_would_store_the_state_of_the_clock(world, plan):
    def store(*_):
        pytest.fail("something is stored")

    world.rotator = world.make_rotator(require_steady=store, limit=store)
    plan(world, dry_run=True)
