"""A fetcher under the control of a test."""

from collections.abc import Callable

import pytest

from authz_server.clients.fetching import Fetcher
from authz_server.settings import OutboundSettings
from authz_server.waiting import run

LOOPBACK = ("127.0.0.0/8",)
DOCUMENT = b'{"keys": []}'


class Clock:
    """Monotonic seconds that a test moves."""

    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def monotonic() -> Clock:
    """The monotonic seconds of fetchers."""
    return Clock()


@pytest.fixture
def fetched() -> list[str]:
    """The outcomes that fetchers notify of."""
    return []


@pytest.fixture
def make_fetcher(monotonic: Clock, fetched: list[str]):
    """A function of settings that returns a fetcher that may reach this machine by http."""

    def start(resolve: Callable | None = None, **settings) -> Fetcher:
        usual = {"allowed_networks": LOOPBACK, "plain_http": True, "timeout_seconds": 1}
        resolving = {} if resolve is None else {"resolve": resolve}
        return Fetcher(
            OutboundSettings(**usual | settings),
            lambda event: fetched.append(event.outcome),
            now=monotonic,
            **resolving,
        )

    return start


def get(fetcher: Fetcher, url: str, **options) -> bytes:
    """Fetch a document on this thread."""
    return run(fetcher.fetch(url, **options))
