"""Two nodes that count failures, tokens and registrations together, in the database or in Redis."""

import http.client
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import httpx
import pytest

from authz_server.settings import load_settings
from support.databases import copied_database
from support.live_server import LiveServer
from support.parties import Credentials, Parties
from support.protocol import ENDPOINTS, FORM_TYPE, METHODS, TOKEN_ENDPOINTS, present
from support.redis_server import RedisServer
from support.registration import REGISTER
from support.secrets_watch import SecretsWatch
from support.settings_file import write_settings

LIMIT = 12
BUDGET = 5
WRONG = "w" * 43
JSON = {"Content-Type": "application/json"}


class Nodes:
    """Two servers with one store of counts, and clients that they know from their start."""

    def __init__(
        self,
        servers: list[LiveServer],
        clients: Mapping[tuple[str, ...], Credentials],
        redis: RedisServer | None,
    ) -> None:
        self.servers, self.clients, self.redis = servers, clients, redis

    def status(self, number: int, endpoint: str, client: Credentials, secret: str = "") -> int:
        """Send a secret, the client's own unless another is given; return the status."""
        fields, headers = present(client.method, client.id, secret or client.secret)
        form = {"grant_type": "client_credentials", "token": "invented"} | fields
        port = self.servers[number % len(self.servers)].port
        with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=20)) as connection:
            sent = headers | {"Content-Type": FORM_TYPE}
            connection.request("POST", ENDPOINTS[endpoint], urlencode(form), sent)
            return connection.getresponse().status

    def registration_status(self, number: int) -> int:
        """Send a registration without a token, or ask for one; return the status."""
        port = self.servers[number % len(self.servers)].port
        registers = number % 4 < 2
        method, path = ("POST", REGISTER) if registers else ("GET", f"{REGISTER}/unknown")
        with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=20)) as connection:
            connection.request(method, path, "{}" if registers else None, JSON if registers else {})
            return connection.getresponse().status


@pytest.fixture(scope="module", params=["sqlite", "postgresql", "redis"])
def nodes(request, tmp_path_factory) -> Iterator[Nodes]:
    directory: Path = tmp_path_factory.mktemp("nodes")
    store = "redis" if request.param == "redis" else "database"
    dialect = "sqlite" if request.param == "redis" else request.param
    with ExitStack() as running:
        redis = running.enter_context(RedisServer()) if store == "redis" else None
        url = running.enter_context(copied_database(request, dialect, directory))
        shared: dict[str, Any] = {"throttle": store}
        if redis is not None:
            (directory / "redis-url").write_text(redis.url)
            shared["redis_url"] = {"file": "redis-url"}
        settings = {
            "clients": shared | {"failures_per_window": LIMIT},
            "registration": {"enabled": True, "requests_per_window": LIMIT},
        }

        def write(**overrides):
            return write_settings(directory, url, overrides)

        parties = Parties(load_settings(write(**settings)), SecretsWatch())
        with parties.together():
            parties.create_first_keys()
            parties.make_resource_server()
            clients = make_clients(parties)
        servers = [
            running.enter_context(LiveServer(write, directory, workers=1, **settings))
            for _ in range(2)
        ]
        yield Nodes(servers, clients, redis)


def make_clients(parties: Parties) -> Mapping[tuple[str, ...], Credentials]:
    """Return a client for each test; one with a budget where that matters."""
    budget = {"token_budget": {"per": "day", "tokens": BUDGET}}
    made = {}
    for method in METHODS:
        for endpoint in ENDPOINTS:
            made["guessed", endpoint, method] = parties.make_client(
                f"guessed-{endpoint}-{method[14:]}", method
            )
        for endpoint in (*TOKEN_ENDPOINTS, "outage"):
            made["limited", endpoint, method] = parties.make_client(
                f"limited-{endpoint}-{method[14:]}", method, properties=budget
            )
    return made


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("endpoint", ENDPOINTS)
def test_failures_on_both_nodes_count_together(nodes: Nodes, endpoint: str, method: str):
    """And the right secret gets in at each of them. Cases A13, T285."""
    client = nodes.clients["guessed", endpoint, method]
    together = threading.Barrier(LIMIT)

    def guess(number: int) -> int:
        together.wait()
        return nodes.status(number, endpoint, client, WRONG)

    with ThreadPoolExecutor(LIMIT) as guessers:
        assert set(guessers.map(guess, range(LIMIT))) == {401}
    assert [nodes.status(number, endpoint, client, WRONG) for number in range(4)] == [429] * 4
    assert [nodes.status(number, endpoint, client) for number in range(2)] == [200, 200]
    unknown = Credentials(f"unknown-{endpoint}-{method[14:]}", WRONG, method)
    statuses = [nodes.status(number, endpoint, unknown) for number in range(LIMIT + 2)]
    assert statuses == [401] * LIMIT + [429] * 2


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("endpoint", TOKEN_ENDPOINTS)
def test_a_budget_holds_over_both_nodes(nodes: Nodes, endpoint: str, method: str):
    """Of sixteen requests at once, five get a token. Cases T283, T285."""
    client = nodes.clients["limited", endpoint, method]
    together = threading.Barrier(16)

    def fetch(number: int) -> int:
        together.wait()
        return nodes.status(number, endpoint, client)

    with ThreadPoolExecutor(16) as clients:
        assert Counter(clients.map(fetch, range(16))) == {200: BUDGET, 429: 11}
    assert [nodes.status(number, endpoint, client) for number in range(2)] == [429, 429]


def test_registration_requests_to_both_nodes_count_together(nodes: Nodes):
    """At both addresses of registration. Case T285."""
    together = threading.Barrier(LIMIT)

    def register(number: int) -> int:
        together.wait()
        return nodes.registration_status(number)

    with ThreadPoolExecutor(LIMIT) as senders:
        assert set(senders.map(register, range(LIMIT))) == {401}
    assert [nodes.registration_status(number) for number in range(4)] == [429] * 4


def await_status(server: LiveServer, status: str) -> str:
    """Return the body of the health listener's readiness, once it has this status."""
    deadline = time.monotonic() + 30
    while True:
        answer = httpx.get(f"{server.health_url}/health/ready", timeout=10)
        if answer.json()["status"] == status:
            return answer.text
        assert time.monotonic() < deadline, answer.text
        time.sleep(0.1)


@pytest.mark.parametrize("nodes", ["redis"], indirect=True)
def test_without_its_store_each_node_counts_for_itself(nodes: Nodes):
    """It says so once, and again when the store is back. Case T285."""
    client = nodes.clients["limited", "outage", METHODS[1]]
    nodes.redis.stop()
    statuses = [nodes.status(number, "token", client, WRONG) for number in range(2 * LIMIT + 2)]
    assert statuses == [401] * (2 * LIMIT) + [429] * 2
    granted = [nodes.status(number, "token", client) for number in range(12)]
    assert granted == [200] * (2 * BUDGET) + [429] * 2
    for server in nodes.servers:
        assert server.log().count("each process counts for itself") == 1
        assert "shared_counts: Redis: " in await_status(server, "degraded")
    nodes.redis.start()
    for number, server in enumerate(nodes.servers):
        deadline = time.monotonic() + 30
        while "the shared counts work again" not in server.log():
            assert time.monotonic() < deadline
            # A pair of its own each time: a process does not ask about one beyond the limit.
            guessed = Credentials(f"unknown-{time.monotonic_ns()}", WRONG, METHODS[1])
            assert nodes.status(number, "token", guessed) == 401
        await_status(server, "ready")
