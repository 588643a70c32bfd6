"""Workers of `serve` that die, hang and end, under requests: what is lost, and what goes on."""

import os
import re
import resource
import signal
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack
from itertools import pairwise
from pathlib import Path

import httpx
import psycopg
import pytest

from support.databases import copied_database
from support.edge import ServerFixture, running_edge
from support.load import Requester, SteadyLoad, steady_load, whole_request
from support.raw_http import RawConnection

KILLS = 3


@pytest.fixture(scope="module")
def edge(request, tmp_path_factory) -> Iterator[ServerFixture]:
    """A server of two workers; what becomes of these does not depend on the database."""
    directory = tmp_path_factory.mktemp("server")
    with (
        copied_database(request, "sqlite", directory) as url,
        running_edge(directory, url, workers=2) as edge,
    ):
        yield edge


def kill_worker(edge: ServerFixture, process_id: int) -> None:
    """Kill a worker and return when the main process knows it."""
    os.kill(process_id, signal.SIGKILL)
    edge.server.await_log(f"worker {process_id} exited with status -9")


def await_workers(edge: ServerFixture, count: int, seconds: float = 60.0) -> None:
    """Return when that many workers run and the server is ready."""
    deadline = time.monotonic() + seconds
    while len(edge.server.worker_process_ids()) != count or not edge.server.is_ready():
        assert time.monotonic() < deadline, edge.server.log()
        time.sleep(0.05)


def pauses(edge: ServerFixture) -> list[float]:
    """Return the pauses before replacing workers so far, as the log says."""
    return [float(each) for each in re.findall(r"another starts in ([\d.]+) s", edge.server.log())]


def test_a_worker_that_is_killed_again_and_again_takes_nothing_of_the_other_along(
    edge: ServerFixture,
):
    """Case J108."""
    first, second = edge.server.worker_process_ids()
    request, killed_before = whole_request(edge, "token"), len(pauses(edge))
    with ExitStack() as opened:
        # What comes while the first does not run, the second accepts.
        os.kill(first, signal.SIGSTOP)
        held = [opened.enter_context(RawConnection(edge.port, 20.0)) for _ in range(10)]
        for each in held:
            each.send(request)
            assert each.receive().status == 200
        kill_worker(edge, first)
        for number in range(KILLS):
            deadline = time.monotonic() + 60
            while len(found := set(edge.server.worker_process_ids()) - {second}) != 1:
                assert time.monotonic() < deadline
                for each in held:
                    each.send(request)
                    assert each.receive().status == 200
                time.sleep(0.05)
            if number < KILLS - 1:
                kill_worker(edge, *found)
        for each in held:
            each.send(request)
            assert each.receive().status == 200
    await_workers(edge, 2)
    assert second in edge.server.worker_process_ids()
    grown = pauses(edge)[killed_before:]
    assert len(grown) == KILLS
    assert all(later == pytest.approx(2 * pause) for pause, later in pairwise(grown))


def test_new_connections_are_served_while_workers_die(edge: ServerFixture):
    """Case J108."""
    request = whole_request(edge, "introspect")
    with SteadyLoad(*(Requester(edge.port, request, keeps=False) for _ in range(4))) as load:
        for _ in range(2):
            time.sleep(0.3)
            kill_worker(edge, edge.server.worker_process_ids()[-1])
            await_workers(edge, 2)
    # At most the requests under way in the one that died.
    assert sum(len(each.failures) for each in load.requesters) <= 2 * 4
    for each in load.requesters:
        assert set(each.statuses) == {200}
        assert each.statuses[200] > 10


def test_a_worker_that_replaces_another_one_accepts_nothing_until_it_can_serve(
    postgresql_url, tmp_path
):
    """It answered 503 while it loaded the clients, although the other worker served. Case J108."""
    with running_edge(tmp_path, postgresql_url, workers=2) as edge:
        await_workers(edge, 2)
        first, second = edge.server.worker_process_ids()
        request = whole_request(edge, "introspect")
        with psycopg.connect(postgresql_url.replace("+psycopg", "")) as holder:
            holder.execute("LOCK TABLE client IN ACCESS EXCLUSIVE MODE")
            kill_worker(edge, first)
            deadline = time.monotonic() + 60
            while len(edge.server.worker_process_ids()) != 2:
                assert time.monotonic() < deadline
                time.sleep(0.05)
            requesters = [Requester(edge.port, request, keeps=False) for _ in range(4)]
            with SteadyLoad(*requesters) as load:
                time.sleep(8)
                load.stop()
            assert all(set(each.statuses) == {200} for each in load.requesters)
            # If no worker serves, there is an answer nevertheless.
            os.kill(second, signal.SIGKILL)
            assert httpx.post(edge.server.base_url, timeout=30).status_code in {404, 405, 503}
        await_workers(edge, 2)
        assert edge.token_is_active()


def test_all_workers_killed_at_once_are_back_without_help(edge: ServerFixture):
    """Case J108."""
    killed = edge.server.worker_process_ids()
    for each in killed:
        os.kill(each, signal.SIGKILL)
    began = time.monotonic()
    # The main process holds the socket: this connection waits for the next worker.
    waiting = Requester(edge.port, whole_request(edge, "token"), keeps=False)
    waiting.ask()
    assert waiting.failures == []
    assert waiting.statuses == {200: 1}
    await_workers(edge, 2)
    assert time.monotonic() - began < 30
    assert not set(killed) & set(edge.server.worker_process_ids())
    assert edge.token_is_active()


def test_the_server_is_not_ready_while_a_worker_does_not_serve(edge: ServerFixture):
    """Case J108, Case J114."""
    first, second = edge.server.worker_process_ids()
    os.kill(second, signal.SIGSTOP)
    try:
        deadline = time.monotonic() + 30
        while edge.server.is_ready():
            assert time.monotonic() < deadline
            time.sleep(0.1)
        # The other serves on.
        with steady_load(edge, "token", clients=1) as load:
            time.sleep(1)
        load.require_all_served()
    finally:
        os.kill(second, signal.SIGCONT)
    await_workers(edge, 2)
    assert {first, second} == set(edge.server.worker_process_ids())
    kill_worker(edge, second)
    assert not edge.server.is_ready()
    await_workers(edge, 2)


def test_workers_whose_main_process_was_killed_end_and_free_the_port(sqlite_url, tmp_path):
    """Case J108."""
    with running_edge(tmp_path, sqlite_url, workers=2) as edge:
        with steady_load(edge):
            time.sleep(0.3)
            edge.server.kill_main()
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(("127.0.0.1", edge.port))
        edge.server.start()
        assert edge.token_is_active()


def test_no_request_is_lost_at_the_end(database_url, tmp_path):
    """Case J116."""
    with running_edge(tmp_path, database_url, workers=2) as edge:
        request = whole_request(edge, "token")
        pipelined = RawConnection(edge.port, 20.0)
        pipelined.send(request * 50)
        with steady_load(edge, "token", clients=4) as load:
            load.await_many()
            began = time.monotonic()
            assert edge.server.stop() == 0
            assert time.monotonic() - began < 10
            load.stop()
        for each in load.requesters:
            assert set(each.statuses) == {200}
            assert each.statuses[200] > 5
        assert load.lost() == []
        with pipelined:
            assert [each.status for each in pipelined.receive_all()] == [200] * 50


def test_a_hundred_connections_that_pipeline_get_their_answers_in_order(edge: ServerFixture):
    """Case I100."""
    token = whole_request(edge, "token")
    unknown = b"GET /nowhere HTTP/1.1\r\nHost: localhost\r\n\r\n"
    connections = [RawConnection(edge.port, 30.0) for _ in range(100)]
    for each in connections:
        each.send((token + unknown) * 5)
    for each in connections:
        with each:
            statuses = [each.receive().status for _ in range(10)]
            # Where the machine has other work, a batch may take long enough to be refused in part.
            assert set(statuses[::2]) <= {200, 503}
            assert set(statuses[1::2]) <= {404, 503}
            assert statuses.count(200) + statuses.count(404) > 0


def test_connections_opened_at_once_are_shared_between_the_workers(edge: ServerFixture):
    """A busy machine may keep a worker from running, so one of several bursts has to be shared."""
    await_workers(edge, 2)
    before = open_descriptors(edge)
    for _ in range(20):
        with ExitStack() as opened:
            for _ in range(16):
                opened.enter_context(RawConnection(edge.server.port, 10.0))
            deadline = time.monotonic() + 60
            while sum(now := open_descriptors(edge)) < sum(before) + 16:
                assert time.monotonic() < deadline
                time.sleep(0.01)
            if min(after - first for first, after in zip(before, now, strict=True)) >= 6:
                return
        time.sleep(0.2)
        before = open_descriptors(edge)
    pytest.fail("one worker took the connections every time")


def open_descriptors(edge: ServerFixture) -> list[int]:
    """Return how many descriptors each worker has open."""
    return [len([*Path(f"/proc/{each}/fd").iterdir()]) for each in edge.server.worker_process_ids()]


def test_a_worker_that_cannot_start_leaves_the_others_serving(edge: ServerFixture):
    await_workers(edge, 2)
    main, (first, _) = edge.server.process_id, edge.server.worker_process_ids()
    limits = resource.prlimit(main, resource.RLIMIT_NOFILE)
    try:
        resource.prlimit(main, resource.RLIMIT_NOFILE, (8, limits[1]))
        kill_worker(edge, first)
        edge.server.await_log("a worker cannot start: [Errno 24] Too many open files; retrying in")
        assert edge.token_is_active()
        # The settings in force stay as well.
        os.kill(main, signal.SIGHUP)
        edge.server.await_log("the old ones stay")
    finally:
        resource.prlimit(main, resource.RLIMIT_NOFILE, limits)
    await_workers(edge, 2)
