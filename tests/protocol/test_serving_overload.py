"""More requests than `serve` can answer: some are refused at once, others served as ever."""

from collections.abc import Iterator
from statistics import median

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


@pytest.mark.parametrize("endpoint", ["token", "introspect"])
def test_overload_is_refused_and_some_are_served_as_ever(edge: ServerFixture, endpoint: str):
    """Case J119."""
    usual, request = usual_seconds(edge), whole_request(edge, endpoint)
    # The sender of all this needs one core, and the server another.
    peak = Overload(edge.port, request).run(16, 0.5)
    overload = Overload(edge.port, request, pause_seconds=0.1)
    goodput = overload.run(CONNECTIONS, 1.5)
    assert overload.others == {}
    assert overload.without_retry_after == 0
    # Where answers wait for the database, all may be served in time.
    assert overload.refusals or goodput > peak / 2
    assert median(overload.refusals or [0]) < 2
    assert goodput > peak / 20
    assert usual_seconds(edge) < max(10 * usual, 0.5)
