import json
import socket
from urllib.request import urlopen

import pytest

from authz_server.app import bare_application
from authz_server.endpoints.errors import ErrorResponses, handle_everything_else
from authz_server.endpoints.health import health_blueprint
from authz_server.serving.health_listener import HealthListener
from support.raw_http import RawConnection


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


@pytest.fixture(scope="module")
def port():
    """The port of a listener with the routes of an application."""
    app = bare_application("test")
    app.register_blueprint(health_blueprint({}, dict))
    handle_everything_else(app, ErrorResponses(1))
    listener = HealthListener(app, "127.0.0.1", 0)
    listener.start()
    yield listener.port
    listener.stop()


@pytest.mark.parametrize(
    ("line", "status"),
    [
        ("GET /health/live HTTP/1.1", 200),
        ("GET /health/live?a=%20 HTTP/1.0", 200),
        ("GET //health/live HTTP/1.1", 404),
        ("GET /health%2flive HTTP/1.1", 404),
        ("GET /health/../health/live HTTP/1.1", 404),
        ("POST /health/ready HTTP/1.1", 405),
        ("BREW /openapi.json HTTP/1.1", 405),
        ("GET /health/live HTTP/2.0", 400),
        ("GET /health/live HTTP/x", 400),
        ("GET", 400),
        ("GET / HTTP/1.1\r\n" + "X-A: a\r\n" * 200, 431),
    ],
    ids=lambda value: str(value)[:30],
)
def test_every_refusal_has_the_form_of_the_others(port, line, status):
    """Case I103."""
    with RawConnection(port) as connection:
        connection.send(f"{line}\r\nHost: localhost\r\n\r\n".encode())
        answer = connection.receive()
    assert answer.status == status
    assert answer.headers["server"] == "authz-server"
    assert status == 200 or json.loads(answer.body)["error"] == "invalid_request"
    assert (answer.headers.get("allow") == "GET, HEAD") == (status == 405)


def test_a_listener_that_never_started_gives_its_port_back():
    listener = HealthListener(_application, "127.0.0.1", 0)
    listener.stop()
    with socket.socket() as again:
        again.bind(("127.0.0.1", listener.port))
