"""The memory and the fetches that clients with metadata documents may cause."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from threading import Event

from authz_server.clients import client_documents
from support.client_id_documents import Site, running_site
from support.protocol import require_refusal


def test_memory_and_fetches_are_bounded(sqlite_url: str, tmp_path):
    with running_site(tmp_path, sqlite_url, maximum_documents=2) as site:
        ids = [site.publisher.publish(f"/{number}") for number in range(3)]
        for _ in range(2):
            for client_id in ids:
                assert site.token(client_id)
        exceed_the_limit(site)
        # A client that is held is not concerned.
        assert site.token(ids[2])


def exceed_the_limit(site: Site) -> None:
    """Ask for so many documents that further ones are fetched one at a time."""
    for number in range(client_documents.NEW_DOCUMENTS):
        refused = site.ask("token", f"{site.publisher.origin}/missing/{number}")
        require_refusal(refused, 401, "invalid_client")


def test_new_documents_beyond_the_limit_are_fetched_one_at_a_time(sqlite_url: str, tmp_path):
    """All clients may have the address of one proxy."""
    with running_site(tmp_path, sqlite_url) as site:
        exceed_the_limit(site)
        second = site.publisher.publish("/second")
        with waiting_for_another(site):
            refused = site.ask("token", second)
        require_refusal(refused, 429, "slow_down")
        assert refused.headers["Retry-After"] == "1"
        assert site.ask("token", second).status_code == 200


def test_requests_that_cause_no_fetch_do_not_count(sqlite_url: str, tmp_path):
    """Such as those of strangers for a document that is not there: it has just been asked for."""
    with running_site(tmp_path, sqlite_url) as site:
        # The time until the next attempt is that of a URL that asks to be left alone.
        site.publisher.retry_after = 300
        for _ in range(2 * client_documents.NEW_DOCUMENTS):
            refused = site.ask("token", f"{site.publisher.origin}/missing")
            require_refusal(refused, 401, "invalid_client")
        second = site.publisher.publish("/second")
        with waiting_for_another(site):
            assert site.ask("token", second).status_code == 200


@contextmanager
def waiting_for_another(site: Site) -> Iterator[None]:
    """Let a request wait for the document of a client meanwhile."""
    first = site.publisher.publish("/first")
    asked, answer = Event(), Event()
    usual = site.publisher.server._answer  # noqa: SLF001 - it waits

    def wait(connection, request):
        if b" /first " in request:
            asked.set()
            answer.wait(60)
        return usual(connection, request)

    site.publisher.server._answer = wait  # noqa: SLF001
    with ThreadPoolExecutor(1) as pool:
        slow = pool.submit(site.ask, "token", first)
        try:
            assert asked.wait(60)
            yield
        finally:
            answer.set()
        assert slow.result().status_code == 200
