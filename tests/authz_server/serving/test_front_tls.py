"""A worker's front where it speaks TLS itself."""

import json
import os
import socket
import ssl
import threading
import time
from contextlib import ExitStack

import pytest

from authz_server.serving.tls import read_tls_files, tls_context
from authz_server.settings import ServerSettings
from support.openbao_authority import CertificateAuthority
from support.worker_site import LARGE_BYTES, LOOPS, WorkerSite

HEAD = b"POST /echo HTTP/1.1\r\nHost: localhost\r\n"
EMPTY = HEAD + b"Content-Length: 0\r\n\r\n"


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    return CertificateAuthority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(params=LOOPS)
def make_site(request, authority):
    """A function of settings that returns a running site."""
    certified = authority.certify("localhost")
    tls = tls_context(
        ServerSettings(
            tls_certificate=str(certified.certificate_path),
            tls_private_key=str(certified.private_key_path),
        )
    )
    with ExitStack() as running:
        yield lambda **settings: running.enter_context(
            WorkerSite(request.param, tls=tls, **settings)
        )


@pytest.fixture
def connect(authority):
    """A function of a site that returns a connection by TLS."""
    trust = ssl.create_default_context(cafile=str(authority.certificate_path))
    with ExitStack() as held:

        def open_one(site: WorkerSite, source: str = "127.0.0.1") -> ssl.SSLSocket:
            plain = socket.create_connection(("127.0.0.1", site.port), 10, (source, 0))
            return held.enter_context(trust.wrap_socket(plain, server_hostname="localhost"))

        yield open_one


def receive(connection: ssl.SSLSocket, count: int = 1) -> list[tuple[int, bytes]]:
    """Return status and body of the next answers."""
    answers = []
    with connection.makefile("rb") as stream:
        for _ in range(count):
            status, length = int(stream.readline()[9:12]), 0
            while (line := stream.readline()) != b"\r\n":
                name, _, value = line.partition(b":")
                length = int(value) if name.lower() == b"content-length" else length
            answers.append((status, stream.read(length)))
    return answers


def test_requests_are_answered_in_order(make_site, connect):
    site = make_site()
    connection = connect(site)
    assert connection.version() == "TLSv1.3"
    bodies = [b"%d" % number for number in range(100)]
    for body in bodies:
        connection.sendall(HEAD + b"Content-Length: %d\r\n\r\n%b" % (len(body), body))
    answers = [json.loads(body) for _, body in receive(connection, len(bodies))]
    assert [each["body"].encode() for each in answers] == bodies
    assert {each["peer"] for each in answers} == {"127.0.0.1"}
    connection.sendall(EMPTY.replace(b"1.1", b"1.0"))
    assert [status for status, _ in receive(connection)] == [200]
    assert connection.recv(1) == b""


def test_large_answers_arrive_whole(make_site, connect):
    connection = connect(make_site())
    connection.sendall(EMPTY.replace(b"/echo", b"/large") * 10)
    assert [len(body) for _, body in receive(connection, 10)] == [LARGE_BYTES] * 10


def test_a_refusal_reaches_a_sender_that_is_still_writing(make_site, connect):
    """Case I102."""
    site = make_site()
    connection = connect(site)
    connection.sendall(HEAD + b"Content-Length: 30000000\r\n\r\n")
    for _ in range(20):
        connection.sendall(b"a" * 100_000)
    assert connection.recv(65_536).startswith(b"HTTP/1.1 413 ")
    connection.close()
    site.await_connections(0)


def test_whoever_does_not_speak_tls_is_closed(make_site, connect):
    """Case I103."""
    site = make_site()
    with site.connect() as plain:
        plain.send(EMPTY)
        plain.notice_end()
        deadline = time.monotonic() + 60
        while not plain.closed_by_server and time.monotonic() < deadline:
            time.sleep(0.02)
            plain.notice_end()
        assert plain.closed_by_server
    connect(site).sendall(EMPTY)
    assert site.records == []


def test_a_handshake_that_takes_too_long_is_cut(make_site):
    """Case I101."""
    site = make_site()
    site.front.header_seconds = 0.4
    with site.connect() as silent:
        silent.send(b"\x16\x03\x01\x02")
        assert silent.receive_all() == []
        assert silent.closed_by_server


@pytest.mark.parametrize("limit", ["maximum_connections", "maximum_connections_per_address"])
def test_handshakes_that_do_not_end_keep_no_honest_client_out(make_site, connect, limit):
    """Case I101."""
    site = make_site(**{limit: 10})
    with ExitStack() as held:
        for number in range(60):
            silent = held.enter_context(site.connect())
            silent.send(b"\x16\x03\x01\x02" if number % 2 else b"")
        began = time.monotonic()
        for source in ("127.0.0.1", "127.0.0.2"):
            connection = connect(site, source)
            connection.sendall(EMPTY)
            assert [status for status, _ in receive(connection)] == [200]
        # The deadline of a handshake is ten seconds.
        assert time.monotonic() - began < 5
        assert site.connection_count() <= 10


def test_the_end_does_not_wait_for_handshakes_beyond_its_grace(make_site):
    """Case J116."""
    site = make_site()
    with site.connect() as silent:
        silent.send(b"\x16\x03\x01\x02")
        time.sleep(0.1)
        began = time.monotonic()
        site.start_drain(0.5).result(timeout=10)
        assert time.monotonic() - began < 5


@pytest.mark.parametrize("name", ["tls_certificate", "tls_private_key"])
def test_a_file_that_has_become_a_pipe_is_refused_and_not_waited_for(tmp_path, name: str):
    """The thread of a reload would wait for ever, and no later reload would come."""
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "file").touch()
    paths = dict.fromkeys(("tls_certificate", "tls_private_key"), str(tmp_path / "file"))
    settings = ServerSettings(**paths | {name: str(tmp_path / "pipe")})
    errors: list[OSError] = []

    def act() -> None:
        try:
            read_tls_files(settings)
        except OSError as error:
            errors.append(error)

    thread = threading.Thread(target=act, daemon=True)
    thread.start()
    thread.join(30)
    assert [each.strerror for each in errors] == ["not a regular file"]
