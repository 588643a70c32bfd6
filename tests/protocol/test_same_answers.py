"""`serve` and WSGI answer alike, to hostile requests too.

All tests of this folder that ask an application in this process compare both ways: see the twin of
the fixtures `protocol` and `stage`.
"""

import dataclasses

import pytest

from support.hostile_requests import HostileRequests, SoundRequest
from support.protocol import ENDPOINTS, FORM_TYPE, Protocol
from support.serve_twin import message_of
from support.wsgi import RawAnswer, RawRequest, call

DOCUMENTS = ("/.well-known/jwks.json", "/.well-known/oauth-authorization-server")
REQUESTS = 1_500


def sound_requests(protocol: Protocol) -> list[SoundRequest]:
    """Return one sound request for each endpoint and authentication method, and each document."""
    found = [SoundRequest("GET", path, {"Host": "authz.example"}, ()) for path in DOCUMENTS]
    token = protocol.new_token()
    for endpoint, path in ENDPOINTS.items():
        for caller in (protocol.demo.post, protocol.demo.basic, protocol.demo.mapper):
            headers = {"Host": "authz.example", "Content-Type": FORM_TYPE} | caller.headers()
            form = protocol.form(endpoint, token) | caller.form()
            found.append(
                SoundRequest(
                    "POST", path, headers | protocol.profile_headers(endpoint), tuple(form.items())
                )
            )
    return found


def test_hostile_requests_are_answered_alike(protocol: Protocol):
    """Case I106."""
    twin = protocol.client.twin
    before, statuses = twin.compared, set()
    requests = HostileRequests("same-answers", sound_requests(protocol))
    for number in range(REQUESTS):
        request = requests.make()
        answer = call(protocol.app, request)
        try:
            twin.compare(request.environ(), request.body, answer)
        except AssertionError as difference:
            pytest.fail(f"request {number}: {str(request)[:1_000]}\n{difference}")
        statuses.add(answer.status)
    assert {200, 400, 401, 404, 405} <= statuses
    assert twin.compared - before > REQUESTS / 2


@pytest.mark.parametrize(
    "change",
    [
        {"status": 401},
        {"headers": {"content-type": "application/json"}},
        {"body": b'{"active":true}'},
    ],
)
def test_an_answer_that_differs_is_noticed(protocol: Protocol, change: dict):
    headers = {"Host": "authz.example", "Content-Type": FORM_TYPE, **protocol.demo.mapper.headers()}
    request = RawRequest("POST", ENDPOINTS["introspect"], headers=headers, body=b"token=invented")
    answer = call(protocol.app, request)
    protocol.client.twin.compare(request.environ(), request.body, answer)
    different: RawAnswer = dataclasses.replace(answer, **change)
    with pytest.raises(AssertionError):
        protocol.client.twin.compare(request.environ(), request.body, different)


def test_what_only_a_broken_server_hands_on_is_not_compared():
    """Such messages never reach an endpoint of `serve`: see the tests of its connections."""
    sound = {"Host": "authz.example"}
    assert message_of(RawRequest("GET", "/a", "b", dict(sound)).environ(), b"") == (
        b"GET /a?b HTTP/1.1\r\nHOST: authz.example\r\nCONTENT-LENGTH: 0\r\n\r\n"
    )
    for request in (
        RawRequest("GET", "/a b", headers=dict(sound)),
        RawRequest("GET", "a", headers=dict(sound)),
        RawRequest("CONNECT", "/a", headers=dict(sound)),
        RawRequest("GET", "/a", headers=sound | {"X-A": "a\r\nb: c"}),
        RawRequest("GET", "/a", headers=sound | {"X-A": "a" * 9_000}),
        RawRequest("POST", "/a", headers=dict(sound), body=b"ab", content_length="1"),
        RawRequest("POST", "/a", headers=sound | {"Transfer-Encoding": "chunked"}),
    ):
        assert message_of(request.environ(), request.body) is None, request
    nameless = RawRequest("GET", "/a").environ()
    del nameless["HTTP_HOST"]
    assert message_of(nameless, b"") is None
