"""Requests that no proper client sends, and what the real server does with them.

Expected is one answer for each request and no effect of the trick: a refusal, or the end of the
connection. The one exception is a line that ends in LF alone, which RFC 9112, 2.2 lets a server
take for a line end: there it is the count of answers that matters.
"""

import json

import pytest

from support.edge import ENDPOINTS, ServerFixture
from support.framing import AMBIGUOUS, SOUND, length
from support.raw_http import RawResponse, exchange


def require_refused(responses: list[RawResponse]) -> None:
    """One refusal, then perhaps the answer to the last request of the connection, nothing more."""
    assert 1 <= len(responses) <= 2, responses
    first, *rest = responses
    assert 400 <= first.status < 500 or first.status == 501, first
    assert b"access_token" not in first.body
    assert b'"active":true' not in first.body.replace(b" ", b"")
    assert [each.status for each in rest] in ([], [404]), rest


@pytest.mark.parametrize("endpoint", ENDPOINTS)
@pytest.mark.parametrize("name", AMBIGUOUS)
def test_ambiguous_framing_is_refused(edge: ServerFixture, endpoint: str, name: str):
    """Case I100."""
    head, form = edge.request(endpoint)
    framing, body = AMBIGUOUS[name](form)
    require_refused(exchange(edge.port, head + framing + b"\r\n" + body))
    assert edge.token_is_active()


@pytest.mark.parametrize("endpoint", ENDPOINTS)
@pytest.mark.parametrize("name", SOUND)
def test_sound_framing_is_one_request(edge: ServerFixture, endpoint: str, name: str):
    """Case I100."""
    head, form = edge.request(endpoint, harmless=True)
    framing, body = SOUND[name](form)
    answers = exchange(edge.port, head + framing + b"\r\n" + body)
    assert [each.status for each in answers] == [200, 404], answers


@pytest.mark.parametrize("endpoint", ENDPOINTS)
def test_bare_line_feeds_make_no_second_request(edge: ServerFixture, endpoint: str):
    """Case I100."""
    head, form = edge.request(endpoint, harmless=True)
    request = (head + length(form) + b"\r\n").replace(b"\r\n", b"\n") + form
    hidden = (head + b"X-A: b\nContent-Length: 0\r\n\r\n") + form
    assert len(exchange(edge.port, request)) <= 2
    assert len(exchange(edge.port, hidden)) <= 2


@pytest.mark.parametrize("endpoint", ENDPOINTS)
def test_body_cut_short_has_no_effect(edge: ServerFixture, endpoint: str):
    """Case I100."""
    head, form = edge.request(endpoint)
    with edge.connect() as connection:
        connection.send(head + length(form + b"more") + b"\r\n" + form)
        connection.finish_sending()
        answer = connection.receive()
    assert answer is None or 400 <= answer.status < 500
    assert edge.token_is_active()


@pytest.mark.parametrize("endpoint", ENDPOINTS)
def test_pipelined_requests_are_answered_once_each_and_in_order(edge: ServerFixture, endpoint: str):
    """Case I100."""
    head, form = edge.request(endpoint, harmless=True)
    request = head + length(form) + b"\r\n" + form
    unknown = b"GET /nowhere HTTP/1.1\r\nHost: localhost\r\n\r\n"
    statuses = [each.status for each in exchange(edge.port, request + unknown + request)]
    assert statuses == [200, 404, 200, 404]


@pytest.mark.parametrize("endpoint", ENDPOINTS)
def test_forwarded_headers_of_a_stranger_change_nothing(edge: ServerFixture, endpoint: str):
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


def test_metadata_names_the_issuer_whatever_the_host_says(edge: ServerFixture):
    """Case I100."""
    head = b"GET /.well-known/oauth-authorization-server HTTP/1.1\r\nHost: evil.example\r\n"
    tricks = b"X-Forwarded-Host: evil.example\r\nX-Forwarded-Proto: http\r\n\r\n"
    answer, *_ = exchange(edge.port, head + tricks)
    assert answer.status == 200
    assert b"evil" not in answer.body


@pytest.mark.parametrize("method", [b"GET", b"HEAD"])
def test_documents_that_have_not_changed_are_answered_without_length(
    edge: ServerFixture, method: bytes
):
    """RFC 9110, 8.6 and 15.4.5."""
    host = b" /.well-known/jwks.json HTTP/1.1\r\nHost: authz.example\r\n"
    with edge.connect() as connection:
        connection.send(method + host + b"\r\n")
        whole = connection.receive(to_head=method == b"HEAD")
        etag = whole.headers["etag"].encode()
        for _ in range(2):
            connection.send(method + host + b"If-None-Match: " + etag + b"\r\n\r\n")
            unchanged = connection.receive()
            assert (unchanged.status, unchanged.body) == (304, b"")
            assert unchanged.headers["etag"] == whole.headers["etag"]
            assert unchanged.headers["cache-control"] == whole.headers["cache-control"]
            assert "content-length" not in unchanged.headers
    assert whole.status == 200
    assert int(whole.headers["content-length"]) > 100


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
def test_odd_request_heads_are_refused(edge: ServerFixture, endpoint: str, name: str):
    """Case I103."""
    head, form = edge.request(endpoint)
    require_refused(exchange(edge.port, REQUEST_LINES[name](head) + length(form) + b"\r\n" + form))
    assert edge.token_is_active()


@pytest.mark.parametrize("name", ["long-query", "long-header", "many-headers", "no-host"])
def test_an_odd_head_is_refused_in_the_form_of_its_endpoint(edge: ServerFixture, name: str):
    """Case I103."""
    head, form = edge.request("token")
    head = head.replace(b"/oauth2/token", b"/oauth2/client/token")
    head = head.replace(b" HTTP/1.1\r\n", b" HTTP/1.1\r\nAccept-Language: fr\r\n")
    (answer,) = exchange(edge.port, REQUEST_LINES[name](head) + length(form) + b"\r\n" + form)
    assert answer.status in {400, 414, 431}
    assert answer.headers["content-language"]
    assert json.loads(answer.body)["errors"][0]["message"]


def test_tunnel_to_another_server_is_refused(edge: ServerFixture):
    """Case I103."""
    request = b"CONNECT evil.example:443 HTTP/1.1\r\nHost: evil.example:443\r\n\r\n"
    require_refused(exchange(edge.port, request))


def test_other_protocols_get_nothing(edge: ServerFixture):
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
