"""More requests than `serve` can answer: some are refused at once, others served as ever."""

from collections.abc import Iterator
from statistics import median
from typing import NamedTuple

import pytest

from support.edge import ServerFixture, running_edge
from support.load import Overload, Requester, whole_request

CONNECTIONS = 4_000


@pytest.fixture(scope="module")
def edge(module_database_url, tmp_path_factory) -> Iterator[ServerFixture]:
    """A server that takes connections enough to be overloaded from one address."""
    limits = {"maximum_connections": 8_000, "maximum_connections_per_address": 8_000}
    directory = tmp_path_factory.mktemp("server")
    with running_edge(directory, module_database_url, server=limits) as edge:
        yield edge


def usual_seconds(edge: ServerFixture) -> float:
    """Return the median time of an answer, all of which must be 200."""
    requester = Requester(edge.port, whole_request(edge, "token"), keeps=True)
    for _ in range(50):
        requester.ask()
    requester.close()
    assert requester.statuses == {200: 50}, requester.failures
    return median(requester.latencies)


class Round(NamedTuple):
    """Answers per second without and with overload, and how long a refusal took."""

    peak: float
    goodput: float
    refusals: int
    refusal_seconds: float


def is_in_time(each: Round) -> bool:
    """Tell whether some were served as ever, and the others refused at once."""
    # Where answers wait for the database, all may be served in time.
    is_shed = each.refusals > 0 or each.goodput > each.peak / 2
    return is_shed and each.refusal_seconds < 2 and each.goodput > each.peak / 20


@pytest.mark.parametrize("endpoint", ["token", "introspect"])
def test_overload_is_refused_and_some_are_served_as_ever(edge: ServerFixture, endpoint: str):
    """Case J119."""
    usual, request = usual_seconds(edge), whole_request(edge, endpoint)
    # The sender of all this needs one core, and the server another; other tests take them at times.
    rounds = []
    while not any(map(is_in_time, rounds)):
        assert len(rounds) < 5, rounds
        peak = Overload(edge.port, request).run(16, 0.5)
        overload = Overload(edge.port, request, pause_seconds=0.1)
        goodput = overload.run(CONNECTIONS, 1.5)
        assert overload.others == {}
        assert overload.without_retry_after == 0
        rounds.append(
            Round(peak, goodput, len(overload.refusals), median(overload.refusals or [0]))
        )
    assert usual_seconds(edge) < max(10 * usual, 0.5)
