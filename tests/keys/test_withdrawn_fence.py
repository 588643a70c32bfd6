"""A key that is not trusted any more is fenced as soon as its backend can be reached."""

from keys.lifecycle.orders import Revoke
from support.rotation import RingFixture


def test_a_withdrawn_key_is_fenced_without_waiting_for_nodes():
    world = RingFixture()
    world.tick()
    world.store.report_node("behind", {"ring": 0}, 0.0)
    assert [report.epoch_seen for report in world.store.load_nodes()] == [0]
    world.backend.away = True
    revoked = world.apply(Revoke(world.key(1).kid, "stolen"))
    assert any("not fenced" in failure for failure in revoked.failures)
    world.backend.away = False
    # At once: a node that is behind would be told so by the backend, and read again.
    assert world.tick().fenced == "2"
    assert world.key(1).fenced_at == world.clock()


def test_an_ordinary_change_over_waits_for_nodes_that_are_behind():
    world = RingFixture()
    world.tick()
    world.tick(world.definition.rotation_interval_seconds)
    world.store.report_node("behind", {"ring": 0}, 0.0)
    assert world.tick(2 * world.timing.clock_tolerance_seconds).fenced is None
    assert world.backend.sign_floor == {}
