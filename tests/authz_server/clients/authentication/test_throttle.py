"""The throttle counts failures for each pair of client id and network, in bounded space."""

import pytest

from authz_server.clients.authentication import throttle as throttle_module
from authz_server.clients.authentication.throttle import FailureThrottle, network_of


@pytest.mark.parametrize(
    ("address", "network"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("::FFFF:c000:201", "192.0.2.1"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:DB8:1:2::", "2001:db8:1:2::/64"),
        ("::1", "::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("", ""),
        ("unix:", "unix:"),
        ("x" * 500, "x" * 64),
    ],
)
def test_sender_is_counted_by_its_network(address, network):
    """Case A13."""
    assert network_of(address) == network


def test_failure_beyond_the_limit_has_to_wait_until_the_window_ends():
    """Case A13."""
    throttle = FailureThrottle(failures=2, window_seconds=60)
    assert [throttle.count_failure("a", "192.0.2.1", 1_000.0) for _ in range(3)] == [0, 0, 61]
    assert throttle.seconds_to_wait("a", "192.0.2.1", 1_030.5) == 30
    assert throttle.seconds_to_wait("b", "192.0.2.1", 1_030.5) == 0
    assert throttle.seconds_to_wait("a", "192.0.2.2", 1_030.5) == 0
    assert throttle.count_failure("a", "192.0.2.1", 1_059.0) == 2
    assert throttle.seconds_to_wait("a", "192.0.2.1", 1_060.0) == 0
    assert throttle.count_failure("a", "192.0.2.1", 1_060.0) == 0


def test_clock_that_was_set_back_ends_the_window():
    """Case A13."""
    throttle = FailureThrottle(failures=1, window_seconds=60)
    throttle.count_failure("a", "192.0.2.1", 1_000.0)
    assert throttle.seconds_to_wait("a", "192.0.2.1", 900.0) == 0
    assert throttle.count_failure("a", "192.0.2.1", 900.0) == 0


def test_oldest_pairs_are_dropped_beyond_the_maximum(monkeypatch):
    """Case A13."""
    monkeypatch.setattr(throttle_module, "MAXIMUM_PAIRS", 3)
    throttle = FailureThrottle(failures=1, window_seconds=60)
    for number in range(5):
        throttle.count_failure(f"client-{number}", "192.0.2.1", 1_000.0)
    waits = [throttle.seconds_to_wait(f"client-{n}", "192.0.2.1", 1_000.0) for n in range(5)]
    assert waits == [0, 0, 61, 61, 61]
