"""Senders who are slow, silent or say too much, and what honest clients notice of them."""

import time

import httpx
import pytest

from support.edge import ENDPOINTS, ServerFixture
from support.raw_http import RawConnection

SECONDS = 2
LONGEST_ANSWER_SECONDS = 8
PAUSE_SECONDS = 0.04
CONNECTIONS = 200
SLOWEST_PERCENTILE_SECONDS = 0.5
MEMORY_GROWTH_BYTES = 10_000_000
PROCESSOR_SECONDS = 0.05
REPETITIONS = 10


class SlowSender:
    """A connection that never finishes its request; `drop` is what it sends now and then."""

    def __init__(self, edge: ServerFixture, endpoint: str, manner: str) -> None:
        head, _ = edge.request(endpoint, harmless=True)
        opening, self._drop = {
            "idle": (b"", b""),
            "between-requests": (b"GET /nowhere HTTP/1.1\r\nHost: localhost\r\n\r\n", b""),
            "dripping-headers": (head + b"X-A: ", b"a"),
            "dripping-body": (head + b"Content-Length: 60000\r\n\r\ntoken=", b"a"),
            "silent-body": (head + b"Content-Length: 60000\r\n\r\n", b""),
        }[manner]
        self._connection = RawConnection(edge.port)
        self._connection.send(opening)

    def drip(self) -> None:
        if self._drop and not self._connection.closed_by_server:
            self._connection.send(self._drop)

    def close(self) -> None:
        with self._connection:
            pass


def latencies(
    edge: ServerFixture, endpoint: str, seconds: float, senders: list[SlowSender]
) -> list[float]:
    """Make honest requests, half of them on new connections; return how long each took."""
    measured, end = [], time.monotonic() + seconds
    next_drip = time.monotonic()
    one_each = httpx.Limits(max_keepalive_connections=0)
    with httpx.Client() as kept_alive, httpx.Client(limits=one_each) as connecting:
        while time.monotonic() < end:
            if time.monotonic() > next_drip:
                next_drip += 1
                for sender in senders:
                    sender.drip()
            for client in (kept_alive, connecting):
                began = time.monotonic()
                answer = client.post(
                    edge.server.base_url + ENDPOINTS[endpoint],
                    data=edge.form(endpoint, harmless=True),
                    headers=edge.headers(endpoint),
                    timeout=LONGEST_ANSWER_SECONDS,
                )
                measured.append(time.monotonic() - began)
                assert answer.status_code == 200, answer.text
            time.sleep(PAUSE_SECONDS)
    return sorted(measured)


@pytest.mark.parametrize("endpoint", ENDPOINTS)
def test_slow_senders_do_not_slow_honest_clients(edge: ServerFixture, endpoint: str):
    """Case I101."""
    manners = ("idle", "between-requests", "dripping-headers", "dripping-body", "silent-body")
    senders = [
        SlowSender(edge, endpoint, manners[number % len(manners)]) for number in range(CONNECTIONS)
    ]
    try:
        measured = latencies(edge, endpoint, SECONDS, senders)
    finally:
        for sender in senders:
            sender.close()
    assert len(measured) > 20
    assert measured[int(len(measured) * 0.99)] < SLOWEST_PERCENTILE_SECONDS


def test_slow_bodies_alone_do_not_stop_the_server(edge: ServerFixture):
    """Case I101."""
    senders = [SlowSender(edge, "token", "dripping-body") for _ in range(CONNECTIONS)]
    try:
        measured = latencies(edge, "token", SECONDS, senders)
    finally:
        for sender in senders:
            sender.close()
    assert measured[int(len(measured) * 0.99)] < SLOWEST_PERCENTILE_SECONDS


BODIES = {
    "two-megabytes": lambda form: form + b"&a=" + b"x" * 2_000_000,
    "two-megabytes-of-one-name": lambda form: form + b"&" + b"x" * 2_000_000,
    "twenty-thousand-parameters": lambda form: form + b"".join(b"&a%d=" % n for n in range(20_000)),
    "hundred-kilobyte-value": lambda form: form + b"&a=" + b"x" * 100_000,
    "sixty-kilobyte-value": lambda form: form + b"&a=" + b"x" * 60_000,
    "thousand-parameters": lambda form: form + b"".join(b"&a%d=1" % n for n in range(1_000)),
    "sixty-thousand-separators": lambda form: form + b"&" * 60_000,
    "sixty-kilobytes-of-escapes": lambda form: form + b"&a=" + b"%41" * 20_000,
}


def require_refusal(edge: ServerFixture, request: bytes) -> None:
    with edge.connect() as connection:
        connection.send(request)
        answer = connection.receive()
    assert answer is not None
    assert answer.status in (400, 413)


@pytest.mark.parametrize("endpoint", ENDPOINTS)
@pytest.mark.parametrize("name", BODIES)
def test_oversized_forms_are_refused_at_once(edge: ServerFixture, endpoint: str, name: str):
    """Case I102."""
    head, form = edge.request(endpoint)
    body = BODIES[name](form)
    request = head + b"Content-Length: %d\r\n\r\n" % len(body) + body
    require_refusal(edge, request)
    memory, processor = edge.memory_bytes(), edge.cpu_seconds()
    for _ in range(REPETITIONS):
        require_refusal(edge, request)
    # Processor time: how long it takes also depends on what else the machine does.
    assert (edge.cpu_seconds() - processor) / REPETITIONS < PROCESSOR_SECONDS
    assert edge.memory_bytes() - memory < MEMORY_GROWTH_BYTES
    assert edge.token_is_active()


@pytest.mark.parametrize("endpoint", ENDPOINTS)
def test_body_announced_as_endless_is_refused_before_it_comes(edge: ServerFixture, endpoint: str):
    """Case I102."""
    head, form = edge.request(endpoint)
    with edge.connect() as connection:
        connection.send(head + b"Content-Length: 9999999999\r\n\r\n" + form)
        answer = connection.receive()
    assert answer is not None
    assert answer.status == 413
    assert edge.token_is_active()
