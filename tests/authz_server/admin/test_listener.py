"""The management listener: a port and a worker of its own."""

import os
import signal
import time

import httpx
import pytest

from support.ports import release_port, reserve_port


@pytest.fixture
def admin_port():
    """A port for the management listener."""
    port = reserve_port()
    yield port
    release_port(port)


def test_it_is_absent_by_default(live_server):
    assert len(live_server.worker_process_ids()) == 1


def test_it_has_a_worker_of_its_own_that_is_replaced(start_live_server, admin_port: int):
    server = start_live_server(admin={"enabled": True, "port": admin_port})
    url = f"http://127.0.0.1:{admin_port}"
    assert httpx.get(f"{url}/oauth2/token").status_code == 404
    assert httpx.get(f"{url}/.well-known/jwks.json").status_code == 404
    assert httpx.get(f"{server.base_url}/.well-known/jwks.json").status_code == 200
    # An encoded path leads to its route, and the front refuses in the form of the API.
    for answer, status in (
        (httpx.get(f"{url}/admin/v1/clients/district%2F7"), 401),
        (httpx.get(f"{url}/admin/v1/clients/district/7"), 404),
        (httpx.post(f"{url}/admin/v1/clients", content=b"x" * 100_000), 413),
        (httpx.get(f"{url}/nothing"), 404),
    ):
        assert answer.status_code == status, answer.text
        assert answer.headers["Content-Type"] == "application/problem+json"
        assert answer.json()["status"] == status
    workers = server.worker_process_ids()
    assert len(workers) == 2
    for worker in workers:
        os.kill(worker, signal.SIGKILL)
        server.await_log(f"worker {worker} exited with status -9")
    deadline = time.monotonic() + 30
    while True:
        try:
            assert httpx.get(f"{url}/admin/v1/nothing").status_code == 404
            break
        except httpx.TransportError:
            assert time.monotonic() < deadline, server.log()
            time.sleep(0.05)


def test_a_reload_opens_and_closes_it(start_live_server, admin_port: int):
    server = start_live_server(admin={"enabled": False, "port": admin_port})
    url = f"http://127.0.0.1:{admin_port}/admin/v1/nothing"
    with pytest.raises(httpx.ConnectError):
        httpx.get(url)
    server.change_settings(admin={"enabled": True})
    server.await_log("the new settings are in force")
    assert httpx.get(url).status_code == 404
    server.change_settings(admin={"enabled": False})
    deadline = time.monotonic() + 30
    while server.log().count("the new settings are in force") < 2:
        assert time.monotonic() < deadline, server.log()
        time.sleep(0.05)
    with pytest.raises(httpx.TransportError):
        httpx.get(url)
