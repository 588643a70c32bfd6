import json
import resource
import socket
import threading
import time
from contextlib import ExitStack
from urllib.request import urlopen

import pytest

from authz_server.app import bare_application
from authz_server.endpoints.errors import ErrorResponses, handle_everything_else
from authz_server.endpoints.health import health_blueprint
from authz_server.serving.health_listener import (
    MAXIMUM_CONNECTIONS,
    READ_SECONDS,
    HealthListener,
)
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


def test_peers_that_say_nothing_keep_nobody_waiting():
    """Nor do they take a thread each. Case I101."""
    listener = HealthListener(_application, "127.0.0.1", 0)
    listener.start()
    before = threading.active_count()
    with ExitStack() as open_connections:
        for _ in range(3 * MAXIMUM_CONNECTIONS):
            peer = socket.create_connection(("127.0.0.1", listener.port))
            open_connections.callback(peer.close)
            peer.sendall(b"GET / HTTP/1.1\r\nX-A: a")
        with urlopen(f"http://127.0.0.1:{listener.port}/health/ready", timeout=20) as answer:
            assert answer.status == 200
        deadline = time.monotonic() + 20
        while threading.active_count() > before + MAXIMUM_CONNECTIONS:
            assert time.monotonic() < deadline
            time.sleep(0.01)
    listener.stop()


def test_peers_that_say_nothing_leave_files_for_others(monkeypatch):
    """Case I101."""
    monkeypatch.setattr(resource, "getrlimit", lambda _: (8, 8))
    listener = HealthListener(_application, "127.0.0.1", 0)
    listener.start()
    before = threading.active_count()
    with ExitStack() as open_connections:
        for _ in range(10):
            peer = socket.create_connection(("127.0.0.1", listener.port))
            open_connections.callback(peer.close)
        with urlopen(f"http://127.0.0.1:{listener.port}/health/ready", timeout=20) as answer:
            assert answer.status == 200
        # Before they are closed as silent.
        deadline = time.monotonic() + READ_SECONDS / 2
        while threading.active_count() > before + 2:
            assert time.monotonic() < deadline
            time.sleep(0.01)
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
        ("GET /" + "a" * 70_000 + " HTTP/1.1", 414),
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
