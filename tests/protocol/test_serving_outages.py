"""`serve` while its database hangs or its disk is full: what goes on, and what is refused."""

import time

import httpx
import pytest
from sqlalchemy import make_url

from support.edge import ServerFixture, running_edge
from support.load import Requester, SteadyLoad, whole_request
from support.tcp_proxy import TcpProxy

FILE_BYTES = 2_000_000


def test_a_database_that_hangs_does_not_touch_the_issuing_of_tokens(
    postgresql, postgresql_url, tmp_path
):
    """Nor the keys, which others than the server's threads for its database serve. Case J114."""
    timing = {
        "statement_timeout_milliseconds": 1_000,
        "pool_timeout_milliseconds": 500,
        # The memory is young enough for as long as this takes.
        "staleness_limit_milliseconds": 60_000,
    }
    with TcpProxy(postgresql.port) as proxy:
        url = make_url(postgresql_url).set(port=proxy.port)
        through = url.render_as_string(hide_password=False)
        with running_edge(tmp_path, through, database=timing) as edge:
            token, introspection = (whole_request(edge, each) for each in ("token", "introspect"))
            keys, lists = (
                f"GET {path} HTTP/1.1\r\nHost: authz.example\r\n\r\n".encode()
                for path in ("/.well-known/jwks.json", "/status-lists/1")
            )
            proxy.silence()
            issuing = [Requester(edge.port, token, keeps=keeps) for keeps in (True, False)]
            issuing.append(Requester(edge.port, keys, keeps=True))
            asking = [Requester(edge.port, introspection, keeps=True) for _ in range(20)]
            asking += [Requester(edge.port, lists, keeps=True) for _ in range(10)]
            with SteadyLoad(*issuing) as issued, SteadyLoad(*asking) as asked:
                time.sleep(4)
                asked.stop()
            issued.require_all_served()
            latencies = sorted(each for one in issuing for each in one.latencies)
            assert latencies[int(len(latencies) * 0.95)] < 0.5
            for requester in asked.requesters:
                assert requester.failures == []
                assert set(requester.statuses) == {503}
                assert max(requester.latencies) < 10
            proxy.heal()
            deadline = time.monotonic() + 60
            while edge.post("introspect", {"token": edge.token}).status_code != 200:
                assert time.monotonic() < deadline
                time.sleep(0.1)
            assert edge.token_is_active()


def await_readiness(edge: ServerFixture, status: int, reason: str = "") -> None:
    """Wait until the server is ready or names the reason."""
    deadline = time.monotonic() + 20
    while True:
        answer = httpx.get(f"{edge.server.health_url}/health/ready", timeout=10)
        if answer.status_code == status and reason in answer.text:
            return
        assert time.monotonic() < deadline, answer.text
        time.sleep(0.1)


@pytest.mark.parametrize("endpoint", ["token", "revoke"])
def test_a_full_disk_stops_what_must_be_recorded_and_nothing_else(database_url, tmp_path, endpoint):
    """Case J112, Case K125."""
    # No file of the server grows beyond this size; in units of 1,024 bytes.
    limited = ("bash", "-c", f'ulimit -f {FILE_BYTES // 1_024}; exec "$@"', "bash")
    with running_edge(tmp_path, database_url, prefix=limited) as edge:
        trail = tmp_path / "audit.jsonl"
        before = trail.read_bytes()
        form = edge.form(endpoint)
        with trail.open("ab") as stream:
            stream.write(b" " * (FILE_BYTES // 1_024 * 1_024 - len(before) - 1) + b"\n")
        answer = edge.post(endpoint, form)
        assert answer.status_code == 503
        assert int(answer.headers["Retry-After"]) >= 1
        assert "access_token" not in answer.text
        await_readiness(edge, 503, "audit: the sink cannot be written (File too large)")
        for path in ("/.well-known/jwks.json", "/.well-known/oauth-authorization-server"):
            url = edge.server.base_url + path
            assert httpx.get(url, headers={"Host": "authz.example"}).status_code == 200
        assert edge.token_is_active()
        trail.write_bytes(before)
        # Without a request that could be recorded.
        await_readiness(edge, 200)
        assert edge.post(endpoint, form).status_code == 200
        assert edge.token_is_active() is (endpoint == "token")
