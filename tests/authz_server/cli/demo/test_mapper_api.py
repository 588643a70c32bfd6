import threading
from wsgiref.simple_server import WSGIRequestHandler, make_server

import pytest

from authz_server.cli.demo.mapper_api import Configuration, create_mapper_api

IDENTIFIER = "http://127.0.0.1:8082"
GOOD = '{"active": true, "aud": "http://127.0.0.1:8082", "scope": "mapper/resolve mapper/link"}'


class _Quiet(WSGIRequestHandler):
    def log_message(self, *_):
        pass


class FakeIntrospection:
    """Answers introspection with what the test says; notes the requests."""

    def __init__(self):
        self.status, self.body, self.seen = "200 OK", GOOD, []

    def __call__(self, environ, start_response):
        body = environ["wsgi.input"].read(int(environ["CONTENT_LENGTH"]))
        self.seen.append((environ["PATH_INFO"], environ["HTTP_AUTHORIZATION"], body))
        start_response(self.status, [("Content-Type", "application/json")])
        return [self.body.encode()]


@pytest.fixture
def introspection():
    fake = FakeIntrospection()
    server = make_server("127.0.0.1", 0, fake, handler_class=_Quiet)
    fake.url = f"http://127.0.0.1:{server.server_port}/oauth2/introspect"
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    yield fake
    server.shutdown()
    thread.join()
    server.server_close()


def _link(url, authorization="Bearer some.token"):
    configuration = Configuration(8082, IDENTIFIER, url, "demo-mapper", "secret")
    headers = {"Authorization": authorization} if authorization else {}
    client = create_mapper_api(configuration).test_client()
    return client.post("/mapper/link", json={}, headers=headers)


def test_a_good_token_opens_the_door(introspection):
    answer = _link(introspection.url)
    assert answer.status_code == 200
    assert answer.json["message"]["ack_status"] == "ACK"
    assert introspection.seen == [
        ("/oauth2/introspect", "Basic ZGVtby1tYXBwZXI6c2VjcmV0", b"token=some.token")
    ]


@pytest.mark.parametrize("authorization", ["", "Bearer", "Bearer ", "Basic YTpi", "some.token"])
def test_no_token_is_answered_401_without_asking(introspection, authorization):
    answer = _link(introspection.url, authorization)
    assert answer.status_code == 401
    assert answer.headers["WWW-Authenticate"] == 'Bearer scope="mapper/link"'
    assert introspection.seen == []


@pytest.mark.parametrize(
    "body",
    [
        '{"active": false}',
        '{"active": "true", "aud": "http://127.0.0.1:8082", "scope": "mapper/link"}',
        '{"active": true, "aud": "http://elsewhere", "scope": "mapper/link"}',
        '{"active": true, "scope": "mapper/link"}',
        "[]",
    ],
)
def test_a_token_that_is_not_valid_here_is_answered_401(introspection, body):
    introspection.body = body
    answer = _link(introspection.url)
    assert answer.status_code == 401
    assert 'error="invalid_token"' in answer.headers["WWW-Authenticate"]


@pytest.mark.parametrize("scope", ["", "mapper/resolve", "mapper/link2", "xmapper/link"])
def test_a_token_without_the_scope_is_answered_403(introspection, scope):
    introspection.body = f'{{"active": true, "aud": ["{IDENTIFIER}"], "scope": "{scope}"}}'
    answer = _link(introspection.url)
    assert answer.status_code == 403
    assert 'error="insufficient_scope"' in answer.headers["WWW-Authenticate"]


@pytest.mark.parametrize(("status", "body"), [("503 x", "{}"), ("401 x", "{}"), ("200 OK", "{")])
def test_without_an_answer_about_the_token_nobody_comes_in(introspection, status, body):
    """Case E66."""
    introspection.status, introspection.body = status, body
    assert _link(introspection.url).status_code == 503


def test_an_authorization_server_that_is_away_lets_nobody_in():
    """Case E66."""
    assert _link("http://127.0.0.1:1/oauth2/introspect").status_code == 503
