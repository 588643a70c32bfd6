import socket
import sys
import time

import pytest

from authz_server.cli.worker import close_silent_connections, load_application

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="told by Linux alone")


@pytest.fixture
def listener():
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server


def _connect(listener):
    peer = socket.create_connection(listener.getsockname(), timeout=5)
    return peer, listener.accept()[0]


def test_a_connection_on_which_nothing_is_sent_is_closed(listener):
    """Case I101."""
    peer, accepted = _connect(listener)
    with peer, accepted:
        peer.sendall(b"POST / HTTP/1.1\r\nContent-Length: 100\r\n\r\nab")
        time.sleep(0.3)
        peer.sendall(b"c")  # a body that drips
        assert close_silent_connections(listener.getsockname()[1], 0.2) == 1
        assert peer.recv(1) == b""


def test_a_connection_that_was_answered_lately_stays(listener):
    peer, accepted = _connect(listener)
    with peer, accepted:
        time.sleep(0.3)
        accepted.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
        assert close_silent_connections(listener.getsockname()[1], 0.2) == 0
        assert peer.recv(100)
        peer.sendall(b"more")
        assert accepted.recv(4) == b"more"


def test_connections_to_other_ports_and_listeners_stay(listener):
    with socket.create_server(("127.0.0.1", 0)) as other:
        peer, accepted = _connect(listener)
        with peer, accepted:
            time.sleep(0.1)
            assert close_silent_connections(other.getsockname()[1], 0.0) == 0
            peer.sendall(b"x")
            assert accepted.recv(1) == b"x"
        peer, accepted = _connect(other)
        peer.close()
        accepted.close()


def test_an_application_is_loaded_by_its_name():
    loaded = load_application("json:dumps", port=1, silence_seconds=60)
    assert loaded([]) == "[]"
