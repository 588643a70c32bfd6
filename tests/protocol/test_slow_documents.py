"""Documents of one origin that come late: what they delay at a server with its usual threads."""

import socket
import threading
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest

from authz_server.settings import load_settings
from support.assertions import Signer
from support.client_id_documents import KEY, SCOPES, Publisher
from support.databases import copied_database
from support.live_server import LiveServer
from support.parties import Credentials, Parties
from support.protocol import ENDPOINTS
from support.redis_server import RedisServer
from support.secrets_watch import SecretsWatch
from support.settings_file import write_settings

_SECONDS = 60.0


class Slow(Publisher):
    """A web server whose documents wait until they are released."""

    def __init__(self) -> None:
        super().__init__()
        self.asked = threading.Semaphore(0)
        self.released = threading.Event()

    def _answer(self, connection: socket.socket, request: bytes) -> bool:
        self.asked.release()
        self.released.wait(_SECONDS)
        return super()._answer(connection, request)


class Site:
    """A server, a slow and a prompt origin of documents, and a client with a budget."""

    def __init__(self, server: LiveServer, slow: Slow, prompt: Publisher) -> None:
        self.server, self.slow, self.prompt = server, slow, prompt

    def ask(self, form: Mapping[str, str]) -> int:
        """Ask for a token; return the status."""
        sent = {"grant_type": "client_credentials", "scope": "mapper/link"} | form
        url = f"http://127.0.0.1:{self.server.port}{ENDPOINTS['token']}"
        return httpx.post(url, data=sent, timeout=_SECONDS).status_code

    def ask_as(self, client_id: str) -> int:
        """Ask as a client with a document."""
        return self.ask(Signer(client_id, KEY, time.time).form())


@pytest.fixture
def site_and_payer(request, tmp_path: Path) -> Iterator[tuple[Site, Credentials]]:
    with ExitStack() as running:
        start = running.enter_context
        redis, slow, prompt = start(RedisServer()), Slow(), Publisher()
        for publisher in (slow, prompt):
            start(publisher.server)
        running.callback(slow.released.set)
        (tmp_path / "redis-url").write_text(redis.url)
        url = start(copied_database(request, "sqlite", tmp_path))
        settings = {
            "clients": {"throttle": "redis", "redis_url": {"file": "redis-url"}},
            "client_id_documents": {
                "allowed_origins": {each.origin: SCOPES for each in (slow, prompt)}
            },
            "outbound": {
                "plain_http": True,
                "allowed_networks": ["127.0.0.0/8"],
                "timeout_seconds": 30,
            },
        }

        def write(**overrides):
            return write_settings(tmp_path, url, overrides)

        parties = Parties(load_settings(write(**settings)), SecretsWatch())
        with parties.together():
            parties.create_first_keys()
            parties.make_resource_server()
            budget = {"token_budget": {"per": "day", "tokens": 1}}
            payer = parties.make_client("payer", "client_secret_post", properties=budget)
        yield Site(start(LiveServer(write, tmp_path, workers=1, **settings)), slow, prompt), payer


def test_they_delay_neither_another_origin_nor_shared_counts(site_and_payer):
    site, payer = site_and_payer
    clients = [site.slow.publish(f"/{number}") for number in range(8)]
    with ThreadPoolExecutor(8) as threads:
        asked = [threads.submit(site.ask_as, each) for each in clients]
        try:
            # One origin may hold four; the others are asked to try again.
            soon = zip(range(4), as_completed(asked, timeout=_SECONDS), strict=False)
            assert [each.result() for _, each in soon] == [503] * 4
            assert all(site.slow.asked.acquire(timeout=_SECONDS) for _ in range(4))
            assert site.ask_as(site.prompt.publish("/erp")) == 200
            # Counted in Redis at once, so that this is the only one.
            assert [site.ask(payer.form()) for _ in range(2)] == [200, 429]
            assert sum(each.done() for each in asked) == 4
        finally:
            site.slow.released.set()
        assert sorted(each.result() for each in asked) == [200] * 4 + [503] * 4
