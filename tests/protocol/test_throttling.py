"""Failed authentications are slowed down for whoever makes them, and for nobody else."""

import gc
import time
import tracemalloc
from statistics import median

import pytest

from support.protocol import ENDPOINTS, METHODS, Protocol, facts, present, require_refusal

ATTACKER, HOME = "203.0.113.66", "198.51.100.7"
WRONG = "wrong-wrong-wrong-wrong-wrong-wrong-wrong-w"


@pytest.fixture
def throttled(start_protocol) -> Protocol:
    """An application that throttles as it does by default: after 100 failures in a minute."""
    return start_protocol(clients={"failures_per_window": 100})


def offer(protocol: Protocol, endpoint: str, method: str, pair: tuple[str, str], source: str):
    """Offer an id and a secret from an address."""
    fields, headers = present(method, *pair)
    form = protocol.form(endpoint) | fields
    return protocol.post(endpoint, form, headers, environ_base={"REMOTE_ADDR": source})


def guess(protocol: Protocol, endpoint: str, method: str, client_id: str, source: str = ATTACKER):
    return offer(protocol, endpoint, method, (client_id, WRONG), source)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("endpoint", ENDPOINTS)
def test_guesser_is_slowed_down_and_the_client_is_not(
    throttled: Protocol, endpoint: str, method: str
):
    """Case A13."""
    client = throttled.demo.clients[method]

    def own_request() -> int:
        began = time.thread_time_ns()
        answer = offer(throttled, endpoint, method, (client.id, client.secret), HOME)
        took = time.thread_time_ns() - began
        assert answer.status_code == 200
        return took

    before = median(own_request() for _ in range(30))
    answers = [guess(throttled, endpoint, method, client.id) for _ in range(1_000)]
    assert [answer.status_code for answer in answers] == [401] * 100 + [429] * 900
    last = answers[-1]
    require_refusal(last, 429, "slow_down", endpoint)
    assert 1 <= int(last.headers["Retry-After"]) <= 61
    assert "WWW-Authenticate" not in last.headers
    # The right secret is not even looked at from there.
    answer = offer(throttled, endpoint, method, (client.id, client.secret), ATTACKER)
    assert answer.status_code == 429
    assert median(own_request() for _ in range(30)) < 2 * before


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("endpoint", ENDPOINTS)
def test_throttling_tells_nothing_of_who_exists(throttled: Protocol, endpoint: str, method: str):
    """Cases A1, A13."""
    other = next(each for each in METHODS if each != method)
    cast = (throttled.demo.clients[method].id, throttled.demo.clients[other].id, "no-such-client")
    last = []
    for client_id in cast:
        answers = [guess(throttled, endpoint, method, client_id) for _ in range(101)]
        assert [answer.status_code for answer in answers] == [401] * 100 + [429]
        last.append(facts(answers[-1]))
    assert last[0] == last[1] == last[2]


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("endpoint", ENDPOINTS)
def test_failures_at_all_endpoints_count_together(throttled: Protocol, endpoint: str, method: str):
    """Case A13."""
    client = throttled.demo.clients[method]
    for number in range(100):
        guess(throttled, tuple(ENDPOINTS)[number % 4], method, client.id)
    assert guess(throttled, endpoint, method, client.id).status_code == 429


def test_window_passes(throttled: Protocol):
    """Case A13."""
    client, method = throttled.demo.post, "client_secret_post"
    for _ in range(101):
        answer = guess(throttled, "token", method, client.id)
    wait = int(answer.headers["Retry-After"])
    throttled.clock.advance(wait - 2)
    assert guess(throttled, "token", method, client.id).status_code == 429
    throttled.clock.advance(2)
    assert guess(throttled, "token", method, client.id).status_code == 401
    answer = offer(throttled, "token", method, (client.id, client.secret), ATTACKER)
    assert answer.status_code == 200


def test_source_is_the_peer_unless_a_trusted_proxy_says_otherwise(start_protocol):
    """Cases A13, I100."""
    protocol = start_protocol(
        clients={"failures_per_window": 3}, server={"trusted_proxies": ["10.0.0.0/24"]}
    )
    client = protocol.demo.post

    def status(peer: str, forwarded: str) -> int:
        form = protocol.form("token") | {"client_id": client.id, "client_secret": WRONG}
        headers = {"X-Forwarded-For": forwarded}
        base = {"REMOTE_ADDR": peer}
        return protocol.post("token", form, headers, environ_base=base).status_code

    # Behind the proxy each sender has a count of its own; what a sender writes itself is not read.
    assert [status("10.0.0.5", f"{n}.1.1.1, {ATTACKER}") for n in range(1, 5)] == [401] * 3 + [429]
    assert status("10.0.0.5", f"{ATTACKER}, {HOME}") == 401
    # A stranger that claims to forward is counted as itself.
    assert [status("192.0.2.1", f"{n}.2.2.2") for n in range(1, 5)] == [401] * 3 + [429]


def test_long_ids_do_not_fill_the_memory(throttled: Protocol):
    """Case A13."""
    gc.collect()
    tracemalloc.start()
    try:
        for number in range(300):
            guess(throttled, "token", "client_secret_post", f"{number:04}" + "x" * 8_000)
        gc.collect()
        kept, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert kept < 300 * 4_000
