"""A WSGI environment as the value that endpoints read: its body in full, or why not."""

import json
from io import BytesIO

import pytest
from gunicorn.http.errors import InvalidHeader
from hypothesis import given
from hypothesis import strategies as st

from authz_server.app import bare_application, create_app
from authz_server.endpoints.errors import ErrorResponses, handle_everything_else
from authz_server.endpoints.wsgi import (
    FAULT,
    NOWHERE,
    has_odd_path,
    prepare,
    read_host,
    read_path,
    read_request,
)
from authz_server.settings import load_settings
from support.settings_file import write_settings
from support.wsgi import RawRequest

LIMIT = 2_048


def environ_of(body, **further):
    return {
        "REQUEST_METHOD": "POST",
        "CONTENT_LENGTH": str(len(body)),
        "wsgi.input": BytesIO(body),
        **further,
    }


def read(environ):
    """Return the request of another WSGI server."""
    prepare(environ)
    return read_request(environ, LIMIT)


def test_a_request_has_what_the_endpoints_read():
    request = read(
        environ_of(
            b"a=1",
            PATH_INFO="/oauth2/token",
            QUERY_STRING="b=2",
            REMOTE_ADDR="192.0.2.7",
            CONTENT_TYPE="text/plain",
            HTTP_X_FORWARDED_FOR="192.0.2.8",
            HTTP_MESSAGE_ID="m-1",
        )
    )
    assert (request.method, request.path, request.query) == ("POST", "/oauth2/token", "b=2")
    assert (request.body, request.peer, request.fault) == (b"a=1", "192.0.2.7", None)
    assert request.headers == {
        "content-length": "3",
        "content-type": "text/plain",
        "x-forwarded-for": "192.0.2.8",
        "message_id": "m-1",
    }


@pytest.mark.parametrize("zeros", [1, 5_000])
def test_a_length_may_begin_with_zeros(zeros):
    """Case I106"""
    request = read(environ_of(b"a=1", CONTENT_LENGTH=f"{'0' * zeros}3"))
    assert (request.body, request.fault) == (b"a=1", None)
    assert read(environ_of(b"", CONTENT_LENGTH="0" * zeros)).body == b""
    request = read(environ_of(b"a=1", CONTENT_LENGTH=f"{'0' * zeros}{LIMIT + 1}"))
    assert request.fault.reason == "body_too_large"


@given(declared=st.text(st.sampled_from("0123456789+- ,xé²"), min_size=1, max_size=12))
def test_only_digits_are_a_content_length(declared):
    """Case I100"""
    request = read(environ_of(b"a=1", CONTENT_LENGTH=declared))
    if declared.isascii() and declared.isdigit() and int(declared) in range(4):
        # A part of the body is read as that part.
        assert (request.body, request.fault) == (b"a=1"[: int(declared)], None)
        return
    assert request.body == b""
    assert request.fault.reason in {"parameter_malformed", "body_too_large"}


@pytest.mark.parametrize("chunked", [False, True], ids=["declared", "chunked"])
@pytest.mark.parametrize(("size", "fits"), [(2_048, True), (2_049, False), (100_000, False)])
def test_bodies_beyond_the_limit_are_refused_unread(chunked, size, fits):
    """Case I102"""
    body = b"b" * size
    environ = environ_of(body)
    if chunked:
        environ |= {
            "CONTENT_LENGTH": "",
            "HTTP_TRANSFER_ENCODING": "chunked",
            "wsgi.input_terminated": True,
        }
    request = read(environ)
    if fits:
        assert (request.body, request.fault) == (body, None)
    else:
        assert (request.body, request.fault.reason) == (b"", "body_too_large")
    assert environ["wsgi.input"].tell() <= LIMIT + 1


def test_a_chunked_body_that_the_server_does_not_end_is_refused_unread():
    """Case I100"""
    environ = environ_of(b"a=1", CONTENT_LENGTH="", HTTP_TRANSFER_ENCODING="chunked")
    assert read(environ).fault.reason == "message_malformed"
    assert environ["wsgi.input"].tell() == 0


def test_a_chunked_body_with_a_length_is_refused_unread():
    """Case I100"""
    environ = environ_of(b"a=1", HTTP_TRANSFER_ENCODING="chunked") | {"wsgi.input_terminated": True}
    assert read(environ).fault.reason == "message_malformed"
    assert environ["wsgi.input"].tell() == 0


def test_a_body_without_a_length_is_no_body():
    request = read(environ_of(b"a=1", CONTENT_LENGTH=""))
    assert (request.body, request.fault) == (b"", None)


@pytest.mark.parametrize("error", [OSError, ConnectionResetError, InvalidHeader])
def test_a_body_that_breaks_off_is_refused_and_the_reason_logged(error, caplog):
    """Case I100"""

    class Broken(BytesIO):
        def read(self, size=-1, /):
            raise error(size)

    caplog.set_level("INFO")
    assert read(environ_of(b"")).fault is None
    broken = environ_of(b"", CONTENT_LENGTH="7") | {"wsgi.input": Broken()}
    assert read(broken).fault.reason == "parameter_malformed"
    assert error.__name__ in caplog.text


@pytest.mark.parametrize(
    ("path", "target", "odd"),
    [
        ("/oauth2/token", "/oauth2/token", False),
        ("/oauth2/token", "/oauth2/token?a=%20", False),
        ("/oauth2/token", "/oauth2%2ftoken", True),
        ("/oauth2/token", "/%6fauth2/token", True),
        ("//oauth2/token", "//oauth2/token", True),
        ("/oauth2/token", "//oauth2/token", True),
        ("/oauth2/token", "/oauth2/./token", True),
        ("/oauth2/token", "/x/../oauth2/token", True),
        ("/oauth2/token", "/oauth2/token/.", True),
        ("/oauth2", "/oauth2/token/..?a=1", True),
        ("/oauth2/token.", "/oauth2/token.", False),
        ("/oauth2/token", "/oauth2/token#x", True),
        ("/", "/", False),
        ("/operators/", "/operators/", False),
        ("/...", "/...", False),
        ("/oauth2/token", "/oauth2/token?a#x", False),
        ("/oauth2/token", "http://authz.example/oauth2/token", False),
        ("/oauth2/token", "http://authz.example//oauth2/token", True),
        ("/.well-known/jwks.json", "/.well-known/jwks.json", False),
        ("/oauth2/token", "", False),
        ("//oauth2/token", "", True),
    ],
)
@pytest.mark.parametrize("name", ["RAW_URI", "REQUEST_URI"])
def test_a_path_that_a_proxy_may_read_otherwise_is_odd(name, path, target, odd):
    """Case I103"""
    assert has_odd_path({"PATH_INFO": path, name: target}) == odd


@pytest.mark.parametrize(
    ("path", "read"),
    [
        ("/oauth2/token", "/oauth2/token"),
        ("http://authz.example/oauth2/token", "/oauth2/token"),
        ("HTTPS://authz.example:8443/oauth2/token", "/oauth2/token"),
        ("http://authz.example", NOWHERE),
        ("oauth2/token", NOWHERE),
        ("*", NOWHERE),
        ("", NOWHERE),
    ],
)
def test_an_absolute_target_in_the_path_is_taken_for_its_path(path, read):
    """RFC 9112, 3.2.2. uWSGI passes what it was sent. Case I103."""
    assert read_path({"PATH_INFO": path, "REQUEST_URI": path}) == read


@pytest.mark.parametrize(
    ("protocol", "host", "is_sound"),
    [
        ("HTTP/1.1", "authz.example", True),
        ("HTTP/1.1", "[2001:db8::1]:443", True),
        ("HTTP/1.0", None, True),
        ("HTTP/1.1", None, False),
        ("HTTP/1.0", "a/b", False),
        *(("HTTP/1.1", host, False) for host in ("", "a@b", "a, a", "a b", "a:x", "::1", "[::1")),
    ],
)
def test_a_host_is_required_as_serve_requires_it(protocol, host, is_sound):
    """Case I103"""
    environ = environ_of(b"a=1", SERVER_PROTOCOL=protocol)
    if host is not None:
        environ["HTTP_HOST"] = host
    for fault in (read(environ).fault, environ.get(FAULT)):
        assert fault is None if is_sound else fault.reason == "host_malformed"


def test_what_serve_has_read_is_not_checked_again():
    """It has made HTTP/1.1 of HTTP/1.0, which needs no host."""
    environ = environ_of(b"a=1", SERVER_PROTOCOL="HTTP/1.1")
    assert read_request(environ, LIMIT).fault is None


@pytest.mark.parametrize(
    ("target", "reason"),
    [
        ("HTTPS://other.example:8443/oauth2/token?a=://", None),
        ("http://other.example", None),
        ("*", None),
        ("http://a@b/oauth2/token", "host_malformed"),
        ("http://a b/oauth2/token", "host_malformed"),
        ("ftp://other.example/oauth2/token", "message_malformed"),
        ("http:///oauth2/token", "message_malformed"),
        ("oauth2/token", None),
    ],
)
@pytest.mark.parametrize("name", ["RAW_URI", "REQUEST_URI"])
def test_an_absolute_target_has_a_host_and_a_scheme_of_http(name, target, reason):
    """As `serve` requires it. Case I103."""
    environ = environ_of(b"a=1", HTTP_HOST="a", SERVER_PROTOCOL="HTTP/1.1") | {name: target}
    for fault in (read(environ).fault, environ.get(FAULT)):
        assert (fault.reason if fault else None) == reason


@pytest.mark.parametrize(
    "changes",
    [
        {"HTTP_HOST": "a@b"},
        {"HTTP_HOST": None},
        {"HTTP_TRANSFER_ENCODING": "x"},
        {"RAW_URI": "ftp://a/nowhere"},
        {"REQUEST_URI": "http://a@b/nowhere"},
    ],
)
@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize("path", ["/nowhere", "/.well-known/jwks.json", "/status-lists"])
def test_a_header_is_refused_for_every_path(sqlite_url, tmp_path, method, path, changes):
    """As by `serve`, also where no endpoint reads the body. Case I100, Case I103."""
    app = create_app(load_settings(write_settings(tmp_path, sqlite_url, {})))
    request = RawRequest(method, path, headers={"Host": "a"})
    environ = {name: value for name, value in (request.environ() | changes).items() if value}
    started = []
    body = b"".join(app(environ, lambda *given: started.append(given)))
    assert [status[:3] for status, _ in started] == ["400"]
    assert json.loads(body)["error"] == "invalid_request"


@pytest.mark.parametrize(
    ("protocol", "coding", "is_sound"),
    [
        ("HTTP/1.1", "chunked", True),
        ("HTTP/1.1", " Chunked\t", True),
        ("HTTP/1.0", "chunked", False),
        *(
            ("HTTP/1.1", coding, False)
            for coding in ("", "x", "identity", "gzip, chunked", "chunked, chunked", "\x0bchunked")
        ),
    ],
)
def test_no_other_transfer_coding_than_chunked_is_read(protocol, coding, is_sound):
    """Some servers pass them on. Case I100."""
    further = {"wsgi.input_terminated": True, "HTTP_HOST": "a", "SERVER_PROTOCOL": protocol}
    environ = environ_of(b"a=1", CONTENT_LENGTH="", HTTP_TRANSFER_ENCODING=coding, **further)
    request = read(environ)
    assert (request.body, request.fault is None) == (b"a=1" if is_sound else b"", is_sound)


@pytest.mark.parametrize(
    ("target", "host"),
    [
        ("/a", "sent.example:80"),
        ("//a", "sent.example:80"),
        ("", "sent.example:80"),
        ("*", "sent.example:80"),
        ("http://Other.example:8080/a?b=//c", "other.example:8080"),
        ("https://other.example", "other.example"),
        ("http://other.example?a", "other.example?a"),
    ],
)
@pytest.mark.parametrize("name", ["RAW_URI", "REQUEST_URI"])
def test_the_host_is_as_it_was_sent_and_that_of_an_absolute_target_counts(name, target, host):
    """Case I100"""
    assert read_host({"HTTP_HOST": "Sent.example:80", name: target}) == host
    assert read_host({}) == ""


def test_a_message_without_a_request_line_is_not_found():
    """uWSGI passes such messages on. Case I106."""
    application = bare_application("nothing")
    handle_everything_else(application, ErrorResponses(1), {})
    started = []
    environ = {"wsgi.input": BytesIO(), "wsgi.url_scheme": "http", "SERVER_NAME": "localhost"}
    application(environ | {"SERVER_PORT": "80"}, lambda *given: started.append(given))
    assert [status[:3] for status, _ in started] == ["404"]
