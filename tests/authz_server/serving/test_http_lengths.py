"""One connection of a worker: lengths and chunk sizes, by which a body is read or refused."""

import json

import pytest

from authz_server.serving.http import Connection
from support.framing import CHUNKED, chunks
from support.raw_http import RawResponse
from support.serve_twin import MemoryTransport
from support.worker_site import LOOPS, PLAIN_LOOPS, WorkerSite

HEAD = b"POST /echo HTTP/1.1\r\nHost: localhost\r\n"
FORM = b"grant_type=client_credentials&scope=a"
BODY_LIMIT = 20_000


@pytest.fixture(scope="module", params=LOOPS)
def site(request):
    with WorkerSite(request.param, maximum_body_bytes=BODY_LIMIT) as site:
        yield site


def send(site, message: bytes) -> RawResponse:
    """Send a message; return the response, which comes before a deadline does."""
    with site.connect(5.0) as connection:
        connection.send(message)
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


#: The beginnings of bodies whose last chunk is larger than it may be.
LARGE_CHUNKS = [
    b"ffffffffffffffff\r\nab",
    b"7FFFFFFFFFFFFFFF;a=b\r\nab",
    b"%x\r\n" % (BODY_LIMIT + 1),
    b"2\r\nab\r\n%x\r\na" % (BODY_LIMIT - 1),
]


@pytest.mark.parametrize("body", LARGE_CHUNKS)
def test_a_chunk_that_is_too_large_is_refused_before_it_arrives(site, body):
    """Case I100, Case I102."""
    answer = send(site, HEAD + CHUNKED + b"\r\n" + body)
    assert (answer.status, answer.headers["connection"]) == (413, "close")


class Inputs:
    """A connection in memory, which gets each input by itself."""

    def __init__(self, site: WorkerSite) -> None:
        self._site, self._transport = site, MemoryTransport("127.0.0.1")
        self._connection = site.run(self._open)

    def _open(self) -> Connection:
        connection = Connection(self._site.front)
        connection.connection_made(self._transport)
        return connection

    def send(self, data: bytes) -> bytes:
        """Hand over one input; return all that was answered."""
        self._site.run(lambda: self._connection.data_received(data))
        return self._transport.written

    def close(self) -> None:
        """Drop the connection."""
        self._site.run(lambda: self._connection.connection_lost(None))


def answer_to(site: WorkerSite, *inputs: bytes) -> bytes:
    """Return what is answered to these inputs."""
    connection = Inputs(site)
    try:
        return [connection.send(each) for each in inputs][-1]
    finally:
        connection.close()


@pytest.mark.parametrize("body", LARGE_CHUNKS)
@pytest.mark.parametrize("loop", PLAIN_LOOPS)
def test_the_size_of_a_chunk_is_read_however_it_is_split(loop, body):
    """Most senders write the header by itself. Case I100, Case I102."""
    head = HEAD + CHUNKED + b"\r\n"
    whole = head + body
    with WorkerSite(loop, maximum_body_bytes=BODY_LIMIT) as site:
        for middle in range(len(head), len(whole)):
            inputs = (whole[: len(head)], whole[len(head) : middle], whole[middle:])
            for split in (inputs, (inputs[0] + inputs[1], inputs[2])):
                answer = answer_to(site, *filter(None, split))
                assert answer.startswith(b"HTTP/1.1 413 "), split
        every_byte = (whole[at : at + 1] for at in range(len(whole)))
        assert answer_to(site, *every_byte).startswith(b"HTTP/1.1 413 ")


@pytest.mark.parametrize("loop", PLAIN_LOOPS)
def test_digits_in_the_data_or_an_extension_of_a_chunk_are_no_size(loop):
    """Case I102."""
    head = HEAD + CHUNKED + b"\r\n"
    data = b"\nfffffff\r\nffffff"
    for first in (b"%x" % len(data), b"0" * 300 + b"%x;a=" % len(data) + b"f" * 600):
        whole = head + chunks(data, first=first)
        with WorkerSite(loop, maximum_body_bytes=BODY_LIMIT) as site:
            for size in (1, 2, 3, 7, 255, 256, 257, 1_000):
                connection = Inputs(site)
                for at in range(0, len(whole), size):
                    answer = connection.send(whole[at : at + size])
                connection.close()
                assert answer.startswith(b"HTTP/1.1 200 "), (first, size)


@pytest.mark.parametrize("loop", PLAIN_LOOPS)
def test_a_chunk_as_large_as_allowed_arrives_in_parts(loop):
    """The input that ends the line of its size may begin in an extension. Case I102."""
    head = HEAD + CHUNKED + b"\r\n"
    sized = b"000%x;a=fffff" % BODY_LIMIT
    data = head + chunks(b"a" * BODY_LIMIT, first=sized)
    start = data.index(b";a=")
    parts = data[: start + 3], data[start + 3 : start + 10], data[start + 10 :]
    with WorkerSite(loop, maximum_body_bytes=BODY_LIMIT) as site:
        assert answer_to(site, *parts).startswith(b"HTTP/1.1 200 ")
