"""Moves of a ring meet freezes, nodes that lag, withdrawn keys: something always signs."""

from contextlib import suppress
from dataclasses import replace
from datetime import timedelta

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from keys.errors import NoActiveKeyError, OrderRefusedError
from keys.lifecycle.first_key import create_first_key
from keys.lifecycle.orders import Activate, Freeze, Move, Prune, Revoke, Rotate, Unfreeze
from keys.lifecycle.rules import succeeded_since
from keys.lifecycle.state import ALL_PERMISSIONS, RingRules
from keys.signing_key import KeyState
from support.rotation import DAY, RING, L, P, RingFixture, T

NEW = replace(RING, name="new")
THIRD = replace(RING, name="third")
NAMES = ("ring", "new", "third")


class ThreeRings(RingFixture):
    """The ring, and the rings ``new`` and ``third``, which have not signed, at one backend."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.add(THIRD)
        self.add(NEW)

    def add(self, ring) -> None:
        create_first_key(
            self.store, self.backend, ring, clock=self.clock, actor="test", in_use=True
        )

    def make_rotator(self, **parts):
        rotator = super().make_rotator(**parts)
        rules = {
            each.name: RingRules(definition=each, permissions=ALL_PERMISSIONS)
            for each in (RING, NEW, THIRD)
        }
        rotator._reader._rules = rules  # noqa: SLF001 - the fixture knows one ring
        return rotator

    def tick_all(self, seconds: float = 0.0) -> None:
        """Let time pass, then tick all rings."""
        self.clock.advance(seconds)
        for name in NAMES:
            self.rotator.tick(name, actor="test")

    def signer(self) -> str:
        """Return the ring of the key with which a node signs for ``ring``."""
        kid = self.sign(self.make_node())
        return next(
            name for name, ring in self.store.rings.items() if kid in {k.kid for k in ring.keys}
        )

    def sign(self, node) -> str:
        return node.sign("ring", b"{}", typ="at+jwt", lifetime_seconds=L).kid


@pytest.fixture
def world() -> ThreeRings:
    return ThreeRings()


def test_a_frozen_ring_goes_on_signing_when_its_move_was_planned(world):
    """Its scheduled changes stop; after it, the move is ordered again."""
    world.apply(Move("ring", "new", "to Vault"))
    world.apply(Freeze("ring", "closing"))
    assert world.store.events[-1].reason == "closing (the move to new is cancelled)"
    world.tick_all(P + 600)
    assert world.signer() == "ring"
    with pytest.raises(OrderRefusedError, match="ring is frozen"):
        world.apply(Move("ring", "new", "to Vault"))
    world.apply(Unfreeze("ring", "over"))
    world.apply(Move("ring", "new", "to Vault"))
    world.tick_all(1)
    assert world.signer() == "new"


def test_a_move_that_nodes_may_be_acting_on_is_not_taken_back(world):
    world.apply(Move("ring", "new", "to Vault"))
    world.clock.advance(P - 5)
    outcome = world.apply(Freeze("ring", "closing"))
    assert [wait.what for wait in outcome.plan.waits] == ["new signs instead"]
    world.clock.advance(5)
    assert world.signer() == "new"


def test_a_freeze_cancels_a_move_that_is_due_but_has_not_happened(world):
    world.apply(Move("ring", "new", "to Vault"))
    world.apply(Freeze("new", "not yet"))
    world.tick_all(P + 600)
    outcome = world.apply(Freeze("ring", "an audit"))
    assert (outcome.plan.waits, world.ring.successor) == ((), None)
    world.apply(Unfreeze("new", "now"))
    world.tick_all(60)
    assert world.signer() == "ring"


def test_a_freeze_names_when_a_held_successor_that_is_about_to_sign_does(world):
    world.apply(Move("ring", "new", "to Vault"))
    world.store.report_node("behind", {"new": 0}, 0.0)
    world.tick_all(P - 5)
    held_until = world.store.rings["new"].keys[0].activate_at
    world.clock.advance((held_until - world.clock()).total_seconds() - 5)
    (wait,) = world.apply(Freeze("ring", "an audit")).plan.waits
    assert (wait.what, wait.until) == ("new signs instead", held_until)
    world.tick_all(5)
    assert world.signer() == "new"


def test_a_ring_signs_until_its_frozen_successor_does(world):
    world.apply(Move("ring", "new", "to Vault"))
    world.apply(Freeze("new", "not yet"))
    world.tick_all(P + 600)
    assert world.signer() == "ring"
    world.apply(Unfreeze("new", "now"))
    world.tick_all(60)
    assert world.signer() == "new"
    began = world.store.rings["new"].keys[0].activate_at
    assert {key.stopped_at for key in world.ring.keys} == {began}, "kept until its last token"


def test_a_ring_signs_until_a_node_behind_lets_its_successor(world):
    world.apply(Move("ring", "new", "to Vault"))
    world.tick_all(60)
    world.tick_all(P - 70)
    world.store.report_node("behind", {"new": 0}, 0.0)
    world.tick_all(1)
    world.clock.advance(10)
    assert world.signer() == "ring"
    world.tick_all(200)
    assert world.signer() == "new"


def test_a_ring_signs_when_its_successors_key_is_revoked_before_it_signed(world):
    world.apply(Move("ring", "new", "to Vault"))
    first, *_ = world.store.rings["new"].keys
    world.apply(Revoke(first.kid, "leak"))
    world.clock.advance(P)
    assert world.signer() == "ring"
    world.tick_all()
    assert world.ring.keys[0].state is KeyState.ACTIVE


def test_nothing_falls_back_to_a_ring_that_was_succeeded(world):
    """Rule 12: the successor has begun to sign, and then lost its keys."""
    world.apply(Move("ring", "new", "to Vault"))
    world.clock.advance(P)
    assert world.signer() == "new"
    world.backend.away = True
    for key in world.store.rings["new"].keys:
        world.apply(Revoke(key.kid, "leak"))
    with pytest.raises(NoActiveKeyError):
        world.signer()
    world.backend.away = False
    world.tick_all()
    assert {key.state for key in world.ring.keys} == {KeyState.RETIRED}
    world.tick_all(1)
    assert world.signer() == "new"


def test_a_frozen_ring_whose_only_keys_were_revoked_signs_again_when_the_backend_is_back(world):
    world.apply(Freeze("ring", "closing"))
    world.backend.away = True
    world.apply(Revoke(world.key(1).kid, "leak", all_versions=True))
    world.tick_all(60)
    world.backend.away = False
    world.tick_all(60)
    world.tick_all(1)
    assert world.signer() == "ring"
    kept = len(world.ring.keys)
    world.tick_all(DAY)
    assert len(world.ring.keys) == kept, "and nothing else of a frozen ring changes"


class LateRing(ThreeRings):
    """The ring ``new`` is made when ``third`` has signed for days."""

    def __post_init__(self) -> None:
        RingFixture.__post_init__(self)
        self.add(THIRD)
        self.clock.advance(3 * DAY)
        self.add(NEW)


def test_a_ring_that_was_left_before_it_signed_is_no_end_of_a_chain():
    """The third ring takes over from the second before that one takes over from the first."""
    world = LateRing()
    world.apply(Move("ring", "new", "to Vault"))
    world.apply(Move("new", "third", "to the other Vault"))
    for _ in range(7):
        world.tick_all(DAY)
        world.signer()
    assert world.signer() == "third"
    left = {key.state for key in (*world.ring.keys, *world.store.rings["new"].keys)}
    assert left == {KeyState.REMOVED}


def test_a_chain_whose_middle_never_signed_goes_on_after_an_upgrade(world):
    """Earlier builds moved by the clock alone: both rings are retired, and the third signs."""
    world.apply(Move("ring", "new", "to Vault"))
    world.apply(Move("new", "third", "to the other Vault"))
    world.clock.advance(P + 60)
    for name in ("ring", "new"):
        ring = world.store.rings[name]
        stopped = {"state": KeyState.RETIRED, "stopped_at": ring.succeeded_at}
        stopped |= {"activate_at": None} if name == "new" else {}
        world.store.rings[name] = replace(
            ring, keys=tuple(replace(key, **stopped) for key in ring.keys)
        )
    assert world.signer() == "third"
    world.tick_all(1)
    assert world.signer() == "third"
    assert len(world.ring.keys) == 2, "no version is made in a ring that was left"


def test_a_frozen_ring_that_has_not_signed_does_not_begin_when_its_key_is_revoked(world):
    world.apply(Move("ring", "new", "to Vault"))
    world.apply(Freeze("new", "not yet"))
    world.apply(Revoke(world.store.rings["new"].keys[0].kid, "leak"))
    for _ in range(3):
        world.tick_all(P)
        assert world.signer() == "ring"


def test_a_successor_whose_keys_were_revoked_before_it_signed_publishes_its_next_in_advance(world):
    world.apply(Move("ring", "new", "to Vault"))
    for key in world.store.rings["new"].keys:
        world.apply(Revoke(key.kid, "leak"))
    world.tick_all(P)
    made = world.store.rings["new"].keys[-1]
    world.tick_all(60)
    assert world.signer() == "ring", "verifiers do not know the successor's key yet"
    world.tick_all(P)
    assert (world.signer(), world.store.rings["new"].keys[2].kid) == ("new", made.kid)


class Moves(RuleBasedStateMachine):
    """Without an emergency or an outage, a node that reads can always sign."""

    @initialize()
    def begin(self):
        self.world = ThreeRings()
        self.node = self.world.make_node()

    @rule(seconds=st.sampled_from([1, 9, 61, 121, L, DAY, P, P - 10, T]))
    def time_passes(self, seconds):
        self.world.clock.advance(seconds)

    @rule(name=st.sampled_from(NAMES))
    def a_ring_ticks(self, name):
        self.world.rotator.tick(name, actor="test")

    @rule(name=st.sampled_from(NAMES))
    def a_node_lags(self, name):
        self.world.store.report_node("behind", {name: 0}, 0.0)

    @rule(
        order=st.sampled_from(
            [
                Move("ring", "new", "x"),
                Move("ring", "third", "x"),
                Move("new", "third", "x"),
                Prune("ring"),
                *(kind(name, "x") for kind in (Freeze, Unfreeze, Rotate) for name in NAMES),
            ]
        )
    )
    def an_operator_orders(self, order):
        with suppress(OrderRefusedError):
            self.world.apply(order)

    @rule(name=st.sampled_from(NAMES), version=st.integers(1, 2))
    def an_operator_activates(self, name, version):
        key = self.world.store.rings[name].keys[-version]
        with suppress(OrderRefusedError):
            self.world.apply(Activate(key.kid, "x"))

    @rule(name=st.sampled_from(NAMES), version=st.integers(1, 2))
    def an_operator_revokes_a_key_that_has_not_signed(self, name, version):
        key = self.world.store.rings[name].keys[-version]
        waits = key.activate_at is None or key.activate_at > self.world.clock()
        if key.state is KeyState.PUBLISHED and waits:
            self.world.apply(Revoke(key.kid, "x"))

    @invariant()
    def something_signs(self):
        if hasattr(self, "world"):
            self.node.refresh()
            self.world.sign(self.node)

    @invariant()
    def nodes_and_ticks_agree_on_who_signs(self):
        if hasattr(self, "world"):
            world, now = self.world, self.world.clock()
            rings = world.store.rings.values()
            tolerance = timedelta(seconds=world.timing.clock_tolerance_seconds)
            signs = world.signer() == "ring"
            assert not (signs and succeeded_since(world.ring, rings, now))
            assert signs or succeeded_since(world.ring, rings, now + tolerance)


Moves.TestCase.settings = settings(
    max_examples=60,
    stateful_step_count=40,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow],
)
TestMoves = Moves.TestCase
