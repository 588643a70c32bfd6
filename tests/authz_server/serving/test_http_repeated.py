"""A header that repeats on a connection is read without the parser, and as the parser reads it."""

import asyncio
import random
from collections.abc import Sequence
from itertools import pairwise
from types import SimpleNamespace

import pytest

from authz_server.endpoints.responses import Answer
from authz_server.serving.http import Connection
from authz_server.serving.messages import Message
from support.framing import AMBIGUOUS, SOUND

STREAMS = 1_500
HEAD = b"POST /oauth2/token?a HTTP/1.1\r\nHost: localhost\r\nAuthorization: Basic YTpi\r\n"
FORM = b"scope=a&b=%d\r\n\r\n"
PLAIN = HEAD + b"Content-Length: %d\r\n\r\n" % len(FORM) + FORM
GET = b"GET /jwks HTTP/1.1\r\nHost: localhost\r\n\r\n"
FURTHER = (
    *(PLAIN, PLAIN, PLAIN.replace(b"%d", b"xy"), PLAIN.replace(b"b=", b"")),
    *(GET, GET, GET.replace(b"GET", b"HEAD"), GET.replace(b"1.1", b"1.0"), b"\r\n", b"\r\n" + GET),
    b"\r\n\r\n\r\n",
    b"POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nab",
    *(PLAIN + GET, PLAIN + PLAIN, PLAIN[:-1], PLAIN[-20:], PLAIN + b"\r\n"),
    *(
        PLAIN.replace(b"Host", field + b"\r\nHost")
        for field in (b"Expect: 100-continue", b"Connection: close", b"Upgrade: h2c", b"X: y")
    ),
)
PROVEN = PLAIN.replace(b"Host", b"DPoP: a.b-c_D9\r\nHost")
#: Requests with a proof, most of them as long as the first one.
PROVING = (
    *(PROVEN, PROVEN, PLAIN, PROVEN + PROVEN, PROVEN[:-1]),
    *(
        PROVEN.replace(b"a.b-c_D9", value)
        for value in (
            *(b"zz.y.x.w", b"zz.y.x.w", b"........", b"aaaaaaaa", b"a.b-c_D", b"a.b-c_D99", b""),
            *(b"a.b, c.d", b"a b\tc d ", b"a.b-c_D ", b" .b-c_D9", b"a.b\r\nX:1", b"a.b\nX:1d"),
            *(b"a.b\r\n\r\nd", b"a.b\r\n cd", b"a.b-c\xc3\xbcd", b"a.b-c\x00_d", b"a.b-c\x7f_d"),
            b"a.b-c+/=",
        )
    ),
    *(PROVEN.replace(b"DPoP", name) for name in (b"dpop", b"DPOP", b"XPoP")),
    *(PROVEN.replace(b"Host", b"%b: c.d-e_F0\r\nHost" % name) for name in (b"DPoP", b"X-DPoP")),
    PROVEN.replace(b"YTpi", b"YTpj"),
    PROVEN.replace(b"scope=a", b"scope=b"),
)


class Site:
    """One connection, whose requests are answered at once or before the next input."""

    now, date, draining = 0.0, b"", False
    header_seconds = body_seconds = keep_alive_seconds = 60.0

    def __init__(self, late: random.Random) -> None:
        self.found, self.written, self._waiting = [], [], []
        self._late = late
        self.connection = Connection(self)
        self._closed = self._held = False
        self.connection.connection_made(self)

    def feed(self, data: bytes) -> None:
        """Receive the bytes, now or in the next turn; answer what waits."""
        self.connection.data_received(data)
        if self._held:
            self._held = False
            self.connection.release()
        while self._waiting:
            self.connection.answer(self._waiting.pop())

    def body_limit(self, _connection, _request):
        return 2_000

    def opened(self, _connection):
        return None

    def closed(self, _connection):
        self._closed = True

    def body_begun(self, _connection):
        self.written.append("a body is under way")

    def holds(self, _connection):
        self._held = self._late.random() < 0.2
        return self._held

    def handle(self, connection, request):
        kind = (request.method, request.path, request.query, dict(request.headers))
        fault = request.fault and request.fault.reason
        self.found.append((*kind, request.body, request.peer, fault))
        answer = Answer(200, {}, b"%d" % len(self.found))
        if self._late.random() < 0.2:
            self._waiting.append(answer)
        else:
            connection.answer(answer)

    def refuse(self, connection, request, fault):
        self.found.append((request and request.path, fault.reason))
        connection.answer(Answer(400, {}, b""))

    # The transport.

    def get_extra_info(self, name):
        return ("192.0.2.1", 1) if name == "peername" else None

    def write(self, data):
        self.written.append(bytes(data))

    def close(self):
        self._closed = True

    abort = write_eof = close

    def is_closing(self):
        return self._closed

    def can_write_eof(self):
        return True

    def pause_reading(self):
        self.written.append("pause")

    def resume_reading(self):
        self.written.append("resume")


def make_stream(generator: random.Random, further: Sequence[bytes]) -> list[bytes]:
    """Return up to eight pieces of input, most of them whole messages."""
    stream = [further[0]]
    for _ in range(generator.randint(2, 8)):
        piece = generator.choice(further)
        if generator.random() < 0.15:
            framing, body = generator.choice([*SOUND.values(), *AMBIGUOUS.values()])(FORM)
            piece = HEAD + framing + b"\r\n" + body
        cuts = [0, len(piece)]
        if generator.random() < 0.2:
            cuts.insert(1, generator.randrange(len(piece)))
        stream += [piece[begin:end] for begin, end in pairwise(cuts) if begin < end]
        if generator.random() < 0.6:
            stream += stream[-1:] * 2
    return stream


async def read(stream: list[bytes], seed: int) -> SimpleNamespace:
    site = Site(random.Random(seed))
    for data in stream:
        site.feed(data)
        # A message that arrived behind another one is answered in a later turn of the loop.
        for _ in range(3):
            await asyncio.sleep(0)
    return SimpleNamespace(found=site.found, written=site.written)


def count_repeated(monkeypatch) -> list[bytes]:
    """Return the messages that are read without the parser, as they come."""
    repeated = []

    def note(message, data, repeat=Message.repeat):
        repeated.append(data)
        return repeat(message, data)

    monkeypatch.setattr(Message, "repeat", note)
    return repeated


@pytest.mark.parametrize("further", [FURTHER, PROVING], ids=["plain", "with proofs"])
def test_a_repeated_header_is_read_as_the_parser_reads_it(monkeypatch, further):
    """Cases I100 and I106."""
    generator = random.Random("repeated headers")
    streams = [make_stream(generator, further) for _ in range(STREAMS)]
    repeated = count_repeated(monkeypatch)
    with asyncio.Runner() as runner:
        by_memory = [runner.run(read(stream, seed)) for seed, stream in enumerate(streams)]
        monkeypatch.setattr(Message, "remember", lambda *_: None)
        for seed, (stream, memory) in enumerate(zip(streams, by_memory, strict=True)):
            parsed = runner.run(read(stream, seed))
            assert (memory.found, memory.written) == (parsed.found, parsed.written), stream
    assert len(repeated) > STREAMS // 2


def test_a_header_with_another_proof_is_read_without_the_parser(monkeypatch):
    """Case I106: the proof is new in each request of a client (RFC 9449, 4.1)."""
    other = PROVEN.replace(b"a.b-c_D9", b"zz.y.x.w")
    repeated = count_repeated(monkeypatch)
    found = asyncio.run(read([PROVEN, other, PROVEN], 1)).found
    assert [each[3]["dpop"] for each in found] == ["a.b-c_D9", "zz.y.x.w", "a.b-c_D9"]
    assert [each[4] for each in found] == [FORM] * 3
    assert repeated == [other, PROVEN]


@pytest.mark.parametrize(
    "first",
    [
        PLAIN + b"\r\n",
        b"\r\n" + PLAIN,
        PLAIN + PLAIN,
        PLAIN.replace(b"Host", b"Expect: 100-continue\r\nHost"),
    ],
)
def test_what_is_more_than_one_plain_message_is_not_remembered(first, monkeypatch):
    """Case I100."""
    monkeypatch.delattr(Message, "repeat")
    found = asyncio.run(read([first, first], 1)).found
    assert len(found) == 2 * first.count(b"POST")


@pytest.mark.parametrize("body", [b"a=b", b"a" * 1_900])
def test_the_body_of_an_answered_request_is_not_kept(body):
    """Case I101: an idle connection costs no more memory after a large request."""
    whole = b"POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % len(body) + body
    site = Site(random.Random(0))
    # At once, then as a repetition; a message in two pieces is not repeated.
    for pieces in ([whole], [whole], [whole[:-1], whole[-1:]]):
        before = len(site.found)
        for piece in pieces:
            site.feed(piece)
        assert [each[4] for each in site.found[before:]] == [body]
        message = site.connection._answered  # noqa: SLF001 - what is kept has no other sign
        assert (message.request.body, message.body) == (b"", [])
