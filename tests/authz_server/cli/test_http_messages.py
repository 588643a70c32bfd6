"""What is kept from the application because it can be read two ways."""

import json

import pytest

from authz_server.cli.http_messages import (
    MessageRules,
    find_refusal,
    forget_headers_in_environment,
)

SOUND = {"REQUEST_METHOD": "POST", "HTTP_HOST": "localhost", "CONTENT_LENGTH": "3"}


@pytest.mark.parametrize(
    "host",
    [
        "localhost",
        "authz.example.org",
        "authz.example.org:8443",
        "127.0.0.1:8080",
        "[::1]",
        "[2001:db8::1]:443",
        "xn--bcher-kva.example",
    ],
)
def test_one_host_is_let_through(host):
    assert find_refusal(SOUND | {"HTTP_HOST": host}) is None


@pytest.mark.parametrize(
    "host",
    [
        "",
        "a,b",
        "a b",
        "a/b",
        "a@b",
        "a:b",
        "a:123456",
        "[::1",
        "::1",
        "a\n",
        "a\x00",
        "é.example",
        "a:\N{ARABIC-INDIC DIGIT ONE}",
        "a?b",
        "a#b",
        "a\\b",
    ],
)
def test_no_host_several_or_something_else_is_refused(host):
    """Case I103."""
    assert find_refusal(SOUND | {"HTTP_HOST": host}).status == 400


def test_a_request_that_does_not_name_its_host_is_refused():
    """Case I103."""
    assert find_refusal({"REQUEST_METHOD": "GET"}).status == 400


@pytest.mark.parametrize("method", ["TRACE", "CONNECT", "FROBNICATE", "post", "Post", "", "POST "])
def test_methods_that_do_not_exist_are_refused(method):
    """Case I103."""
    assert find_refusal(SOUND | {"REQUEST_METHOD": method}).status == 405


@pytest.mark.parametrize("coding", ["chunked", "gzip, chunked", "identity", ""])
def test_a_body_that_does_not_say_its_length_is_refused(coding):
    """Case I100."""
    assert find_refusal(SOUND | {"HTTP_TRANSFER_ENCODING": coding}).status == 411


def test_a_refusal_is_json_that_nobody_keeps_and_the_application_is_not_asked():
    def application(_environ, _start_response):
        pytest.fail("the application was asked")

    told = {}

    def start_response(status, headers, _exc_info=None):
        told.update(status=status, headers=dict(headers))

    environ = {"REQUEST_METHOD": "TRACE", "HTTP_HOST": "localhost"}
    body = b"".join(MessageRules(application)(environ, start_response))
    assert told["status"].startswith("405 ")
    assert told["headers"]["Cache-Control"] == "no-store"
    assert told["headers"]["X-Request-Id"]
    assert json.loads(body)["error"] == "invalid_request"


def test_everything_else_reaches_the_application_as_it_is():
    def application(environ, start_response):
        start_response("200 OK", [])
        return [environ["HTTP_HOST"].encode()]

    assert MessageRules(application)(SOUND, lambda *_: None) == [b"localhost"]


def test_environment_variables_do_not_pass_for_headers():
    """Case I100."""
    variables = {
        "HTTP_HOST": "evil.example",
        "HTTP_X_FORWARDED_FOR": "203.0.113.66",
        "CONTENT_LENGTH": "3",
        "HTTP_PROXY": "http://proxy.example",
        "PATH": "/bin",
    }
    forget_headers_in_environment(variables)
    assert variables == {"HTTP_PROXY": "http://proxy.example", "PATH": "/bin"}
