"""A worker's front: who gets in, and what is refused when there is too much."""

import asyncio
import json
import logging
import os
import resource
import socket
import threading
import time
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import pytest

from authz_server.endpoints.access_log import AccessLog
from authz_server.endpoints.client_address import ClientAddressReader
from authz_server.logs import ACCESS_LOGGER
from authz_server.serving import front, turns
from authz_server.serving.shares import Shares, make_table, remove_entry
from support.front_requests import BODY, EMPTY, HEAD, HELD, ended, post
from support.raw_http import RawConnection
from support.worker_site import WorkerSite


def is_served(site: WorkerSite, source: str = "127.0.0.1") -> bool:
    with RawConnection(site.port, 10.0, source) as connection:
        connection.send(EMPTY)
        answer = connection.receive()
    return answer is not None and answer.status == 200


@contextmanager
def held_loop(site: WorkerSite):
    """Hold the loop as long as the block lasts: it finds all that arrives meanwhile at once."""
    began, is_over = threading.Event(), threading.Event()

    def wait() -> None:
        began.set()
        is_over.wait(60)

    site.loop.call_soon_threadsafe(wait)
    assert began.wait(60)
    try:
        yield
    finally:
        is_over.set()


@pytest.mark.parametrize("opening", [b"", EMPTY, HEAD, BODY])
def test_a_sender_beyond_its_limit_loses_its_oldest_and_is_served(make_site, hold, opening):
    """A request that waits for its turn is under way: its room comes with later ones. Case I101."""
    site = make_site(maximum_connections_per_address=5)
    connections = hold(site, 20, opening)
    # Accepted after the others; each later one leaves one less where there are too many.
    assert is_served(site)
    for _ in connections:
        if site.connection_count() > 5:
            assert is_served(site)
    assert is_served(site, "127.0.0.2")
    assert sum(ended(connections)) in {15, 16}


def test_a_flood_of_one_sender_closes_no_connection_of_another(make_site, hold):
    """Case I101."""
    site = make_site(maximum_connections=40, maximum_connections_per_address=1_000)
    honest = hold(site, 5, EMPTY, "127.0.0.2")
    assert [each.receive().status for each in honest] == [200] * 5
    hold(site, 200)
    site.await_connections(40)
    assert ended(honest) == [False] * 5
    for each in honest:
        each.send(EMPTY)
        assert each.receive().status == 200


def test_bodies_beyond_their_limit_close_others(make_site, hold):
    """Case I101."""
    site = make_site(maximum_bodies_per_address=5)
    connections = hold(site, 20, BODY)
    site.await_connections(5)
    left = [
        each for each, is_over in zip(connections, ended(connections), strict=True) if not is_over
    ]
    assert len(left) == 5
    for each in left:
        each.send(b"a" * 9)
        assert each.receive().status == 200


def test_requests_under_way_are_never_closed_to_make_room(make_site, hold):
    """Case I101."""
    site = make_site(maximum_connections=5, maximum_connections_per_address=5, threads=20)
    connections = []
    for number in range(1, 21):
        connections += hold(site, 1, HELD)
        site.await_held(number)
    assert is_served(site)
    site.gate.set()
    assert [each.receive().status for each in connections] == [200] * 20


def test_refused_senders_that_write_on_hold_no_room(make_site, hold):
    """Case I101."""
    site = make_site(maximum_connections=20, maximum_connections_per_address=10)
    too_large = HEAD + b"Content-Length: 99999999\r\n\r\n"
    for _ in range(50):
        (connection,) = hold(site, 1, too_large)
        assert connection.receive().status == 413
    assert site.connection_count() <= 10
    assert is_served(site)


def test_trusted_proxies_may_hold_more(make_site, hold):
    """Case I101."""
    site = make_site(
        trusted_proxies=("127.0.0.1",),
        maximum_connections_per_address=5,
        maximum_bodies_per_address=2,
    )
    connections = hold(site, 20, BODY)
    site.await_connections(20)
    assert ended(connections) == [False] * 20


def test_a_full_lane_refuses_and_every_other_request_is_served(make_site, hold):
    """Case J114."""
    site = make_site(threads=2, maximum_waiting_requests=5)
    connections = hold(site, 8, HELD)
    refused = [each.receive() for each in connections[5:]]
    assert {each.status for each in refused} == {503}
    assert {each.headers["retry-after"] for each in refused} == {"2"}
    assert is_served(site)
    site.gate.set()
    assert [each.receive().status for each in connections[:5]] == [200] * 5


def test_requests_that_have_waited_too_long_for_the_loop_are_refused_at_once(
    make_site, hold, monkeypatch
):
    """Case J119."""
    monkeypatch.setattr(turns, "FEW", 32)
    site = make_site()
    connections = hold(site, 60)
    site.await_connections(60)
    with held_loop(site):
        for each in connections:
            each.send(post("/busy", b"20"))
    answers = [each.receive() for each in connections]
    refused = [each for each in answers if each.status == 503]
    assert len(refused) >= 20
    for each in refused:
        assert each.headers["retry-after"] == "2"
        assert each.headers["cache-control"] == "no-store"
        assert json.loads(each.body)["error"] == "temporarily_unavailable"
        assert "connection" not in each.headers
    assert len({each.headers["x-request-id"] for each in refused}) == len(refused)
    deadline = time.monotonic() + 30
    while sum(site.shed) < len(refused):
        assert time.monotonic() < deadline
        time.sleep(front.TICK_SECONDS)
    assert sum(site.shed) == len(refused)
    # The connections live on, and what comes in time is served again.
    for each in connections:
        each.send(EMPTY)
        assert each.receive().status == 200


def test_each_refusal_of_too_many_requests_has_its_line_in_the_access_log(
    make_site, hold, monkeypatch, caplog
):
    """Unread requests, too, are named by method and path."""
    caplog.set_level(logging.INFO, ACCESS_LOGGER)
    monkeypatch.setattr(turns, "FEW", 32)
    site = make_site(access_log=AccessLog(ClientAddressReader([])))
    connections = hold(site, 60)
    site.await_connections(60)
    with held_loop(site):
        for each in connections:
            each.send(post("/busy?a=b", b"20"))
    answers = [each.receive() for each in connections]
    refused = {each.headers["x-request-id"] for each in answers if each.status == 503}
    assert len(refused) >= 20
    site.run(lambda: None)
    lines = [each for each in caplog.records if each.name == ACCESS_LOGGER]
    assert len(lines) == 60
    assert {(each.method, each.path) for each in lines} == {("POST", "/busy")}
    assert {each.request_id for each in lines if each.status == 503} == refused
    assert max(each.milliseconds for each in lines if each.status == 503) > 50
    for each in connections:
        each.send(EMPTY)
        assert each.receive().status == 200


def test_few_requests_are_answered_however_late_the_loop_is(make_site, hold, monkeypatch):
    """Case J119."""
    monkeypatch.setattr(turns, "FEW", 32)
    site = make_site()
    connections = hold(site, 20)
    site.await_connections(20)
    with held_loop(site):
        for each in connections:
            each.send(post("/busy", b"20"))
    assert {each.receive().status for each in connections} == {200}


CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n\r\n"
CLOSING = EMPTY.replace(b"Host", b"Connection: close\r\nHost")
#: What arrives in one or two pieces while the loop is late, and how many answers it gets.
LATE_INPUT = {
    "whole": ([post("/echo", b"a")], 1),
    "without a body": ([b"GET /other HTTP/1.1\r\nHost: localhost\r\n\r\n"], 1),
    "header, then body": ([post("/echo", b"abc")[:-3], b"abc"], 1),
    "in the middle of a field": ([post("/echo", b"abc")[:25], post("/echo", b"abc")[25:]], 1),
    "two": ([post("/echo", b"a") * 2], 2),
    "one and a half": ([post("/echo", b"a") + EMPTY[:9], EMPTY[9:]], 2),
    "chunked": ([CHUNKED], 1),
    "to be closed": ([CLOSING], 1),
    "malformed": ([EMPTY.replace(b"0", b"1, 1", 1)], 1),
}


@pytest.mark.parametrize("before", [5, 60], ids=["served", "refused"])
def test_input_that_waits_for_a_late_loop_gets_all_its_answers(
    make_site, hold, monkeypatch, before
):
    """Case J119."""
    monkeypatch.setattr(turns, "FEW", 32)
    site = make_site()
    # All that waits is late, however long the machine pauses.
    monkeypatch.setattr(turns, "OVERLOAD_SECONDS", -60)
    monkeypatch.setattr(turns, "STALL_SECONDS", -60)
    monkeypatch.setattr(turns, "TURN_SECONDS", 60)
    monkeypatch.setattr(site.front._turns, "_has_room", lambda: False)  # noqa: SLF001 - likewise
    fillers = hold(site, before)
    with ExitStack() as held:
        late = {
            (name, ends): held.enter_context(RawConnection(site.port, 10.0))
            for name in LATE_INPUT
            for ends in (False, True)
        }
        site.await_connections(before + len(late))
        with held_loop(site):
            for each in fillers:
                each.send(post("/busy", b"20"))
            for (name, ends), each in late.items():
                for piece in LATE_INPUT[name][0]:
                    each.send(piece)
                if ends:
                    each.finish_sending()
        for (name, ends), each in late.items():
            statuses = [each.receive().status for _ in range(LATE_INPUT[name][1])]
            expected = {400} if name == "malformed" else {503} if before == 60 else {200, 404}
            assert expected & set(statuses[:1]), (name, ends, statuses)
        monkeypatch.undo()
        for (name, ends), each in late.items():
            if ends or name in ("malformed", "to be closed"):
                assert each.receive_all() == [], (name, ends)
            else:
                each.send(EMPTY)
                assert each.receive().status == 200, name


@contextmanager
def limited_descriptors(spare: int):
    """Let this process open only a few more files for as long as the block lasts."""
    limit, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    highest = max(int(each.name) for each in Path("/proc/self/fd").iterdir())
    with ExitStack() as fillers:
        # No number below is left.
        while fillers.enter_context(Path("/dev/null").open()).fileno() <= highest:
            pass
        resource.setrlimit(resource.RLIMIT_NOFILE, (highest + 2 + spare, hard))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))


def test_a_worker_without_files_to_open_accepts_again_when_it_has_some(make_site, caplog):
    """Case I101."""
    site = make_site()
    with RawConnection(site.port, 10.0) as holding, ExitStack() as held:
        # Nothing is accepted until the files are counted.
        holding.send(post("/busy", b"500"))
        time.sleep(0.1)
        connections = [held.enter_context(RawConnection(site.port, 10.0)) for _ in range(6)]
        for each in connections:
            each.send(EMPTY)
        with limited_descriptors(3):
            assert holding.receive().status == 200
            time.sleep(0.6)
            assert site.connection_count() < 1 + 6
            assert "cannot accept connections" in caplog.text
        assert [each.receive().status for each in connections] == [200] * 6
    assert is_served(site)


def test_a_hundred_connections_each_pipelining_get_all_their_answers(make_site, monkeypatch):
    """Case I100."""
    for name in ("OVERLOAD_SECONDS", "STALL_SECONDS"):
        monkeypatch.setattr(turns, name, 60.0)
    site = make_site()
    requests, rounds = 20, 5
    with ExitStack() as held:
        connections = [held.enter_context(site.connect()) for _ in range(100)]
        for _ in range(rounds):
            for number, each in enumerate(connections):
                each.send(b"".join(post("/echo", b"%d-%d" % (number, n)) for n in range(requests)))
            for number, each in enumerate(connections):
                bodies = [json.loads(each.receive().body)["body"] for _ in range(requests)]
                assert bodies == [f"{number}-{n}" for n in range(requests)]
    assert len(site.requests) == 100 * requests * rounds


@pytest.mark.parametrize(
    ("others", "left"),
    [(None, 0), ([5], 1), ([0], 6), ([7, 3], 3), ([0, 0], 6)],
)
def test_a_worker_leaves_connections_to_those_that_have_fewer(make_site, monkeypatch, others, left):
    """The counts of the other workers, None for no table; of a burst of 8, so many are left."""
    monkeypatch.setattr(front, "_REST_SECONDS", 60.0)
    table, burst = make_table(1 + len(others or ())), 8
    for place, count in enumerate(others or (), start=1):
        Shares(table, place).write(count)
    shares = None if others is None else Shares(table, 0)
    site = make_site(shares=shares)
    with ExitStack() as held, site.another_listener() as other:

        async def open_many() -> int:
            # The loop does not run meanwhile.
            for _ in range(burst):
                held.enter_context(socket.create_connection(("127.0.0.1", site.port)))
            for _ in range(20 * burst):
                await asyncio.sleep(0)
            found = 0
            with suppress(BlockingIOError):
                while True:
                    held.enter_context(other.accept()[0])
                    found += 1
            return found

        found = asyncio.run_coroutine_threadsafe(open_many(), site.loop).result()
        # A connection that is being set up counts twice.
        assert left <= found <= left + (3 if others else 0)
        site.await_connections(burst - found)
    site.await_connections(0)
    os.close(table)


def test_a_worker_accepts_what_the_others_leave(make_site):
    table = make_table(3)
    Shares(table, 1).write(0)
    site = make_site(shares=Shares(table, 0))
    with ExitStack() as held:
        for _ in range(100):
            held.enter_context(site.connect())
        site.await_connections(100)
        assert is_served(site)
        # That one has gone, and the third has never served.
        remove_entry(table, 1)
        assert not Shares(table, 0).is_ahead(100)
    os.close(table)


def test_a_worker_that_ends_leaves_no_connections_to_others_and_none_are_left_to_it(make_site):
    table = make_table(2)
    site = make_site(shares=Shares(table, 0))
    other = Shares(table, 1)
    site.await_connections(0)
    assert other.is_ahead(5)
    drained = site.start_drain(0.5)
    deadline = time.monotonic() + 60
    while other.is_ahead(5):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    with suppress(OSError), site.connect() as late:
        late.send(EMPTY)
        late.receive()
    drained.result()
    assert not other.is_ahead(5)
    os.close(table)
