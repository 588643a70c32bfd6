"""Requests that no proper client sends, and what the real server does with them.

Expected is one answer for each request and no effect of the trick: a refusal, or the end of the
connection. The one exception is a line that ends in LF alone, which RFC 9112, 2.2 lets a server
take for a line end: there it is the count of answers that matters.
"""

import pytest

from support.edge import ENDPOINTS, Edge
from support.raw_http import RawResponse, exchange

CHUNKED = b"Transfer-Encoding: chunked\r\n"


def chunks(body: bytes, *, first: bytes | None = None, end: bytes = b"\r\n") -> bytes:
    size = b"%x" % len(body) if first is None else first
    return size + end + body + end + b"0" + end + end


# Name: the framing headers, and the body that they come with.
FRAMING = {
    "length-and-chunked": lambda body: (length(body) + CHUNKED, chunks(body)),
    "chunked-and-length": lambda body: (CHUNKED + length(body), chunks(body)),
    "length-ends-inside-chunked": lambda _: (
        b"Content-Length: 5\r\n" + CHUNKED,
        b"0\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: localhost\r\n\r\n",
    ),
    "two-lengths": lambda body: (length(body) + b"Content-Length: 3\r\n", body),
    "list-of-lengths": lambda body: (b"Content-Length: %d, %d\r\n" % (len(body), len(body)), body),
    "signed-length": lambda body: (b"Content-Length: +%d\r\n" % len(body), body),
    "negative-length": lambda body: (b"Content-Length: -%d\r\n" % len(body), body),
    "hexadecimal-length": lambda body: (b"Content-Length: 0x%x\r\n" % len(body), body),
    "underscore-in-length": lambda body: (b"Content-Length: 1_0\r\n", body),
    "length-beyond-64-bits": lambda body: (b"Content-Length: 99999999999999999999999\r\n", body),
    "empty-length": lambda body: (b"Content-Length: \r\n", body),
    "unknown-coding": lambda body: (b"Transfer-Encoding: xchunked\r\n", chunks(body)),
    "identity-coding": lambda body: (b"Transfer-Encoding: identity\r\n" + length(body), body),
    "chunked-not-last": lambda body: (b"Transfer-Encoding: chunked, identity\r\n", chunks(body)),
    "compressed-and-chunked": lambda body: (b"Transfer-Encoding: gzip, chunked\r\n", chunks(body)),
    "chunked-twice": lambda body: (CHUNKED + CHUNKED, chunks(body)),
    "chunked-and-another": lambda body: (CHUNKED + b"Transfer-Encoding: x\r\n", chunks(body)),
    "vertical-tab-before-chunked": lambda body: (
        b"Transfer-Encoding: \x0bchunked\r\n",
        chunks(body),
    ),
    "quoted-chunked": lambda body: (b'Transfer-Encoding: "chunked"\r\n', chunks(body)),
    "chunk-extension": lambda body: (CHUNKED, chunks(body, first=b"%x;a=b" % len(body))),
    "line-feed-in-chunk-extension": lambda body: (
        CHUNKED,
        chunks(body, first=b"%x;a\nb" % len(body)),
    ),
    "chunk-size-beyond-64-bits": lambda body: (
        CHUNKED,
        chunks(body, first=b"fffffffffffffffff%x" % len(body)),
    ),
    "chunk-size-wraps-around": lambda body: (
        CHUNKED,
        chunks(body, first=b"100000000000000%02x" % len(body)),
    ),
    "negative-chunk-size": lambda body: (CHUNKED, chunks(body, first=b"-%x" % len(body))),
    "prefixed-chunk-size": lambda body: (CHUNKED, chunks(body, first=b"0x%x" % len(body))),
    "chunks-with-bare-line-feeds": lambda body: (CHUNKED, chunks(body, end=b"\n")),
    "trailer-section": lambda body: (
        CHUNKED,
        chunks(body).removesuffix(b"\r\n") + b"Content-Length: 3\r\n\r\n",
    ),
    "folded-header": lambda body: (length(body) + b"X-A: a\r\n b\r\n", body),
    "folded-coding": lambda body: (b"Transfer-Encoding:\r\n chunked\r\n", chunks(body)),
    "bare-carriage-return": lambda body: (b"X-A: b\rContent-Length: 3\r\n" + length(body), body),
    "nul-in-value": lambda body: (b"X-A: a\x00b\r\n" + length(body), body),
    "nul-in-name": lambda body: (b"X\x00A: b\r\n" + length(body), body),
    "control-character": lambda body: (b"X-A: a\x01b\r\n" + length(body), body),
    "blank-before-colon": lambda body: (b"X-A : b\r\n" + length(body), body),
    "blank-before-colon-of-length": lambda body: (b"Content-Length : %d\r\n" % len(body), body),
    "blank-before-colon-of-coding": lambda body: (
        b"Transfer-Encoding : chunked\r\n" + length(body),
        body,
    ),
}


def length(body: bytes) -> bytes:
    return b"Content-Length: %d\r\n" % len(body)


def require_refused(responses: list[RawResponse]) -> None:
    """One refusal, then perhaps the answer to the last request of the connection, nothing more."""
    assert 1 <= len(responses) <= 2, responses
    first, *rest = responses
    assert 400 <= first.status < 500 or first.status == 501, first
    assert b"access_token" not in first.body
    assert b'"active":true' not in first.body.replace(b" ", b"")
    assert [each.status for each in rest] in ([], [404]), rest


@pytest.mark.parametrize("endpoint", ENDPOINTS)
@pytest.mark.parametrize("name", FRAMING)
def test_ambiguous_framing_is_refused(edge: Edge, endpoint: str, name: str):
    """Case I100."""
    head, form = edge.request(endpoint)
    framing, body = FRAMING[name](form)
    require_refused(exchange(edge.port, head + framing + b"\r\n" + body))
    assert edge.token_is_active()


@pytest.mark.parametrize("endpoint", ENDPOINTS)
def test_bare_line_feeds_make_no_second_request(edge: Edge, endpoint: str):
    """Case I100."""
    head, form = edge.request(endpoint, harmless=True)
    request = (head + length(form) + b"\r\n").replace(b"\r\n", b"\n") + form
    hidden = (head + b"X-A: b\nContent-Length: 0\r\n\r\n") + form
    assert len(exchange(edge.port, request)) <= 2
    assert len(exchange(edge.port, hidden)) <= 2


@pytest.mark.parametrize("endpoint", ENDPOINTS)
def test_body_cut_short_has_no_effect(edge: Edge, endpoint: str):
    """Case I100."""
    head, form = edge.request(endpoint)
    with edge.connect() as connection:
        connection.send(head + length(form + b"more") + b"\r\n" + form)
        connection.finish_sending()
        answer = connection.receive()
    assert answer is None or 400 <= answer.status < 500
    assert edge.token_is_active()


@pytest.mark.parametrize("endpoint", ENDPOINTS)
def test_pipelined_requests_are_answered_once_each_and_in_order(edge: Edge, endpoint: str):
    """Case I100."""
    head, form = edge.request(endpoint, harmless=True)
    request = head + length(form) + b"\r\n" + form
    unknown = b"GET /nowhere HTTP/1.1\r\nHost: localhost\r\n\r\n"
    statuses = [each.status for each in exchange(edge.port, request + unknown + request)]
    assert statuses == [200, 404, 200, 404]


@pytest.mark.parametrize("endpoint", ENDPOINTS)
def test_forwarded_headers_of_a_stranger_change_nothing(edge: Edge, endpoint: str):
    """Case I100."""
    head, form = edge.request(endpoint, harmless=True)
    forwarded = (
        b"X-Forwarded-For: 203.0.113.66\r\nX_Forwarded_For: 203.0.113.66\r\n"
        b"Forwarded: for=203.0.113.66;host=evil.example;proto=https\r\n"
        b"X-Forwarded-Host: evil.example\r\nX_Forwarded_Host: evil.example\r\n"
        b"X-Forwarded-Proto: https\r\nX-Forwarded-Prefix: /evil\r\nX-Real-IP: 203.0.113.66\r\n"
        b"Content_Length: 3\r\nX_HTTP_Method_Override: GET\r\nX-HTTP-Method-Override: GET\r\n"
        b"X-Original-URL: /nowhere\r\nX-Rewrite-URL: /nowhere\r\n"
    )
    answer, *_ = exchange(edge.port, head + forwarded + length(form) + b"\r\n" + form)
    assert answer.status == 200
    assert b"evil" not in answer.body
    assert "203.0.113.66" not in edge.audit_trail()


def test_metadata_names_the_issuer_whatever_the_host_says(edge: Edge):
    """Case I100."""
    head = b"GET /.well-known/oauth-authorization-server HTTP/1.1\r\nHost: evil.example\r\n"
    tricks = b"X-Forwarded-Host: evil.example\r\nX-Forwarded-Proto: http\r\n\r\n"
    answer, *_ = exchange(edge.port, head + tricks)
    assert answer.status == 200
    assert b"evil" not in answer.body


REQUEST_LINES = {
    "long-path": lambda head: head.replace(b" HTTP/1.1", b"/" + b"a" * 8_192 + b" HTTP/1.1"),
    "long-query": lambda head: head.replace(b" HTTP/1.1", b"?" + b"a" * 8_192 + b" HTTP/1.1"),
    "long-header": lambda head: head + b"X-A: " + b"a" * 8_192 + b"\r\n",
    "many-headers": lambda head: head + b"".join(b"X-%d: a\r\n" % n for n in range(200)),
    "no-host": lambda head: head.replace(b"Host: localhost\r\n", b""),
    "two-hosts": lambda head: head + b"Host: evil.example\r\n",
    "empty-host": lambda head: head.replace(b"Host: localhost", b"Host: "),
    "host-with-path": lambda head: head.replace(b"Host: localhost", b"Host: a/b"),
    "host-with-user": lambda head: head.replace(b"Host: localhost", b"Host: a@b"),
    "host-with-blank": lambda head: head.replace(b"Host: localhost", b"Host: a b"),
    "TRACE": lambda head: head.replace(b"POST ", b"TRACE "),
    "CONNECT": lambda head: head.replace(b"POST ", b"CONNECT "),
    "invented-method": lambda head: head.replace(b"POST ", b"FROBNICATE "),
    "lower-case-method": lambda head: head.replace(b"POST ", b"post "),
    "blank-in-path": lambda head: head.replace(b" HTTP/1.1", b" x HTTP/1.1"),
    "no-version": lambda head: head.replace(b" HTTP/1.1", b""),
    "unknown-version": lambda head: head.replace(b"HTTP/1.1", b"HTTP/1.9"),
    "version-2": lambda head: head.replace(b"HTTP/1.1", b"HTTP/2.0"),
}


@pytest.mark.parametrize("endpoint", ENDPOINTS)
@pytest.mark.parametrize("name", REQUEST_LINES)
def test_odd_request_heads_are_refused(edge: Edge, endpoint: str, name: str):
    """Case I103."""
    head, form = edge.request(endpoint)
    require_refused(exchange(edge.port, REQUEST_LINES[name](head) + length(form) + b"\r\n" + form))
    assert edge.token_is_active()


def test_tunnel_to_another_server_is_refused(edge: Edge):
    """Case I103."""
    request = b"CONNECT evil.example:443 HTTP/1.1\r\nHost: evil.example:443\r\n\r\n"
    require_refused(exchange(edge.port, request))


def test_other_protocols_get_nothing(edge: Edge):
    """Case I103."""
    for hello in (
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"SSH-2.0\r\n",
    ):
        with edge.connect() as connection:
            connection.send(hello)
            answer = connection.receive()
            assert answer is None or answer.status == 400
            assert connection.receive() is None
            assert connection.closed_by_server
