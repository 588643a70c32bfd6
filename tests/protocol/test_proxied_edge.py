"""Smuggling behind nginx and HAProxy as the documentation configures them.

A proxy and a server that take the same bytes for different requests let one client answer for
another. So whatever a client sends, each request has one answer, and the next client gets its own.
"""

from collections.abc import Iterator

import httpx
import pytest

from support.databases import copied_database
from support.edge import ServerFixture, running_edge
from support.framing import AMBIGUOUS, CHUNKED, SOUND, length
from support.raw_http import RawResponse, exchange
from support.reverse_proxy import ReverseProxy

PROXIES = ("nginx", "haproxy")
SMUGGLED = b"GET /smuggled HTTP/1.1\r\nHost: localhost\r\nX-A: b"
#: Bodies that hold the beginning of another request, for whoever ends the first one early.
HIDDEN = (
    b"0\r\n\r\n" + SMUGGLED + b"\r\n\r\n",
    b"0\n\n" + SMUGGLED + b"\r\n\r\n",
    SMUGGLED + b"\r\nX-B: ",
)


@pytest.fixture(scope="module")
def edge(request, tmp_path_factory) -> Iterator[ServerFixture]:
    """A server that trusts the proxies; where requests end does not depend on the database."""
    directory = tmp_path_factory.mktemp("server")
    trusted = {"trusted_proxies": ["127.0.0.1"]}
    with (
        copied_database(request, "sqlite", directory) as url,
        running_edge(directory, url, server=trusted) as edge,
    ):
        yield edge


@pytest.fixture(scope="module", params=PROXIES)
def proxy(edge, request, tmp_path_factory) -> Iterator[ReverseProxy]:
    """Each proxy in front of that server."""
    with ReverseProxy(request.param, edge.port, tmp_path_factory.mktemp("proxy")) as proxy:
        yield proxy


@pytest.fixture(scope="module")
def others() -> Iterator[httpx.Client]:
    with httpx.Client() as client:
        yield client


def require_others_unharmed(edge: ServerFixture, proxy: ReverseProxy, others: httpx.Client) -> None:
    """Send what other clients send over the same connections between proxy and server."""
    for _ in range(3):
        nowhere = others.get(f"{proxy.base_url}/nowhere")
        assert nowhere.status_code == 404
        issued = others.post(
            f"{proxy.base_url}/oauth2/token",
            data=edge.form("token"),
            headers={"X-Forwarded-For": "203.0.113.9"},
        )
        assert issued.status_code == 200, issued.text
        assert "access_token" in issued.json()


def require_one_answer_each(answers: list[RawResponse]) -> None:
    """One for the request, and perhaps one for the last request of the connection."""
    assert 1 <= len(answers) <= 2, answers
    assert [each.status for each in answers[1:]] in ([], [404], [400]), answers


@pytest.mark.parametrize("name", AMBIGUOUS)
def test_ambiguous_framing_makes_no_second_request(edge, proxy, others, name):
    """Case I100."""
    head, form = edge.request("token")
    for body in (form, *HIDDEN):
        framing, framed = AMBIGUOUS[name](body)
        require_one_answer_each(exchange(proxy.port, head + framing + b"\r\n" + framed))
    require_others_unharmed(edge, proxy, others)


@pytest.mark.parametrize("name", SOUND)
def test_sound_framing_is_one_request(edge, proxy, others, name):
    """Case I100."""
    head, form = edge.request("token")
    framing, framed = SOUND[name](form)
    answers = exchange(proxy.port, head + framing + b"\r\n" + framed)
    assert [each.status for each in answers] == [200, 404], answers
    for body in HIDDEN:
        framing, framed = SOUND[name](body)
        answers = exchange(proxy.port, head + framing + b"\r\n" + framed)
        assert [each.status for each in answers] == [400, 404], answers
    require_others_unharmed(edge, proxy, others)


@pytest.mark.parametrize(
    "fields",
    [
        b"Connection: Upgrade, HTTP2-Settings\r\nHTTP2-Settings: AAEAAEAAAAI\r\nUpgrade: h2c\r\n",
        b"Connection: Upgrade\r\nUpgrade: websocket\r\n",
        b"Expect: 100-continue\r\n",
        b"Connection: Content-Length\r\n",
        b"Connection: Transfer-Encoding, Host\r\n",
        b"TE: trailers\r\nTrailer: Content-Length\r\n",
    ],
)
@pytest.mark.parametrize("framing", ["length", "chunked"])
def test_hop_by_hop_fields_change_no_framing(edge, proxy, others, fields, framing):
    """Case I100."""
    head, form = edge.request("token")
    for body in (form, *HIDDEN):
        headers, framed = SOUND[framing](body)
        answers = exchange(proxy.port, head + fields + headers + b"\r\n" + framed)
        require_one_answer_each([each for each in answers if each.status != 100])
    require_others_unharmed(edge, proxy, others)


def test_a_body_that_ends_early_makes_no_request_of_the_next(edge, proxy, others):
    """Case I100."""
    head, form = edge.request("token")
    for framing in (length(form + b"more"), CHUNKED):
        exchange(proxy.port, head + framing + b"\r\n" + form, deadline_seconds=0.3)
        require_others_unharmed(edge, proxy, others)


def test_pipelined_requests_are_answered_once_each_and_in_order(edge, proxy):
    """Case I100."""
    head, form = edge.request("token")
    request = head + length(form) + b"\r\n" + form
    unknown = b"GET /nowhere HTTP/1.1\r\nHost: localhost\r\n\r\n"
    answers = exchange(proxy.port, (request + unknown) * 10)
    assert [each.status for each in answers] == [200, 404] * 10 + [404]
