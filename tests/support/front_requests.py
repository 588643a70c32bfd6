"""Requests to a worker's front, and connections that are held open."""

from contextlib import ExitStack

import pytest

from support.raw_http import RawConnection
from support.worker_site import LOOPS, WorkerSite

HEAD = b"POST /echo HTTP/1.1\r\nHost: localhost\r\n"
EMPTY = HEAD + b"Content-Length: 0\r\n\r\n"
HELD = EMPTY.replace(b"/echo", b"/held")
BODY = HEAD + b"Content-Length: 10\r\n\r\na"


def post(path: str, body: bytes = b"") -> bytes:
    head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


@pytest.fixture(params=LOOPS)
def make_site(request):
    """A function of settings that returns a running site."""
    with ExitStack() as running:
        yield lambda **settings: running.enter_context(WorkerSite(request.param, **settings))


@pytest.fixture
def hold():
    """A function of a site, a count and an opening that returns connections held open."""
    with ExitStack() as held:

        def open_many(site: WorkerSite, count: int, opening: bytes = b"", source: str = "") -> list:
            connections = [
                RawConnection(site.port, 5.0, source or "127.0.0.1") for _ in range(count)
            ]
            for each in connections:
                held.enter_context(each)
                each.send(opening)
            return connections

        yield open_many


def ended(connections: list[RawConnection]) -> list[bool]:
    """Tell of each connection whether the server has ended it."""
    for each in connections:
        each.notice_end()
    return [each.closed_by_server for each in connections]
