"""Requests in the turns of an event loop whose time passes only when a request is answered."""

from types import SimpleNamespace

import pytest

from authz_server.serving import turns
from authz_server.serving.senders import Phase
from authz_server.serving.turns import (
    ACCEPT_SECONDS,
    OVERLOAD_SECONDS,
    PAUSE_SECONDS,
    STALL_SECONDS,
    TURN_SECONDS,
    Turns,
)

SERVE_SECONDS = 0.001


class Loop:
    """Collects what is to run in the next turn."""

    def __init__(self):
        self.soon = []

    def call_soon(self, act):
        self.soon.append(act)

    def turn(self):
        """Run what was to run, once."""
        now, self.soon = self.soon, []
        for act in now:
            act()


class Site:
    """Turns over a loop, with a clock that answers move on."""

    def __init__(self, monkeypatch):
        self.now = 1_000.0
        monkeypatch.setattr(turns, "monotonic", lambda: self.now)
        self.serve_seconds, self.refuse_seconds = SERVE_SECONDS, SERVE_SECONDS / 10
        self.room = True
        self.many = self.used = True
        self.served, self.refused = [], []
        self.loop = Loop()
        self.turns = Turns(
            self.loop,
            serve=self._serve,
            refuse=self._refuse,
            refusal=bytes,
            may_refuse=lambda: self.many,
            has_room=lambda: self.room,
        )

    def _serve(self, _connection, request):
        self.served.append(request)
        self.now += self.serve_seconds

    def _refuse(self, _connection, request):
        self.refused.append(request)
        self.now += self.refuse_seconds

    def arrive(self, *requests):
        for request in requests:
            connection = SimpleNamespace(phase=Phase.ANSWERING, used=self.used)
            self.turns.take(connection, request)

    def hold(self, *requests):
        """Fill the queue behind a turn that took too long."""
        self.arrive("first")
        self.now += 2 * TURN_SECONDS
        self.arrive(*requests)
        assert self.served == ["first"]
        self.served.clear()


@pytest.fixture
def site(monkeypatch):
    return Site(monkeypatch)


def test_requests_in_time_are_answered_in_order(site):
    site.hold(1, 2, 3)
    site.loop.turn()
    assert (site.served, site.refused) == ([1, 2, 3], [])


def test_late_requests_are_refused_and_those_in_time_answered_in_order(site):
    # One request is answered in each turn while the database has no room.
    site.room = False
    site.hold(*range(10))
    site.arrive(*range(10, 20))
    while not site.refused:
        assert site.served == list(range(len(site.served)))
        site.now += PAUSE_SECONDS / 2
        site.loop.turn()
    assert site.refused == list(range(3, 20))
    assert site.served == [0, 1, 2]


def test_a_first_request_counts_the_wait_for_its_connection(site):
    site.used = False
    site.hold(1)
    site.now += PAUSE_SECONDS - 0.001
    site.loop.turn()
    assert (site.served, site.refused) == ([1], [])
    assert ACCEPT_SECONDS + PAUSE_SECONDS == OVERLOAD_SECONDS
    site.served.clear()
    site.room = False
    site.hold(*range(3))
    for _ in range(2):
        site.now += PAUSE_SECONDS - 0.001
        site.loop.turn()
    assert (site.served[0], site.refused) == (0, [1, 2])


def test_after_a_pause_of_the_loop_requests_may_wait_longer(site):
    site.hold(1, 2)
    site.now += STALL_SECONDS - 0.001
    site.loop.turn()
    assert (site.served, site.refused) == ([1, 2], [])
    site.served.clear()
    site.hold(3, 4)
    site.now += STALL_SECONDS + 0.001
    site.loop.turn()
    assert (site.served, site.refused) == ([], [3, 4])


def test_few_connections_are_never_refused(site):
    site.many = False
    site.hold(1, 2)
    site.now += 10 * STALL_SECONDS
    site.loop.turn()
    assert (site.served, site.refused) == ([1, 2], [])


def test_where_refusing_takes_all_time_the_latest_arrivals_are_answered(site):
    """Case J119."""
    site.refuse_seconds = SERVE_SECONDS
    site.hold(*range(1_000))
    site.now += 2 * STALL_SECONDS
    for _ in range(10):
        site.loop.turn()
    assert site.refused == list(range(len(site.refused)))
    assert site.served == list(range(999, 999 - len(site.served), -1))
    # Half of the time is for answers, however many are late.
    assert len(site.served) >= 0.4 * len(site.refused) > 20


def test_while_the_database_has_no_room_one_request_is_answered_in_each_turn(site):
    """Case J119."""
    site.hold(*range(10))
    site.room = False
    for answered in range(1, 4):
        site.loop.turn()
        assert site.served == list(range(answered))
    site.room = True
    site.loop.turn()
    assert site.served == list(range(10))


def test_an_arrival_waits_for_the_next_turn_where_the_database_has_no_room(site):
    site.arrive(1)
    site.room = False
    site.arrive(2, 3)
    assert site.served == [1]
    site.loop.turn()
    assert site.served == [1, 2]


def test_after_a_request_that_the_disk_has_held_up_the_others_may_wait_longer(site):
    site.hold(1, 2, 3)
    site.serve_seconds = OVERLOAD_SECONDS
    site.loop.turn()
    site.serve_seconds = SERVE_SECONDS
    assert site.served == [1]
    site.now += STALL_SECONDS - OVERLOAD_SECONDS - 0.001
    site.loop.turn()
    assert (site.served, site.refused) == ([1, 2, 3], [])
