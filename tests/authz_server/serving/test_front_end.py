"""The end of a worker's front: what came before it is answered."""

import time

from authz_server.serving.front import DRAIN_SECONDS
from support.front_requests import BODY, EMPTY, HELD, ended, post
from support.raw_http import LAST_REQUEST, RawConnection


def test_at_its_end_everything_that_came_is_answered(make_site, hold):
    """Case J116."""
    site = make_site()
    idle = hold(site, 10)
    used = hold(site, 10, EMPTY)
    assert [each.receive().status for each in used] == [200] * 10
    under_way = hold(site, 10, HELD)
    halfway = hold(site, 10, BODY)
    site.await_connections(40)
    late = hold(site, 10, EMPTY)
    end = site.start_drain(10.0)
    time.sleep(0.3)
    for each in used[:5]:
        each.send(EMPTY)
    for each in halfway:
        each.send(b"a" * 9)
    site.gate.set()
    for each in (*used[:5], *under_way, *halfway):
        answer = each.receive()
        assert (answer.status, answer.headers["connection"]) == (200, "close")
        assert each.receive() is None
    for each in late:
        # Perhaps before the end began, so that its connection is closed afterwards.
        assert each.receive().status == 200
        assert each.receive() is None
    end.result(timeout=5)
    assert all(ended(idle + used))
    assert site.connection_count() == 0


def test_connections_in_the_backlog_at_the_end_are_answered(make_site, hold):
    """Case J116."""
    site = make_site()
    hold(site, 1)
    with RawConnection(site.port, 10.0) as holding:
        # The loop is held over the time at which the worker stops accepting.
        holding.send(post("/busy", b"900"))
        time.sleep(0.1)
        end = site.start_drain(10.0)
        waiting = hold(site, 100, EMPTY)
        assert [each.receive().status for each in waiting] == [200] * 100
    end.result(timeout=5)


def test_a_connection_that_came_at_the_last_moment_may_still_send_its_request(make_site, hold):
    """Case J116."""
    site = make_site()
    idle = hold(site, 5)
    with RawConnection(site.port, 10.0) as holding:
        holding.send(post("/busy", b"900"))
        time.sleep(0.1)
        end = site.start_drain(10.0)
        late = hold(site, 5)
        silent = hold(site, 5)
        assert holding.receive().status == 200
        time.sleep(DRAIN_SECONDS + 0.2)
        for each in late:
            each.send(EMPTY)
            assert each.receive().status == 200
        began = time.monotonic()
        end.result(timeout=10)
        assert time.monotonic() - began < 5
    assert all(ended([*idle, *silent]))


def test_a_front_that_stops_accepting_leaves_new_connections_to_others(make_site, hold):
    """Case J117."""
    site = make_site()
    (kept,) = hold(site, 1)
    site.await_connections(1)
    other = site.another_listener()
    with other, site.connect():
        site.run(site.front.stop_accepting)
        site.await_connections(2)
        with site.connect():
            other.settimeout(10)
            other.accept()[0].close()
        kept.send(EMPTY)
        assert kept.receive().status == 200


def test_the_end_does_not_wait_longer_than_its_grace(make_site, hold):
    """Case J116."""
    site = make_site()
    hold(site, 5, HELD)
    hold(site, 5, BODY)
    site.await_connections(10)
    began = time.monotonic()
    site.start_drain(0.5).result(timeout=10)
    assert 0.4 < time.monotonic() - began < 5
    site.await_connections(0)


def test_a_pipeline_is_answered_at_the_end(make_site):
    """Case J116."""
    site = make_site()
    with site.connect() as connection:
        connection.send(HELD + EMPTY * 5 + LAST_REQUEST)
        time.sleep(0.1)
        end = site.start_drain(10.0)
        time.sleep(0.1)
        site.gate.set()
        assert [each.status for each in connection.receive_all()] == [200] * 6 + [404]
    end.result(timeout=5)
