"""Orders of operators: revocation, taint, freeze, activation, destruction."""

from datetime import UTC, datetime, timedelta

import pytest

from keys.errors import OrderRefusedError
from keys.lifecycle.orders import Activate, Destroy, Freeze, Revoke, Rotate, Taint, Unfreeze
from keys.lifecycle.rules import LONGEST_DELAY
from keys.signing_key import KeyState
from support.rotation import L, P, RingFixture, T

S = KeyState
PAYLOAD = b'{"iss":"x"}'


def sign(node):
    return node.sign("ring", PAYLOAD, typ="at+jwt", lifetime_seconds=L)


@pytest.fixture
def world():
    world = RingFixture()
    world.tick()
    return world


def test_a_raised_verification_floor_revokes(world):
    """Case G83."""
    world.clock.advance(P)
    world.backend.verify_floor["ring"] = 2
    world.tick()
    assert world.states()[:2] == [S.REVOKED, S.ACTIVE]
    world.backend.verify_floor["ring"] = 1
    world.tick(60)
    assert world.states()[0] is S.REVOKED, "a lower floor is no pardon"


def test_a_revocation_lets_the_standby_sign_fences_and_makes_verifiers_cautious(world):
    """Case G83."""
    node = world.make_node()
    world.clock.advance(P)
    old = sign(node)
    outcome = world.apply(Revoke(world.key(1).kid, "leaked"))
    assert (outcome.fenced, outcome.failures) == ("2", [])
    assert world.backend.sign_floor["ring"] == 2
    assert world.states()[:2] == [S.REVOKED, S.ACTIVE]
    assert sign(node).kid == world.key(2).kid, "even from a reading of before"
    node.refresh()
    assert node.jwks_maximum_age_seconds() == 60
    assert old.kid.encode() not in node.jwks()
    with pytest.raises(Exception, match="unknown key"):
        node.verify(old.token)


def test_a_revocation_does_not_wait_for_a_backend_that_is_away(world):
    """Case G83."""
    world.backend.away = True
    outcome = world.apply(Revoke(world.key(1).kid, "leaked"))
    assert "not fenced at the backend" in outcome.failures[0]
    assert world.states() == [S.REVOKED, S.ACTIVE]
    world.backend.away = False
    world.tick(60)
    assert world.backend.sign_floor["ring"] == 2


def test_all_versions_are_replaced_under_a_recorded_exception(world):
    outcome = world.apply(Revoke(world.key(1).kid, "the token store leaked", all_versions=True))
    assert outcome.created.ref == "3"
    assert world.states() == [S.REVOKED, S.REVOKED, S.ACTIVE]
    assert world.key(3).reason == "the token store leaked"
    assert world.ring.claimed_until is None
    node = world.make_node()
    assert sign(node).kid == world.key(3).kid


def test_a_dry_run_of_a_revocation_revokes_nothing(world):
    before = world.ring
    for all_versions in (False, True):
        world.apply(Revoke(world.key(1).kid, "r", all_versions=all_versions), dry_run=True)
    assert world.ring == before
    assert world.backend.created == 2


def test_a_tainted_key_drains_and_is_then_revoked(world):
    node = world.make_node()
    world.clock.advance(P)
    old = sign(node)
    world.apply(Taint(world.key(1).kid, "doubts"))
    node.refresh()
    assert sign(node).kid == world.key(2).kid
    assert node.is_tainted(old.kid)
    assert node.verify(old.token).kid == old.kid
    world.tick(L + 65)
    assert world.states()[0] is S.REVOKED


def test_a_frozen_ring_signs_on_and_moves_no_further(world):
    world.apply(Freeze("ring", "audit"))
    world.tick(2 * T)
    assert world.states() == [S.ACTIVE, S.PUBLISHED]
    node = world.make_node()
    assert sign(node).kid == world.key(1).kid
    with pytest.raises(OrderRefusedError, match="frozen"):
        world.apply(Rotate("ring", "order"))
    world.apply(Unfreeze("ring", "done"))
    world.tick()
    assert world.states() == [S.RETIRED, S.ACTIVE, S.PUBLISHED]


def test_an_early_activation_is_refused_by_the_invariants_name(world):
    """Case G75."""
    with pytest.raises(OrderRefusedError, match="invariant 1"):
        world.apply(Activate(world.key(2).kid, "haste"))
    assert world.states() == [S.ACTIVE, S.PUBLISHED]
    world.apply(Activate(world.key(2).kid, "haste", emergency=True))
    assert world.states()[:2] == [S.RETIRED, S.ACTIVE]
    assert world.key(2).reason == "haste"


def test_a_key_is_not_activated_in_another_age(world):
    kid, before = world.key(2).kid, world.key(2)
    for at in (datetime.max.replace(tzinfo=UTC), world.clock() + LONGEST_DELAY + timedelta(1)):
        for emergency in (False, True):
            with pytest.raises(OrderRefusedError, match="more than 3650 days from now"):
                world.apply(Activate(kid, "late", at=at, emergency=emergency))
    assert world.key(2) == before
    world.apply(Activate(kid, "late", at=world.clock() + LONGEST_DELAY))
    world.tick()
    assert world.states() == [S.ACTIVE, S.PUBLISHED]


def test_destruction_spares_what_is_in_use(world):
    with pytest.raises(OrderRefusedError, match="no removed key"):
        world.apply(Destroy("ring", "tidy"))
    world.tick(T)
    world.tick(60)
    world.tick(L + 65)
    world.apply(Destroy("ring", "tidy"))
    assert world.states() == [S.DESTROYED, S.ACTIVE, S.PUBLISHED]
    assert [version.ref for version in world.backend.describe_versions("ring").versions] == [
        "2",
        "3",
    ]
    world.tick(60)
    assert world.states() == [S.DESTROYED, S.ACTIVE, S.PUBLISHED]


def test_where_nothing_stands_by_a_revocation_makes_the_next_key(world):
    """Case G83."""
    world.apply(Taint(world.key(2).kid, "doubts"))
    outcome = world.apply(Revoke(world.key(1).kid, "leaked"), dry_run=True)
    assert outcome.plan.create
    assert world.backend.created == 2
    outcome = world.apply(Revoke(world.key(1).kid, "leaked"))
    assert outcome.created.ref == "3"
    assert world.states() == [S.REVOKED, S.TAINTED, S.ACTIVE]
    assert (world.key(3).reason, world.ring.claimed_until) == ("leaked", None)


def test_nothing_stands_by_and_the_backend_is_away(world):
    world.apply(Taint(world.key(2).kid, "doubts"))
    world.backend.away = True
    outcome = world.apply(Revoke(world.key(1).kid, "leaked"))
    assert "no version was made" in outcome.failures[0]
    assert world.states() == [S.REVOKED, S.TAINTED]
    world.tick(60)
    world.backend.away = False
    world.tick(60)
    assert world.states() == [S.REVOKED, S.TAINTED, S.ACTIVE], "as soon as there is a key"
    assert world.key(3).reason == "nothing else may sign"
    assert sign(world.make_node()).kid == world.key(3).kid


def test_a_revocation_while_somebody_else_makes_a_version_is_not_left_without_a_key(world):
    world.apply(Taint(world.key(2).kid, "doubts"))
    other = world.make_rotator()
    made = []

    def create_meanwhile(ring, alg):
        # The other rotator holds the claim: the revocation comes before its version is adopted.
        version = create(ring, alg)
        made.append(world.apply(Revoke(world.key(1).kid, "leaked")))
        return version

    create, world.backend.create = world.backend.create, create_meanwhile
    other.tick("ring", actor="test")
    assert made[0].created is None
    assert world.states() == [S.REVOKED, S.TAINTED, S.ACTIVE]


def test_an_activation_that_nodes_may_be_acting_on_is_not_taken_back(world):
    world.tick(T - 10)
    outcome = world.apply(Freeze("ring", "audit"))
    assert world.key(2).activate_at is not None
    assert "too near" in outcome.plan.waits[0].why
    world.tick(10)
    assert world.states()[:2] == [S.RETIRED, S.ACTIVE]


def test_a_change_that_nobody_can_have_read_yet_holds_nothing_back(world):
    world.tick(T - 5)
    world.store.report_node("node", {"ring": world.ring.epoch}, 0.0)
    world.apply(Freeze("ring", "audit"))
    world.apply(Unfreeze("ring", "done"))
    outcome = world.tick(1)
    assert [alarm.event for alarm in outcome.plan.alarms] == []
    world.tick(4)
    assert world.states()[:2] == [S.RETIRED, S.ACTIVE]
