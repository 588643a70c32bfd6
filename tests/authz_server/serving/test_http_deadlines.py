"""One connection of a worker: what takes too long, and how a refusal reaches a sender."""

import json
import socket
import time
from contextlib import contextmanager

import pytest

from support.raw_http import LAST_REQUEST, RawConnection
from support.worker_site import LOOPS, WorkerSite

HEAD = b"POST /echo HTTP/1.1\r\nHost: localhost\r\n"
EMPTY = HEAD + b"Content-Length: 0\r\n\r\n"
LONG = 60.0
SHORT = 0.4
#: A tick of the front may come as much later; the rest is a machine with other work.
LATE = 5.0


@contextmanager
def patient_site(loop: str):
    with WorkerSite(loop) as site:
        front = site.front
        front.header_seconds = front.body_seconds = front.keep_alive_seconds = LONG
        yield site


@pytest.fixture
def site():
    with patient_site("uvloop") as site:
        yield site


@pytest.fixture(params=LOOPS)
def any_site(request):
    """A site on each of the loops, for what their transports do."""
    with patient_site(request.param) as site:
        yield site


def reasons(site) -> list[str]:
    """Return why messages were refused, whether an endpoint was known or not."""
    faults = [each.fault.reason for each in site.requests if each.fault is not None]
    return faults + [each.reason for each in site.records]


def seconds_until_end(connection: RawConnection) -> float:
    """Wait until the server ends the connection; return how long that took."""
    began = time.monotonic()
    assert connection.receive() is None
    assert connection.closed_by_server
    return time.monotonic() - began


def test_a_fault_of_what_runs_beside_them_ends_no_deadline(site, caplog):
    """Case I101."""

    def fail() -> None:
        raise OSError("no space left")

    site.each_tick = fail
    time.sleep(SHORT)
    site.front.header_seconds = SHORT
    with site.connect() as connection:
        assert SHORT / 2 < seconds_until_end(connection) < SHORT + LATE
    assert "no space left" in caplog.text


def test_a_connection_that_stays_silent_is_closed_without_an_answer(site):
    """Case I101."""
    site.front.header_seconds = SHORT
    with site.connect() as connection:
        assert SHORT / 2 < seconds_until_end(connection) < SHORT + LATE
    assert reasons(site) == []


@pytest.mark.parametrize(
    ("path", "drop"), [("/echo", b""), ("/echo", b"a"), ("/nowhere", b""), ("/nowhere", b"a")]
)
def test_a_header_that_takes_too_long_is_refused_once(site, path, drop):
    """Case I101."""
    site.front.header_seconds = SHORT
    began = time.monotonic()
    with site.connect() as connection:
        connection.send(HEAD.replace(b"/echo", path.encode()) + b"X-A: ")
        for _ in range(15):
            connection.send(drop)
            time.sleep(0.05)
        answer = connection.receive()
        assert answer.status == 408
        assert answer.headers["connection"] == "close"
        assert SHORT / 2 < time.monotonic() - began < SHORT + LATE
        assert connection.receive() is None
    assert reasons(site) == ["request_timeout"]


@pytest.mark.parametrize("framing", [b"Content-Length: 1000", b"Transfer-Encoding: chunked"])
@pytest.mark.parametrize(("path", "drop"), [("/echo", b"1"), ("/echo", b""), ("/nowhere", b"")])
def test_a_body_that_takes_too_long_is_refused_once(site, framing, path, drop):
    """Case I101."""
    site.front.body_seconds = SHORT
    began = time.monotonic()
    with site.connect() as connection:
        connection.send(HEAD.replace(b"/echo", path.encode()) + framing + b"\r\n\r\n")
        for _ in range(15):
            connection.send(drop)
            time.sleep(0.05)
        assert connection.receive().status == 408
        assert SHORT / 2 < time.monotonic() - began < SHORT + LATE
        assert connection.receive() is None
    assert reasons(site) == ["request_timeout"]


def test_time_to_send_a_body_begins_with_it(site):
    """Case I101."""
    site.front.header_seconds = 1.0
    with site.connect() as connection:
        connection.send(HEAD + b"Content-Length: 5\r\n")
        time.sleep(0.2)
        connection.send(b"\r\n")
        for _ in range(5):
            time.sleep(0.3)
            connection.send(b"a")
        assert json.loads(connection.receive().body)["body"] == "aaaaa"


def test_an_idle_connection_is_closed_without_an_answer(site):
    """Case I101."""
    site.front.keep_alive_seconds = 3 * SHORT
    with site.connect() as connection:
        for _ in range(3):
            connection.send(EMPTY)
            assert connection.receive().status == 200
            time.sleep(SHORT / 4)
        assert SHORT < seconds_until_end(connection) < 3 * SHORT + LATE
    assert reasons(site) == []


def test_a_connection_in_use_is_not_idle(site):
    site.front.keep_alive_seconds = 2.0
    with site.connect() as connection:
        for _ in range(6):
            connection.send(EMPTY)
            assert connection.receive().status == 200
            time.sleep(0.45)


def test_the_next_header_on_a_connection_has_its_own_time(site):
    """Case I101."""
    site.front.header_seconds = SHORT
    with site.connect() as connection:
        connection.send(EMPTY + HEAD)
        assert connection.receive().status == 200
        assert connection.receive().status == 408
        assert connection.receive() is None
    assert reasons(site) == ["request_timeout"]


def test_a_request_under_way_is_answered_however_long_that_takes(site):
    for name in ("header_seconds", "body_seconds", "keep_alive_seconds"):
        setattr(site.front, name, SHORT)
    with site.connect() as connection:
        # The first on a new connection, then one on a connection that was idle.
        for _ in range(2):
            site.gate.clear()
            connection.send(HEAD.replace(b"/echo", b"/held") + b"Content-Length: 1\r\n\r\n")
            connection.send(b"a")
            time.sleep(3 * SHORT)
            site.gate.set()
            assert connection.receive().status == 200
    assert reasons(site) == []


def test_a_request_behind_one_under_way_has_its_time_from_then_on(site):
    """Case I101."""
    site.front.body_seconds = SHORT
    with site.connect() as connection:
        connection.send(HEAD.replace(b"/echo", b"/held") + b"Content-Length: 0\r\n\r\n")
        time.sleep(0.05)
        connection.send(HEAD + b"Content-Length: 5\r\n\r\na")
        time.sleep(3 * SHORT)
        site.gate.set()
        assert connection.receive().status == 200
        connection.send(b"aaaa")
        assert connection.receive().status == 200
        connection.send(HEAD + b"Content-Length: 5\r\n\r\na")
        assert connection.receive().status == 408


@pytest.mark.parametrize(
    ("opening", "status"),
    [
        (HEAD + b"Content-Length: 30000000\r\n\r\n", 413),
        (HEAD + b"Transfer-Encoding: chunked\r\n\r\n1c9c380\r\n", 413),
        (HEAD + b"X-A: ", 431),
        (HEAD + b"Content-Length: 1\r\nContent-Length: 1\r\n\r\n", 400),
        (HEAD.replace(b"Host: localhost\r\n", b"") + b"Content-Length: 30000000\r\n\r\n", 400),
    ],
)
def test_a_refusal_reaches_a_sender_that_is_still_writing(any_site, opening, status):
    """Case I102."""
    for _ in range(2):
        with any_site.connect() as connection:
            connection.send(opening)
            for _ in range(100):
                connection.send(b"a" * 100_000)
            answer = connection.receive()
            assert answer.status == status
            assert answer.headers["connection"] == "close"
            connection.finish_sending()
            assert connection.receive() is None
    assert len(reasons(any_site)) == 2


def test_the_server_has_no_more_to_say_after_a_refusal_and_says_so(any_site):
    with any_site.connect() as connection:
        connection.send(HEAD + b"Content-Length: 30000000\r\n\r\n")
        assert connection.receive().status == 413
        # The end of what the server sends, while it still reads.
        assert connection.receive() is None
        connection.send(EMPTY * 100)
        time.sleep(0.1)
        assert any_site.connection_count() == 1
    any_site.await_connections(0)
    assert len(any_site.requests) == 1


def test_a_sender_that_writes_on_after_its_refusal_is_cut(any_site):
    """Case I102."""
    with any_site.connect() as connection:
        connection.send(HEAD + b"Content-Length: 30000000\r\n\r\n")
        began = time.monotonic()
        while not connection.closed_by_server:
            assert time.monotonic() - began < LATE
            connection.send(b"a" * 1_000)
            time.sleep(0.02)
    any_site.await_connections(0)


def test_a_connection_that_a_message_closes_is_closed_when_its_peer_does_not_read(any_site):
    """Case I101."""
    any_site.front.body_seconds = SHORT
    with socket.socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
        connection.connect(("127.0.0.1", any_site.port))
        connection.sendall(EMPTY.replace(b"/echo", b"/large").replace(b"1.1", b"1.0"))
        any_site.await_connections(1)
        any_site.await_connections(0)


def test_answers_leave_before_the_connection_that_ends_with_them(any_site):
    with any_site.connect() as connection:
        connection.send(EMPTY.replace(b"/echo", b"/large") + LAST_REQUEST)
        answers = connection.receive_all()
        assert [each.status for each in answers] == [200, 404]
        assert len(answers[0].body) == int(answers[0].headers["content-length"])
