"""One connection of a worker: lengths and chunk sizes, by which a body is read or refused."""

import json
import time

import pytest

from support.framing import CHUNKED, chunks
from support.raw_http import RawResponse
from support.worker_site import LOOPS, WorkerSite

HEAD = b"POST /echo HTTP/1.1\r\nHost: localhost\r\n"
FORM = b"grant_type=client_credentials&scope=a"
BODY_LIMIT = 20_000


@pytest.fixture(scope="module", params=LOOPS)
def site(request):
    with WorkerSite(request.param, maximum_body_bytes=BODY_LIMIT) as site:
        yield site


def send(site, *parts: bytes) -> RawResponse:
    """Send a message in these parts; return the response, which comes before a deadline does."""
    with site.connect(5.0) as connection:
        for part in parts:
            connection.send(part)
            time.sleep(0.05 * (len(parts) > 1))
        answer = connection.receive()
    assert answer is not None
    return answer


@pytest.mark.parametrize("zeros", [1, 5_000])
def test_a_length_may_begin_with_zeros(site, zeros):
    """As many as the header has room for. Case I100, Case I106."""
    for body in (FORM, b""):
        framing = b"Content-Length: %b%d\r\n\r\n" % (b"0" * zeros, len(body))
        answer = send(site, HEAD + framing + body)
        assert answer.status == 200
        got = json.loads(answer.body)
        assert (got["body"], got["headers"]["content-length"]) == (body.decode(), str(len(body)))
    large = HEAD + b"Content-Length: %b%d\r\n\r\n" % (b"0" * zeros, BODY_LIMIT + 1)
    assert send(site, large).status == 413


@pytest.mark.parametrize(
    "body",
    [
        b"ffffffffffffffff\r\nab",
        b"7FFFFFFFFFFFFFFF;a=b\r\nab",
        b"%x\r\n" % (BODY_LIMIT + 1),
        b"2\r\nab\r\n%x\r\na" % (BODY_LIMIT - 1),
    ],
)
def test_a_chunk_that_is_too_large_is_refused_before_it_arrives(site, body):
    """Case I100, Case I102."""
    answer = send(site, HEAD + CHUNKED + b"\r\n" + body)
    assert (answer.status, answer.headers["connection"]) == (413, "close")


def test_a_chunk_as_large_as_allowed_arrives_in_parts(site):
    """The input that ends the line of its size may begin in an extension. Case I102."""
    sized = b"000%x;a=fffff" % BODY_LIMIT
    data = HEAD + CHUNKED + b"\r\n" + chunks(b"a" * BODY_LIMIT, first=sized)
    start = data.index(b";a=")
    parts = data[: start + 3], data[start + 3 : start + 10], data[start + 10 :]
    assert send(site, *parts).status == 200
