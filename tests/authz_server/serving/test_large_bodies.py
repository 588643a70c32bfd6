"""Bodies above the usual limit: from whom, where, and how many at the same time."""

import pytest

from authz_server.serving.large_bodies import MOST_AT_ONCE
from support.raw_http import RawConnection
from support.worker_site import LOOPS, WorkerSite

USUAL, LARGE = 10_000, 50_000
CALLER = b"Authorization: Bearer x\r\n"


@pytest.fixture(params=LOOPS)
def site(request):
    with WorkerSite(
        request.param, maximum_body_bytes=USUAL, larger_bodies={"/large-here": LARGE}
    ) as site:
        yield site


def begin(
    connection: RawConnection,
    length: int = LARGE,
    *,
    path: bytes = b"/large-here",
    method: bytes = b"POST",
    caller: bytes = CALLER,
) -> None:
    """Send a header that expects 100 (Continue), and a part of the body."""
    framing = b"Content-Length: %d\r\n" % length if length else b"Transfer-Encoding: chunked\r\n"
    head = b"%b %b HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\n%b%b\r\n" % (
        method,
        path,
        caller,
        framing,
    )
    connection.send(head + (b"x" * 100 if length else b"64\r\n" + b"x" * 100 + b"\r\n"))


def test_a_large_body_is_read_from_a_caller_there_alone(site):
    """Anything else gets the usual limit, before its body is read."""
    for others in (
        {"caller": b""},
        {"caller": b"Authorization: \r\n"},
        {"caller": b"Cookie: language=fr\r\n"},
        {"path": b"/elsewhere"},
        {"path": b"/echo"},
        {"method": b"GET"},
        {"length": LARGE + 1},
    ):
        with site.connect() as connection:
            begin(connection, **others)
            assert connection.receive().status == 413, others
    with site.connect() as connection:
        begin(connection)
        connection.send(b"x" * (LARGE - 100))
        answer = connection.receive()
        # Nothing answers there, and the connection ends.
        assert (answer.status, answer.body) == (404, b"POST /large-here")
        assert answer.headers["connection"] == "close"


@pytest.mark.parametrize("length", [LARGE, 0], ids=["with a length", "in chunks"])
def test_few_large_bodies_are_under_way_at_once(site, length):
    """Further ones are refused with 503, and a small body is not counted."""
    connections = [site.connect() for _ in range(MOST_AT_ONCE)]
    for each in connections:
        begin(each, length)
        assert each.receive_interim() == 100
    with site.connect() as another, site.connect() as small:
        begin(small, 100)  # the whole body
        assert small.receive().status == 404
        begin(another, length)
        refused = another.receive()
    assert (refused.status, "retry-after" in refused.headers) == (503, True)
    connections.pop().__exit__()
    site.await_connections(MOST_AT_ONCE - 1)
    with site.connect() as another:
        begin(another, length)
        another.send(b"x" * (LARGE - 100) if length else b"0\r\n\r\n")
        assert another.receive().status == 404
    for each in connections:
        each.__exit__()
