"""The judgement of a ring is the same wherever it is asked for."""

from dataclasses import replace
from datetime import timedelta

import pytest

from keys.lifecycle.calendar import draw_calendar
from keys.lifecycle.first_key import create_first_key
from keys.lifecycle.judgement import Standing, judge_ring
from keys.lifecycle.orders import Freeze, Move, Revoke
from keys.memory import empty_ring
from support.rotation import RING, P, RingFixture, T

NEW = replace(RING, name="new", backend_uri="fenced://")


@pytest.fixture
def world():
    world = RingFixture()
    world.tick()
    return world


@pytest.fixture
def moving(world):
    """A ring that another is to succeed: a day of a healthy move lies ahead."""
    world.tick(T / 2)
    create_first_key(world.store, world.backend, NEW, clock=world.clock, actor="anna", in_use=True)
    world.apply(Move("ring", "new", "move"))
    return world


def judge(world, ring="ring"):
    return judge_ring(world.store.rings[ring], world.store.rings.values(), world.clock())


def test_a_ring_with_a_signer_and_a_standby(world):
    assert judge(world).standing is Standing.SIGNING
    assert not judge(world).lacks_signer


def test_a_ring_without_a_standby(world):
    world.apply(Revoke(world.key(2).kid, "lost"))
    assert judge(world).standing is Standing.UNPREPARED
    assert not judge(world).lacks_signer


def test_a_healthy_move_is_in_order_all_along(moving):
    starts = moving.store.rings["ring"].succeeded_at
    while moving.clock() < starts:
        assert judge(moving).standing is Standing.SIGNING
        assert judge(moving, "new").standing is Standing.WAITING
        said = f"its first key signs from {starts:%Y-%m-%dT%H:%M:%SZ}"
        assert judge(moving, "new").detail == said
        rings = moving.make_node()
        assert not rings.judge("new").lacks_signer
        assert rings.why_not_ready("ring") == ""
        moving.clock.advance(P / 8)
    assert judge(moving).standing is Standing.SUCCEEDED
    assert judge(moving, "new").standing is Standing.SIGNING


def test_a_ring_signs_on_while_its_successor_is_held(moving):
    """Its move is due by the clock alone: the successor is frozen before it has signed."""
    moving.apply(Freeze("new", "not yet"))
    moving.tick(P + 60)
    ring = moving.store.rings["ring"]
    assert ring.is_move_due(moving.clock())
    assert judge(moving).standing is Standing.SIGNING
    assert moving.make_node().judge("ring").standing is Standing.SIGNING
    rings = moving.store.rings.values()
    calendar = draw_calendar(ring, rings, moving.timing, moving.clock())
    (signing,) = (row for row in calendar.rows if row.signs)
    assert signing.spans[-1].ends_at is None or signing.spans[-1].ends_at > moving.clock()
    waits = {wait.what: wait.why for wait in moving.tick().plan.waits}
    assert any("begins to sign" in what for what in waits)
    assert waits["new signs instead"] == "new has no key that may sign yet"


def test_a_ring_whose_first_key_was_withdrawn_before_it_signed_waits(moving):
    moving.apply(Revoke(moving.store.rings["new"].keys[0].kid, "lost"))
    moving.rotator.tick("new", actor="test")
    assert judge(moving, "new").standing is Standing.WAITING


def test_a_ring_whose_signer_was_withdrawn_is_not(world):
    world.backend.away = True
    for version in (1, 2):
        world.apply(Revoke(world.key(version).kid, "lost"))
    judgement = judge(world)
    assert (judgement.standing, judgement.detail) == (Standing.IDLE, "no key may sign")
    assert judgement.lacks_signer
    assert world.make_node().judge("ring") == judgement


def test_a_ring_that_has_to_wait_after_it_has_signed_is_not(world):
    later = world.clock() + timedelta(hours=1)
    keys = (
        replace(world.key(1), state="revoked", stopped_at=world.clock()),
        replace(world.key(2), activate_at=later),
    )
    judgement = judge_ring(replace(world.ring, keys=keys), (), world.clock())
    assert judgement.standing is Standing.IDLE
    assert judgement.detail == f"no key may sign before {later:%Y-%m-%dT%H:%M:%SZ}"


def test_a_ring_without_keys(world):
    assert judge_ring(empty_ring(RING), (), world.clock()).standing is Standing.EMPTY
    assert world.make_node().judge("another").lacks_signer
