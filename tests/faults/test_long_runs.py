"""Hours of trouble in minutes: floods, overload, crashes and reloads of `serve` under load.

`make faults` runs this; the suite holds short versions. FAULT_SECONDS is how long each run lasts.
"""

import os
import random
import re
import signal
import threading
import time
from contextlib import suppress
from statistics import median
from typing import Self

import httpx
import pytest

from support.edge import ServerFixture, running_edge
from support.load import Flood, Overload, Requester, SteadyLoad, steady_load, whole_request

SECONDS = float(os.environ.get("FAULT_SECONDS", "60"))
KILLS = 20
TIMES = 20
CONNECTIONS = 1_000

pytestmark = pytest.mark.timeout(20 * SECONDS + 1_800)


@pytest.fixture
def edge(database_url, tmp_path):
    """A server of two workers for one test."""
    limits = {"maximum_connections": 10_000, "maximum_connections_per_address": 5_000}
    with running_edge(tmp_path, database_url, workers=2, server=limits) as edge:
        yield edge


def await_workers(edge: ServerFixture, count: int) -> None:
    """Return when that many workers run and the server is ready."""
    deadline = time.monotonic() + 120
    while len(edge.server.worker_process_ids()) != count or not edge.server.is_ready():
        assert time.monotonic() < deadline, edge.server.log()
        time.sleep(0.05)


class Revoker:
    """Issues tokens and revokes them, in a thread; what was acknowledged must hold."""

    def __init__(self, edge: ServerFixture) -> None:
        self._edge = edge
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self.revoked: list[str] = []
        self.issued: list[str] = []

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def require_all_hold(self) -> None:
        """Ask about every token that was revoked, and about those that were only issued."""
        assert len(self.revoked) > 10
        for token in self.revoked:
            assert self._edge.post("introspect", {"token": token}).json() == {"active": False}
        trail = self._edge.audit_trail()
        assert trail.count('"token.revoked"') >= len(self.revoked)
        assert trail.count('"token.issued"') >= len(self.issued)

    def _run(self) -> None:
        while not self._stop.is_set():
            # A worker may die under either request.
            with suppress(httpx.TransportError, AssertionError):
                token = self._edge.new_token()
                self.issued.append(token)
                if self._edge.post("revoke", {"token": token}).status_code == 200:
                    self.revoked.append(token)


def test_a_worker_that_is_killed_twenty_times_in_a_row_is_replaced_each_time(edge: ServerFixture):
    """Case J108."""
    first, second = edge.server.worker_process_ids()
    request = whole_request(edge, "token")
    os.kill(first, signal.SIGSTOP)
    kept = [Requester(edge.port, request, keeps=True) for _ in range(4)]
    for each in kept:
        each.ask()
    with SteadyLoad(*kept) as load:
        killed, victim = 0, first
        while killed < KILLS:
            os.kill(victim, signal.SIGKILL)
            killed += 1
            edge.server.await_log(f"worker {victim} exited with status -9")
            while len(found := set(edge.server.worker_process_ids()) - {second}) != 1:
                time.sleep(0.1)
            (victim,) = found
    load.require_all_served()
    await_workers(edge, 2)
    assert second in edge.server.worker_process_ids()
    pauses = [float(each) for each in re.findall(r"starts in ([\d.]+) s", edge.server.log())]
    assert pauses == [min(0.1 * 2**number, 30.0) for number in range(KILLS)]


def test_what_was_acknowledged_holds_while_workers_and_servers_are_killed(edge: ServerFixture):
    """Case J108."""
    choose = random.Random("workers").choice
    with Revoker(edge) as revoker:
        ends = time.monotonic() + SECONDS
        while time.monotonic() < ends:
            time.sleep(1)
            if workers := edge.server.worker_process_ids():
                os.kill(choose(workers), signal.SIGKILL)
        await_workers(edge, 2)
        for _ in range(TIMES // 4):
            edge.server.kill()
            edge.server.start()
            time.sleep(1)
    revoker.require_all_hold()


@pytest.mark.parametrize("kind", ["idle", "headers", "bodies"])
def test_a_long_flood_slows_nobody(edge: ServerFixture, kind: str):
    """Case I101."""
    head, _ = edge.request("token", harmless=True)
    opening = {
        "idle": b"",
        "headers": head + b"X-A: ",
        "bodies": head + b"Content-Length: 60000\r\n\r\na",
    }[kind]
    request = whole_request(edge, "token")
    honest = [
        Requester(edge.port, request, keeps=keeps, source=source)
        for keeps in (True, False)
        for source in ("127.0.0.2", "127.0.0.3")
    ]
    with Flood(edge.port, [opening] * CONNECTIONS, "127.0.0.2"), SteadyLoad(*honest) as load:
        time.sleep(SECONDS)
    load.require_all_served()
    latencies = sorted(each for one in honest for each in one.latencies)
    assert latencies[int(len(latencies) * 0.99)] < 0.5


@pytest.mark.parametrize("endpoint", ["token", "introspect"])
def test_long_overload_ends_without_a_trace(edge: ServerFixture, endpoint: str):
    """Case J119."""
    request = whole_request(edge, endpoint)
    peak = Overload(edge.port, request).run(16, 5.0)
    memory = edge.memory_bytes()
    overload = Overload(edge.port, request, pause_seconds=0.5)
    goodput = overload.run(4_000, SECONDS)
    assert overload.others == {}
    assert overload.without_retry_after == 0
    assert goodput > peak / 10
    if overload.refusals:
        assert median(overload.refusals) < 1
    # Connections that are open take some kilobytes each, and give them back.
    time.sleep(2)
    assert edge.memory_bytes() < memory + 200_000_000
    with steady_load(edge, endpoint, pause_seconds=0.01) as load:
        time.sleep(5)
    load.require_all_served()


def test_twenty_reloads_under_load_lose_nothing(edge: ServerFixture):
    """Case J117."""
    with (
        steady_load(edge, pause_seconds=0.01) as load,
        steady_load(edge, "introspect", pause_seconds=0.01) as other,
    ):
        for number in range(TIMES):
            lifetime = 3_601 if number % 5 == 4 else 100 + number
            settings = {"tokens": {"default_lifetime_seconds": lifetime}}
            broken = lifetime > 3_600
            expected = "cannot be used" if broken else "are in force"
            before = edge.server.log().count(expected)
            edge.server.change_settings(**settings, server={"workers": 1 + number % 3})
            deadline = time.monotonic() + 120
            while edge.server.log().count(expected) == before:
                assert time.monotonic() < deadline, edge.server.log()
                time.sleep(0.1)
    load.require_all_served()
    other.require_all_served()
    assert edge.server.is_ready()


def test_twenty_ends_under_load_lose_nothing(edge: ServerFixture):
    """Case J116."""
    lost: list[str] = []
    for _ in range(TIMES):
        with steady_load(edge, "token", clients=4, pause_seconds=0.01) as load:
            time.sleep(1)
            assert edge.server.stop() == 0
            load.stop()
        assert all(set(requester.statuses) == {200} for requester in load.requesters)
        lost += load.lost()
        edge.server.start()
    assert lost == []
