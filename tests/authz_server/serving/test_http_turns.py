"""One connection of a worker: requests in turn, half-closed peers, and answers that stay unread."""

import json
import socket
import time
from contextlib import suppress
from threading import Thread

import pytest

from authz_server.serving.http import Connection
from authz_server.serving.senders import Phase
from support.raw_http import LAST_REQUEST, RawConnection
from support.worker_site import LARGE_BYTES, LOOPS, WorkerSite

MANY = 2_000
#: What an event loop reads at once, at most.
READ_BYTES = 262_144


def post(path: str, body: bytes = b"", more: bytes = b"") -> bytes:
    head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n"
    return head.encode() + more + b"\r\n" + body


#: More than a hundred of these are parsed in several pieces.
LARGE = post("/large", more=b"Padding: %b\r\n" % (b"x" * 300))


@pytest.fixture(params=LOOPS)
def site(request):
    with WorkerSite(request.param) as site:
        yield site


def echoes(connection: RawConnection, count: int) -> list[str]:
    """Return the bodies that the next requests had, as their answers say."""
    answers = [connection.receive() for _ in range(count)]
    assert {each.status for each in answers} == {200}
    return [json.loads(each.body)["body"] for each in answers]


def test_requests_in_one_piece_are_answered_in_order(site):
    """Case I100."""
    data = b"".join(post("/echo", b"%d" % number) for number in range(MANY))
    with site.connect() as connection:
        connection.send(data)
        assert echoes(connection, MANY) == [str(number) for number in range(MANY)]
        connection.send(LAST_REQUEST)
        assert [each.status for each in connection.receive_all()] == [404]


def test_requests_in_pieces_of_any_size_are_answered_in_order(site):
    """Case I100."""
    bodies = [b"%d" % number * (number % 40) for number in range(200)]
    data = b"".join(post("/echo", body) for body in bodies)
    for size in (1, 7, 100, 1_461):
        with site.connect() as connection:
            for start in range(0, len(data), size):
                connection.send(data[start : start + size])
            assert echoes(connection, len(bodies)) == [each.decode() for each in bodies]


def test_answers_that_wait_hold_the_ones_behind_them(site):
    """Case I100."""
    with site.connect() as connection:
        connection.send(post("/echo", b"1") + post("/held", b"2") + post("/echo", b"3"))
        connection.send(post("/held", b"4") + post("/echo", b"5"))
        assert echoes(connection, 1) == ["1"]
        assert site.requests[-1].body == b"1"
        site.gate.set()
        assert echoes(connection, 4) == ["2", "3", "4", "5"]


def test_a_sender_of_many_requests_gives_way_to_others(site):
    """Case I101."""
    busy = post("/busy", b"5") * 400
    with site.connect() as greedy, site.connect() as honest:
        greedy.send(busy)
        for _ in range(10):
            honest.send(post("/echo"))
            assert honest.receive().status == 200
        # Long before the other's last one.
        assert sum(each.path == "/busy" for each in site.requests) < 350
        assert greedy.receive().status == 200


def test_nothing_more_is_read_while_a_request_waits_for_its_answer(site):
    """Case I102."""
    with site.connect() as connection:
        connection.send(post("/held"))
        sent, ends = 0, time.monotonic() + 0.5
        connection.set_blocking(blocking=False)
        while time.monotonic() < ends:
            try:
                sent += connection.send_some(post("/echo", b"x" * 10_000))
            except BlockingIOError:
                time.sleep(0.02)
        # What the buffers of the kernel hold, and no more.
        assert sent < 20_000_000


@pytest.mark.parametrize("path", ["/echo", "/held"])
def test_a_peer_that_has_sent_everything_gets_its_answers(site, path):
    with site.connect() as connection:
        connection.send(post(path, b"1") + post("/echo", b"2") + post("/echo", b"3"))
        connection.finish_sending()
        time.sleep(0.1)
        site.gate.set()
        assert echoes(connection, 3) == ["1", "2", "3"]
        assert connection.receive() is None
        assert connection.closed_by_server
    site.await_connections(0)


def test_a_peer_that_has_sent_nothing_is_closed(site):
    with site.connect() as connection:
        connection.finish_sending()
        assert connection.receive() is None
        assert connection.closed_by_server
    assert site.records == []
    site.await_connections(0)


@pytest.mark.parametrize(
    "data",
    [
        *(b"POST /ec", b"POST /echo HTTP/1.1\r\nHost: localhost\r\n", post("/echo", b"a")[:-1]),
        b"POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n",
    ],
)
def test_a_message_that_ends_early_is_refused(site, data):
    """Case I100."""
    with site.connect() as connection:
        connection.send(data)
        connection.finish_sending()
        assert connection.receive().status == 400
        assert connection.receive() is None
    assert [each.fault.reason for each in site.requests] + [
        each.reason for each in site.records
    ] == ["message_malformed"]


def test_a_peer_that_is_gone_takes_nothing_along(site):
    with site.connect() as connection:
        connection.send(post("/held") + post("/echo") * 10)
        site.await_connections(1)
    time.sleep(0.1)
    site.gate.set()
    site.await_connections(0)
    with site.connect() as other:
        other.send(post("/echo", b"a"))
        assert echoes(other, 1) == ["a"]


def test_a_malformed_message_does_not_speak_for_the_ones_before_it(site):
    """Case I100."""
    malformed = b"BROKEN\r\n\r\n"
    for before in range(5):
        with site.connect() as connection:
            connection.send(b"".join(post("/echo", b"%d" % n) for n in range(before)) + malformed)
            answers = connection.receive_all()
            assert connection.closed_by_server
        bodies = [json.loads(each.body).get("body") for each in answers[:before]]
        assert bodies == [str(number) for number in range(before)]
        assert [each.status for each in answers[before:]] in ([], [400])


def test_a_malformed_message_waits_for_the_answers_before_it(site):
    """Case I100."""
    with site.connect() as connection:
        connection.send(post("/held", b"1") + post("/echo", b"2") + b"BROKEN\r\n\r\n")
        connection.send(post("/echo", b"3"))
        time.sleep(0.1)
        site.gate.set()
        assert echoes(connection, 2) == ["1", "2"]
        answers = connection.receive_all()
        assert [each.status for each in answers] in ([], [400])
        assert connection.closed_by_server


def test_a_refused_message_between_others_ends_the_connection_in_its_turn(site):
    """Case I100."""
    repeated = post("/echo", b"2", b"Content-Type: a\r\nContent-Type: a\r\n")
    with site.connect() as connection:
        connection.send(post("/echo", b"1") + repeated + post("/echo", b"3"))
        answers = connection.receive_all()
        assert [each.status for each in answers] == [200, 400]
        assert answers[1].headers["connection"] == "close"
        assert connection.closed_by_server


def test_a_close_that_the_peer_asks_for_comes_after_its_answer(site):
    with site.connect() as connection:
        connection.send(post("/echo", b"1") + post("/echo", b"2", b"Connection: close\r\n") * 2)
        answers = connection.receive_all()
        assert [each.status for each in answers] == [200, 200]
        assert "connection" not in answers[0].headers
        assert answers[1].headers["connection"] == "close"
        assert connection.closed_by_server


def test_a_long_pipeline_is_parsed_in_pieces(site):
    """So that other connections get their turn, and it takes little memory. Case I102."""
    with site.connect() as connection, site.connect() as other:
        connection.send(post("/held") + post("/echo", b"1") * 3_000)
        site.await_held(1)
        other.send(post("/echo", b"2"))
        assert other.receive().status == 200
        queued = site.run(lambda: max(len(each._queue) for each in site.front._connections))  # noqa: SLF001 - what it holds
        assert queued < 300
        site.gate.set()
        for _ in range(3_001):
            assert connection.receive().status == 200


@pytest.mark.parametrize("body", [b"", b"x" * 4_000])
def test_an_endless_pipeline_is_read_no_faster_than_it_is_answered(site, body):
    """Each request waits for a thread. Case I102."""
    site.gate.set()
    data, ends = post("/held", body) * 200, time.monotonic() + 60

    def receive(connection: socket.socket) -> None:
        with suppress(OSError):
            while connection.recv(1_000_000):
                pass

    def send(connection: socket.socket) -> None:
        with suppress(OSError):
            while True:
                connection.sendall(data)

    with socket.create_connection(("127.0.0.1", site.port)) as connection:
        peers = [Thread(target=each, args=[connection]) for each in (receive, send)]
        for peer in peers:
            peer.start()
        most = 0
        while site.held < 500 and time.monotonic() < ends:
            most = max(most, *held_bytes(site))
            time.sleep(0.01)
        connection.shutdown(socket.SHUT_RDWR)
    for peer in peers:
        peer.join()
    # A late loop notices at the next read that one waits.
    assert most <= READ_BYTES * (2 if site._is_late else 1)  # noqa: SLF001 - no timing tells
    assert site.held >= 500


def test_a_peer_that_has_sent_everything_and_reads_late_gets_its_answers(site):
    """The rest of a read waits beside an answer that the peer has no room for."""
    count = 100
    with small_window(site) as connection:
        connection.settimeout(10)
        connection.sendall(post("/held") + LARGE * count)
        connection.shutdown(socket.SHUT_WR)
        site.await_held(1)
        time.sleep(0.1)
        site.gate.set()
        time.sleep(0.3)
        received = 0
        while data := connection.recv(65_536):
            received += len(data)
    assert len(site.requests) == count + 1
    assert received > count * LARGE_BYTES


def test_a_drain_waits_for_the_rest_of_a_read(site):
    """Its sender has no room for the answers before it."""
    count = 100
    with small_window(site) as connection:
        connection.settimeout(10)
        connection.sendall(LARGE * count)
        while not any(held_bytes(site)):
            time.sleep(0.01)
        ended = site.start_drain(30.0)
        received = 0
        while data := connection.recv(65_536):
            received += len(data)
        ended.result()
    assert received > count * LARGE_BYTES


def test_nothing_is_parsed_after_the_refusal_of_a_message(site, monkeypatch):
    """The first piece of a read may close the connection."""
    phases, feed = [], Connection._feed  # noqa: SLF001 - what is parsed

    def note(connection, data):
        phases.append(connection.phase)
        feed(connection, data)

    monkeypatch.setattr(Connection, "_feed", note)
    with site.connect() as connection:
        connection.send(b"BROKEN\r\n\r\n" + b"x" * 60_000)
        assert [each.status for each in connection.receive_all()] == [400]
    assert phases
    assert Phase.CLOSING not in phases


@pytest.mark.parametrize("rest", [b"", b"c: d\r\n"])
def test_a_header_that_begins_behind_a_message_has_the_same_limit(site, rest):
    """Case I102."""
    first = post("/echo", b"1") + post("/echo")[:-2] + b"a: %b\r\n" % (b"x" * 12_000)
    with site.connect() as connection:
        connection.send(first)
        assert echoes(connection, 1) == ["1"]
        connection.send(rest + b"\r\n")
        assert connection.receive().status == 431


def held_bytes(site) -> list[int]:
    """Return how many bytes each connection holds unparsed; 0 if there is none."""
    return [0, *site.run(lambda: [len(each._held) for each in site.front._connections])]  # noqa: SLF001 - no answer tells


def small_window(site) -> socket.socket:
    """Return a connection whose peer can take little unread."""
    connection = socket.socket()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
    connection.connect(("127.0.0.1", site.port))
    return connection


def test_answers_that_are_read_late_all_arrive(site):
    site.front.body_seconds = 60.0
    with small_window(site) as connection:
        connection.sendall(post("/large") * 50 + LAST_REQUEST)
        time.sleep(0.5)
        connection.settimeout(10)
        received = 0
        while data := connection.recv(65_536):
            received += len(data)
    assert received > 50 * LARGE_BYTES


def test_a_peer_that_does_not_read_its_answers_is_read_no_further(site):
    """Case I102."""
    site.front.body_seconds = 60.0
    with small_window(site) as connection:
        connection.settimeout(0)
        request, ends, sent = post("/large"), time.monotonic() + 1.5, 0
        while time.monotonic() < ends:
            try:
                sent += connection.send(request * 100)
            except BlockingIOError:
                time.sleep(0.02)
    # A few answers fill the buffers; without a limit there would be thousands.
    assert len(site.requests) < 200


def test_a_peer_that_does_not_read_its_answers_is_cut(site):
    """Case I101."""
    site.front.body_seconds = 0.4
    with small_window(site) as connection:
        connection.sendall(post("/large") * 50)
        site.await_connections(1)
        site.await_connections(0)
    assert len(site.requests) < 50
    assert site.records == []


def test_a_peer_that_reads_slowly_but_reads_is_not_cut(site):
    site.front.body_seconds = site.front.keep_alive_seconds = 1.0
    with small_window(site) as connection:
        connection.settimeout(10)
        connection.sendall(post("/large") * 40 + LAST_REQUEST)
        received, next_pause = 0, LARGE_BYTES
        while data := connection.recv(65_536):
            received += len(data)
            if received > next_pause:
                next_pause += LARGE_BYTES
                time.sleep(0.05)
    assert received > 40 * LARGE_BYTES
