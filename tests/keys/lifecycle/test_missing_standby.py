"""A ring without a standby is an alarm once whoever makes versions had time to come by."""

from keys.lifecycle.state import NO_PERMISSIONS, RotationMode
from support.rotation import RING, RingFixture, T


def test_servers_give_the_rotator_time_to_make_the_next_standby():
    world = RingFixture(mode=RotationMode.COMMAND)
    server = world.make_rotator(permissions=NO_PERMISSIONS)
    world.tick()
    world.clock.advance(T)
    for _ in range(2):
        server.tick(RING.name, actor="server")
    assert world.key(2).state == "active"
    world.clock.advance(T * 0.09)
    server.tick(RING.name, actor="server")
    assert world.received.alarms() == []
    world.clock.advance(T * 0.02)
    server.tick(RING.name, actor="server")
    assert world.received.alarms() == ["ring.no_standby"]
    world.tick()
    assert len(world.states()) == 3
