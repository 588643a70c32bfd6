import socket
from urllib.request import urlopen

import pytest

from authz_server.serving.health_listener import HealthListener


def _application(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [environ["PATH_INFO"].encode()]


@pytest.mark.parametrize(("host", "shown"), [("127.0.0.1", "127.0.0.1"), ("::1", "[::1]")])
def test_it_serves_the_application_until_it_is_stopped(host, shown):
    try:
        listener = HealthListener(_application, host, 0)
    except OSError:
        assert host == "::1"  # a machine without IPv6
        return
    listener.start()
    with urlopen(f"http://{shown}:{listener.port}/health/live", timeout=5) as answer:
        assert answer.read() == b"/health/live"
        assert "Python" not in answer.headers["Server"]
    listener.stop()
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as peer:
        assert peer.connect_ex((host, listener.port)) != 0


def test_a_peer_that_says_nothing_keeps_nobody_waiting():
    """Case I101."""
    listener = HealthListener(_application, "127.0.0.1", 0)
    listener.start()
    idle = [socket.create_connection(("127.0.0.1", listener.port)) for _ in range(10)]
    with urlopen(f"http://127.0.0.1:{listener.port}/health/ready", timeout=2) as answer:
        assert answer.status == 200
    for connection in idle:
        connection.close()
    listener.stop()


def test_a_listener_that_never_started_gives_its_port_back():
    listener = HealthListener(_application, "127.0.0.1", 0)
    listener.stop()
    with socket.socket() as again:
        again.bind(("127.0.0.1", listener.port))
