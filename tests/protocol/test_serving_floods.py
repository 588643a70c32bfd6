"""Floods of one sender against `serve`: honest clients, of the same address too, are served on."""

import json
import time
from collections import Counter
from contextlib import ExitStack

import pytest

from support.databases import DIALECTS, copied_database
from support.edge import ENDPOINTS, ServerFixture, running_edge
from support.load import Flood, Requester, SteadyLoad, steady_load, whole_request
from support.raw_http import RawConnection

CONNECTIONS = 1_000
SECONDS = 3.0
SLOWEST_PERCENTILE_SECONDS = 0.5


def dripping(edge: ServerFixture) -> list[bytes]:
    """Return the beginnings of a header and of a body that never end."""
    head, _ = edge.request("token", harmless=True)
    return [head + b"X-A: ", head + b"Content-Length: 60000\r\n\r\ngrant_type="]


def slowest_percentile(edge: ServerFixture, seconds: float) -> float:
    """Ask from the address of the flood and from another, on kept and on new connections."""
    request = whole_request(edge, "token")
    load = SteadyLoad(
        *(
            Requester(edge.port, request, keeps=keeps, source=source)
            for keeps in (True, False)
            for source in ("127.0.0.2", "127.0.0.3")
        )
    )
    with load:
        time.sleep(seconds)
    load.require_all_served()
    latencies = sorted(each for one in load.requesters for each in one.latencies)
    return latencies[int(len(latencies) * 0.99)]


def test_a_thousand_idle_and_a_thousand_dripping_connections_slow_nobody(edge: ServerFixture):
    """Case I101."""
    openings = [b""] * CONNECTIONS + dripping(edge) * (CONNECTIONS // 2)
    # Where the machine has other work, that slows everybody without a flood too.
    usual = slowest_percentile(edge, 1.0)
    with Flood(edge.port, openings, "127.0.0.2") as flood:
        assert slowest_percentile(edge, SECONDS) < max(SLOWEST_PERCENTILE_SECONDS, 4 * usual)
        # Those beyond the limits of one sender were closed, and came again.
        assert flood.opened > 2 * CONNECTIONS


@pytest.mark.parametrize("limit", ["-S -n 256", "-n 512"])
def test_senders_of_many_addresses_do_not_use_up_the_files_of_a_worker(sqlite_url, tmp_path, limit):
    """Case I101."""
    prefix = ("sh", "-c", f'ulimit {limit}; exec "$@"', "sh")
    with running_edge(tmp_path, sqlite_url, prefix=prefix) as edge, ExitStack() as floods:
        for number in range(4, 8):
            floods.enter_context(Flood(edge.port, [b""] * 200, f"127.0.0.{number}"))
        assert slowest_percentile(edge, 1.0) < 5
        assert edge.token_is_active()
        assert "cannot accept connections" not in edge.server.log()


@pytest.fixture(scope="module", params=DIALECTS)
def hasty(request, tmp_path_factory):
    """A server that waits a second for a header or a body, and two for the next request."""
    directory = tmp_path_factory.mktemp("hasty")
    deadlines = {"header_timeout_seconds": 1, "body_timeout_seconds": 1, "keep_alive_seconds": 2}
    with (
        copied_database(request, request.param, directory) as url,
        running_edge(directory, url, server=deadlines) as edge,
    ):
        yield edge


def records_of(edge: ServerFixture, reason: str, text: str) -> Counter[str]:
    """Return how many refusals for that reason are recorded after `text`, by kind of record."""
    counts: Counter[str] = Counter()
    for line in edge.audit_trail()[len(text) :].splitlines():
        record = json.loads(line)
        if record.get("reason") == reason:
            counts[record["event"]] += record.get("count", 1)
    return counts


def test_slow_senders_are_cut_in_time_and_recorded_once(hasty: ServerFixture):
    """Case I101."""
    before, began = hasty.audit_trail(), time.monotonic()
    connections = []
    for endpoint in ENDPOINTS:
        head, _ = hasty.request(endpoint, harmless=True)
        # Few enough that each is recorded by itself.
        openings = [head + b"X-A: ", head + b"Content-Length: 60000\r\n\r\na"]
        for opening in openings * 3:
            connections.append(RawConnection(hasty.port, 20.0))
            connections[-1].send(opening)
    with steady_load(hasty, "introspect", clients=1) as load:
        for drip in range(12):
            time.sleep(0.3)
            for each in connections[drip % 4 :: 4]:
                each.send(b"a")
        for each in connections:
            with each:
                answer = each.receive()
                assert answer.status == 408
                assert json.loads(answer.body)["error"] == "invalid_request"
                assert each.receive() is None
    # What is used outlives every deadline.
    load.require_all_served()
    assert time.monotonic() - began < 15
    assert records_of(hasty, "request_timeout", before) == {
        "request.refused": 9,
        "token.refused": 3,
        "introspection.refused": 3,
        "revocation.refused": 3,
    }


def test_silent_connections_are_closed_in_time_without_a_record(hasty: ServerFixture):
    """Case I101."""
    before = hasty.audit_trail()
    silent = [RawConnection(hasty.port, 20.0) for _ in range(10)]
    used = [RawConnection(hasty.port, 20.0) for _ in range(10)]
    for each in used:
        each.send(whole_request(hasty, "introspect"))
        assert each.receive().status == 200
    for each in (*silent, *used):
        with each:
            assert each.receive() is None
            assert each.closed_by_server
    assert "request_timeout" not in hasty.audit_trail()[len(before) :]
