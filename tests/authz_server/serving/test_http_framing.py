"""One connection of a worker: which bytes are a request, and which are refused."""

import json

import pytest

from support.framing import AMBIGUOUS, CHUNKED, SOUND, UPGRADES, chunks, length
from support.raw_http import LAST_REQUEST, RawResponse, exchange
from support.worker_site import LOOPS, WorkerSite

HEAD = b"POST /echo HTTP/1.1\r\nHost: localhost\r\n"
FORM = b"grant_type=client_credentials&scope=a"
GET = b"GET /somewhere HTTP/1.1\r\nHost: localhost\r\n"
BODY_LIMIT = 20_000


@pytest.fixture(scope="module", params=LOOPS)
def site(request):
    with WorkerSite(request.param, maximum_body_bytes=BODY_LIMIT) as site:
        yield site


@pytest.fixture(autouse=True)
def _nothing_from_before(site):
    site.requests.clear()
    site.records.clear()


def statuses(answers: list[RawResponse]) -> list[int]:
    return [each.status for each in answers]


def ask(site, data: bytes) -> dict:
    """Send one request that is served, and return what the endpoint got."""
    first, last = exchange(site.port, data)
    assert (first.status, last.status) == (200, 404)
    return json.loads(first.body)


def refusal(site, data: bytes) -> tuple[int, str]:
    """Send what is refused, once and recorded once; return the status and the recorded reason."""
    with site.connect() as connection:
        connection.send(data)
        (answer,) = connection.receive_all()
        assert connection.closed_by_server
    assert answer.headers["connection"] == "close"
    assert json.loads(answer.body)["error"] == "invalid_request"
    assert answer.headers["cache-control"] == "no-store"
    reasons = [each.reason for each in site.records]
    reasons += [each.fault.reason for each in site.requests]
    (reason,) = reasons
    return answer.status, reason


@pytest.mark.parametrize("name", SOUND)
@pytest.mark.parametrize("form", [FORM, b"a" * 10_000, b"a=\r\n0\r\n\r\n%00\n"])
def test_sound_framings_are_one_request(site, name, form):
    """Case I100."""
    framing, body = SOUND[name](form)
    assert ask(site, HEAD + framing + b"\r\n" + body)["body"] == form.decode()


@pytest.mark.parametrize("name", AMBIGUOUS)
def test_ambiguous_framings_are_refused_and_the_connection_ends(site, name):
    """Case I100."""
    framing, body = AMBIGUOUS[name](FORM)
    assert refusal(site, HEAD + framing + b"\r\n" + body)[0] in {400, 413}


@pytest.mark.parametrize("name", AMBIGUOUS)
def test_ambiguous_framings_are_refused_one_byte_at_a_time(site, name):
    """Case I100."""
    framing, body = AMBIGUOUS[name](FORM)
    with site.connect() as connection:
        for byte in HEAD + framing + b"\r\n" + body + LAST_REQUEST:
            connection.send(bytes([byte]))
        answers = connection.receive_all()
    assert statuses(answers) in ([400], [413])


@pytest.mark.parametrize("name", SOUND)
def test_requests_arrive_one_byte_at_a_time(site, name):
    framing, body = SOUND[name](FORM)
    with site.connect() as connection:
        for byte in HEAD + framing + b"\r\n" + body:
            connection.send(bytes([byte]))
        answer = connection.receive()
        connection.send(LAST_REQUEST)
        assert connection.receive().status == 404
    assert json.loads(answer.body)["body"] == FORM.decode()


@pytest.mark.parametrize(
    "data",
    [
        HEAD.replace(b"\r\n", b"\n") + length(FORM) + b"\r\n" + FORM,
        HEAD + b"X-A: b\n" + length(FORM) + b"\r\n" + FORM,
        HEAD + length(FORM) + b"\n" + FORM,
        HEAD + CHUNKED + b"\r\n" + chunks(FORM, end=b"\n"),
        HEAD + CHUNKED + b"\r\n" + chunks(FORM)[:-2] + b"\n",
        b"\n" + HEAD + b"Content-Length: 0\n\n",
    ],
)
def test_a_line_that_ends_in_lf_alone_is_refused(site, data):
    """Case I100."""
    assert refusal(site, data) == (400, "message_malformed")


def test_trailers_are_no_headers(site):
    """Case I100."""
    trailers = b"Authorization: Basic eDp5\r\nX-A: b\r\nHost: evil.example\r\n\r\n"
    got = ask(site, HEAD + CHUNKED + b"\r\n" + chunks(FORM)[:-2] + trailers)
    assert got["headers"] == {"host": "localhost", "transfer-encoding": "chunked"}


@pytest.mark.parametrize("framing", ["length", "chunked"])
def test_a_body_may_be_as_long_as_its_limit_and_not_longer(site, framing):
    """Case I102."""
    headers, body = SOUND[framing](b"a" * BODY_LIMIT)
    assert len(ask(site, HEAD + headers + b"\r\n" + body)["body"]) == BODY_LIMIT
    site.requests.clear()
    headers, body = SOUND[framing](b"a" * (BODY_LIMIT + 1))
    assert refusal(site, HEAD + headers + b"\r\n" + body) == (413, "body_too_large")


def test_a_body_of_tiny_chunks_is_refused_where_their_sizes_are_too_much(site):
    """Case I102."""
    chunk = b"1;" + b"a" * 100 + b"\r\nx\r\n"
    data = HEAD + CHUNKED + b"\r\n" + chunk * 5_000
    assert refusal(site, data) == (413, "body_too_large")


def test_trailers_without_end_are_refused(site):
    """Case I102."""
    data = HEAD + CHUNKED + b"\r\n" + chunks(FORM)[:-2] + b"X-A: " + b"b" * 300_000
    assert refusal(site, data) == (413, "body_too_large")


def head_of(size: int) -> bytes:
    """Return a whole request without a body whose header has this many bytes."""
    head = HEAD + b"Content-Length: 0\r\nX-A: \r\n\r\n"
    # Request line, version and line ends are not counted.
    counted = len(head) - len(b"POST  HTTP/1.1\r\n\r\n")
    return head.replace(b"X-A: ", b"X-A: " + b"a" * (size - counted))


@pytest.mark.parametrize("pieces", [1, 7])
def test_a_header_may_have_eight_kilobytes(site, pieces):
    """Case I103."""
    for size, status in ((8_192, 200), (8_193, 431)):
        data = head_of(size) + LAST_REQUEST
        with site.connect() as connection:
            for start in range(0, len(data), len(data) // pieces + 1):
                connection.send(data[start : start + len(data) // pieces + 1])
            assert connection.receive().status == status
            followed = connection.receive()
            assert (followed is not None) == (status == 200)


@pytest.mark.parametrize(
    "data",
    [
        HEAD + b"X-A: " + b"a" * 9_000,
        HEAD + b"a" * 9_000,
        b"POST /" + b"a" * 5_000 + HEAD.partition(b"/echo")[2] + b"X-A: " + b"a" * 5_000,
        HEAD + b"X-A: " + b"a" * 1_000_000 + b"\r\n\r\n",
        HEAD + b"".join(b"X-%d: a\r\n" % number for number in range(100)) + b"\r\n",
        HEAD + b"X: a\r\n" * 2_000 + b"\r\n",
    ],
)
def test_a_header_beyond_its_limits_is_refused_before_its_end(site, data):
    """Case I103."""
    assert refusal(site, data) == (431, "header_too_large")


@pytest.mark.parametrize("start", [b"GET /", b"POST /?", b"PROPFIND /"])
@pytest.mark.parametrize("rest", [b"", b"?a", b" HTTP/1.1\r\nHost: localhost\r\n\r\n"])
def test_a_target_beyond_the_limit_is_refused_by_its_own_status(site, start, rest):
    """Case I103; RFC 9110, 15.5.15."""
    assert refusal(site, start + b"a" * 9_000 + rest) == (414, "target_too_long")


def test_a_hundred_fields_are_not_too_many(site):
    """Case I103."""
    fields = b"".join(b"X-%d: a\r\n" % number for number in range(98))
    assert len(ask(site, HEAD + fields + b"Content-Length: 0\r\n\r\n")["headers"]) == 100


@pytest.mark.parametrize("name", ["Host", "Content-Type", "Authorization", "timestamp"])
def test_a_single_field_that_repeats_is_refused(site, name):
    """Case I100."""
    line = f"{name}: localhost\r\n".encode()
    assert refusal(site, HEAD + line + line + b"Content-Length: 0\r\n\r\n") == (
        400,
        "message_malformed",
    )


@pytest.mark.parametrize("host", [b"", b"a b", b"a/b", b"a@b", b"[::1", b"a:x"])
def test_a_host_that_cannot_be_one_is_refused(site, host):
    """Case I103."""
    data = HEAD.replace(b"localhost", host) + b"Content-Length: 0\r\n\r\n"
    assert refusal(site, data) == (400, "host_malformed")


def test_a_request_needs_a_host_and_an_older_one_does_not(site):
    """Case I103."""
    data = b"POST /echo HTTP/1.1\r\nContent-Length: 0\r\n\r\n"
    assert refusal(site, data) == (400, "host_malformed")
    (old,) = exchange(site.port, data.replace(b"1.1", b"1.0"))
    assert old.status == 200
    assert old.headers["connection"] == "close"


@pytest.mark.parametrize("field", [b"keep-alive", b"Keep-Alive, x", b"keep-alive, x-closed"])
def test_an_older_request_may_ask_to_keep_the_connection(site, field):
    request = b"POST /echo HTTP/1.0\r\nConnection: %b\r\nContent-Length: 0\r\n\r\n" % field
    with site.connect() as connection:
        for _ in range(2):
            connection.send(request)
            answer = connection.receive()
            assert (answer.status, answer.headers["connection"]) == (200, "keep-alive")


@pytest.mark.parametrize("field", [b"keep-alive, Close", b"close, keep-alive"])
def test_the_wish_to_close_prevails_in_an_older_request(site, field):
    """RFC 9112, 9.3. Case I100."""
    request = b"POST /echo HTTP/1.0\r\nConnection: %b\r\nContent-Length: 0\r\n\r\n" % field
    (answer,) = exchange(site.port, request * 2)
    assert (answer.status, answer.headers["connection"]) == (200, "close")


def test_an_older_request_cannot_be_chunked(site):
    """Case I100."""
    data = b"POST /echo HTTP/1.0\r\n" + CHUNKED + b"\r\n" + chunks(FORM)
    assert refusal(site, data) == (400, "message_malformed")


@pytest.mark.parametrize("version", [b"HTTP/1.2", b"HTTP/0.9", b"HTTP/2.0", b"HTTP/3.1", b"ICY"])
def test_other_versions_are_refused(site, version):
    """Case I103."""
    data = HEAD.replace(b"HTTP/1.1", version) + b"Content-Length: 0\r\n\r\n"
    assert refusal(site, data) == (400, "message_malformed")


def test_the_host_of_an_absolute_target_counts(site):
    """Case I103."""
    head = HEAD.replace(b"/echo", b"http://other.example:81/echo?a=b")
    got = ask(site, head + length(FORM) + b"\r\n" + FORM)
    assert (got["path"], got["query"], got["headers"]["host"]) == (
        *("/echo", "a=b"),
        "other.example:81",
    )


def test_a_tunnel_is_refused(site):
    """Case I103."""
    data = b"CONNECT localhost:443 HTTP/1.1\r\nHost: localhost:443\r\n\r\n"
    assert refusal(site, data) == (400, "message_malformed")


def test_an_unknown_expectation_is_refused(site):
    """Case I103."""
    data = HEAD + b"Expect: tea\r\n" + length(FORM) + b"\r\n" + FORM
    assert refusal(site, data) == (417, "expectation_unknown")


@pytest.mark.parametrize("name", UPGRADES)
@pytest.mark.parametrize("framing", ["length", "chunked"])
@pytest.mark.parametrize("at_once", [True, False])
def test_the_wish_for_another_protocol_is_ignored(site, name, framing, at_once):
    headers, body = SOUND[framing](FORM)
    data = HEAD + UPGRADES[name] + headers + b"\r\n" + body
    with site.connect() as connection:
        for _ in range(3):
            for piece in [data] if at_once else [bytes([byte]) for byte in data]:
                connection.send(piece)
            answer = connection.receive()
            assert answer.status == 200
            assert json.loads(answer.body)["body"] == FORM.decode()
        connection.send(GET + UPGRADES[name] + b"\r\n" + LAST_REQUEST)
        assert statuses(connection.receive_all()) == [404, 404]


def test_a_wish_for_another_protocol_hides_nothing(site):
    """Case I100."""
    for name in ("length-and-chunked", "two-lengths", "chunked-twice"):
        site.requests.clear()
        site.records.clear()
        headers, body = AMBIGUOUS[name](FORM)
        refusal(site, HEAD + UPGRADES["h2c"] + headers + b"\r\n" + body)


def test_many_wishes_in_one_piece_are_many_requests(site):
    """Case I100."""
    request = HEAD + UPGRADES["websocket"] + b"Content-Length: 0\r\n\r\n"
    with site.connect() as connection:
        connection.send(request * 2_000 + LAST_REQUEST)
        assert statuses(connection.receive_all()) == [200] * 2_000 + [404]
    assert len(site.requests) == 2_000


def test_an_answer_to_head_has_no_body(site):
    with site.connect() as connection:
        connection.send(GET.replace(b"GET", b"HEAD") + b"\r\n")
        answer = connection.receive(to_head=True)
        assert (answer.status, answer.headers["content-length"]) == (404, "15")
        connection.send(LAST_REQUEST)
        assert connection.receive().status == 404
        assert connection.receive() is None


@pytest.mark.parametrize("path", ["/echo", "/nowhere"])
@pytest.mark.parametrize("framing", ["length", "chunked"])
def test_what_is_no_form_of_an_endpoint_is_read_to_its_end_too(site, path, framing):
    headers, body = SOUND[framing](FORM)
    head = HEAD.replace(b"POST /echo", f"PUT {path}".encode())
    answers = exchange(site.port, head + headers + b"\r\n" + body)
    assert statuses(answers) == [404, 404]
    assert site.requests == []


def test_no_byte_string_brings_down_the_connection_of_another(site):
    """Case I106."""
    with site.connect() as other:
        for junk in (b"\x00" * 100, b"\r\n\r\n\r\n", b"\xff" * 9_000, b"GET", b"\x16\x03\x01"):
            for answer in exchange(site.port, junk):
                assert 400 <= answer.status < 500
        other.send(HEAD + length(FORM) + b"\r\n" + FORM)
        assert other.receive().status == 200
