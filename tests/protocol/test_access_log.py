"""The access log: one line for each answered request, under `serve` and under WSGI servers."""

import io
import json
import logging
import re
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import httpx
import pytest

from authz_server.endpoints.access_log import AccessLog
from authz_server.endpoints.client_address import ClientAddressReader
from authz_server.endpoints.request import Request
from authz_server.logs import ACCESS_LOGGER, configure_logging
from authz_server.settings import LoggingSettings
from support.databases import DIALECTS, copied_database
from support.edge import running_edge
from support.parties import Credentials
from support.protocol import running_protocol

FORMATS = ("json", "text")
CLIENT = "198.51.100.7"
# The issuer's: documents may be cached under it.
HOST = "authz.example"
SCOPE = {"grant_type": "client_credentials", "scope": "mapper/link"}
PROXY = {"trusted_proxies": ["127.0.0.1"]}
_PAIR = re.compile(r' (\w+)=("(?:[^"\\]|\\.)*"|[0-9.]+)')


def access_lines(log: str) -> list[dict]:
    """Return the lines of the access log among those of the operator's log, in either form."""
    lines = [each for each in log.splitlines() if ACCESS_LOGGER in each]
    return [json.loads(each) if each[0] == "{" else _read_text(each) for each in lines]


def _read_text(line: str) -> dict:
    assert f" INFO {ACCESS_LOGGER}: answered " in line
    return {name: json.loads(value) for name, value in _PAIR.findall(line)}


class Site:
    """A running application, requests to it, and its access log."""

    def __init__(self, demo, watch_form, send, read_log) -> None:
        self.demo = demo
        self._watch_form, self._send, self._read_log = watch_form, send, read_log

    def send(self, method: str, path: str, form: dict | None = None, **headers: str) -> tuple:
        """Return an answer's status and its line of the access log."""
        if form:
            self._watch_form(form)
        sent = {"X-Forwarded-For": CLIENT, "Host": HOST, **headers}
        status, answered = self._send(method, path, form, sent)
        return status, self.line_of({name.lower(): answered[name] for name in answered})

    def post(self, path: str, caller: Credentials, **form: str) -> tuple:
        """Send a form as one of the parties."""
        return self.send("POST", path, form | caller.form(), **caller.headers())

    def line_of(self, headers: dict) -> dict:
        """Return the line that has the request id of an answer; there is exactly one."""
        deadline = time.monotonic() + 60
        while not (found := self._lines(headers["x-request-id"])):
            assert time.monotonic() < deadline, self._read_log()
            time.sleep(0.02)
        assert len(found) == 1
        return found[0]

    def _lines(self, request_id: str) -> list[dict]:
        lines = access_lines(self._read_log())
        return [each for each in lines if each["request_id"] == request_id]


@contextmanager
def serving(form: str, database_url: str, directory) -> Iterator[tuple]:
    logs = {"access": True, "level": "error", "format": form}
    server = PROXY | {"header_timeout_seconds": 1}
    with (
        running_edge(directory, database_url, logging=logs, server=server) as edge,
        httpx.Client(base_url=edge.server.base_url) as client,
    ):

        def send(method, path, data, headers):
            answer = client.request(method, path, data=data, headers=headers)
            return answer.status_code, answer.headers

        yield Site(edge.demo, lambda _: None, send, edge.server.log), edge


@contextmanager
def under_wsgi(form: str, database_url: str, directory) -> Iterator[tuple]:
    logs = {"access": True, "level": "error", "format": form}
    root, stream = logging.getLogger(), io.StringIO()
    with (
        running_protocol(directory, database_url, logging=logs, server=PROXY) as protocol,
        pytest.MonkeyPatch.context() as monkeypatch,
    ):
        handlers, level = root.handlers[:], root.level
        monkeypatch.setattr(sys, "stderr", stream)
        configure_logging(protocol.services.settings.logging)

        def send(method, path, data, headers):
            answer = protocol.client.open(path, method=method, data=data, headers=headers)
            return answer.status_code, dict(answer.headers)

        yield Site(protocol.demo, protocol.client.watch.note_form, send, stream.getvalue), None
        root.handlers[:], root.level = handlers, level


@pytest.fixture(scope="module")
def site_and_edge(request, tmp_path_factory):
    """A site, and its server where it is one."""
    kind, form, dialect = request.param
    directory = tmp_path_factory.mktemp("site")
    run = serving if kind == "serve" else under_wsgi
    with copied_database(request, dialect, directory) as url, run(form, url, directory) as made:
        yield made


@pytest.fixture(scope="module")
def site(site_and_edge):
    return site_and_edge[0]


#: Each form and each database once: the one has nothing to do with the other.
PAIRS = [*zip(FORMATS, DIALECTS, strict=True)]
SERVED = [("serve", *pair) for pair in PAIRS]
SITES = [*SERVED, *(("wsgi", *pair) for pair in PAIRS)]
on_sites = pytest.mark.parametrize("site_and_edge", SITES, ids="-".join, indirect=True)


@on_sites
def test_each_request_has_one_line_with_who_what_and_how_it_ended(site):
    """At every level of the log, and whoever answers: an endpoint or Flask."""
    demo = site.demo
    wrong = Credentials(demo.post.id, "wrong", "client_secret_post")
    token = SCOPE
    found = [
        (*site.post("/oauth2/token", demo.basic, **token), 200, demo.basic.id),
        (*site.post("/oauth2/client/token", demo.post, **token), 200, demo.post.id),
        (
            *site.post("/oauth2/token", demo.basic, **token | {"scope": "own/none"}),
            400,
            demo.basic.id,
        ),
        (*site.post("/oauth2/token", wrong, **token), 401, ""),
        (*site.post("/oauth2/introspect", demo.mapper, token="t"), 200, demo.mapper.id),
        (*site.post("/oauth2/introspect", demo.mapper, hint="t"), 400, demo.mapper.id),
        (*site.post("/oauth2/introspect", wrong, token="t"), 401, ""),
        (*site.post("/oauth2/revoke", demo.basic, token="t"), 200, demo.basic.id),
        (*site.post("/oauth2/revoke", wrong, token="t"), 401, ""),
        (*site.send("GET", "/.well-known/jwks.json"), 200, ""),
        (*site.send("HEAD", "/.well-known/oauth-authorization-server"), 200, ""),
        (*site.send("GET", "/nowhere"), 404, ""),
        (*site.send("GET", "/oauth2/token"), 405, ""),
    ]
    for status, line, expected, client_id in found:
        assert (status, line["status"], line["client_id"]) == (expected, expected, client_id), line
        assert line["source_address"] == CLIENT
        assert 0 <= line["milliseconds"] < 10_000
    methods = [(line["method"], line["path"]) for _, line, *_ in found]
    assert methods[0] == ("POST", "/oauth2/token")
    assert methods[-4:] == [
        ("GET", "/.well-known/jwks.json"),
        ("HEAD", "/.well-known/oauth-authorization-server"),
        ("GET", "/nowhere"),
        ("GET", "/oauth2/token"),
    ]


@on_sites
def test_a_document_that_is_unchanged_has_its_line(site):
    path = "/.well-known/jwks.json"
    assert site.send("GET", path, **{"If-None-Match": "*"})[1]["status"] == 304


@on_sites
def test_no_query_token_or_secret_stands_in_a_line(site):
    secret = "Zm9vYmFyYmF6cXV4Zm9vYmFyYmF6cXV4Zm9vYmFyYmF6"
    jwt = f"eyJhbGciOiJFUzI1NiJ9.{secret}.{secret}"
    for path in (
        f"/oauth2/token?client_secret={secret}",
        f"/oauth2/revoke/{secret}",
        f"/oauth2/{jwt}",
        f"/{'a/' * 120}{secret}",
        f"/oauth2/token%3Fclient_secret={secret}",
    ):
        line = site.send("GET", path)[1]
        assert secret[:8] not in json.dumps(line)
        assert "?" not in line["path"]
        assert len(line["path"]) <= 256


@on_sites
def test_an_address_that_cannot_be_read_is_the_connections(site):
    status, line = site.send("GET", "/nowhere", **{"X-Forwarded-For": "nonsense"})
    assert (status, line["source_address"]) == (404, "127.0.0.1")
    form = SCOPE | site.demo.post.form()
    status, line = site.send("POST", "/oauth2/token", form, **{"X-Forwarded-For": "nonsense"})
    assert (status, line["source_address"]) == (400, "127.0.0.1")


def post(path: str, *fields: str, body: str = "") -> bytes:
    head = "\r\n".join((f"POST {path} HTTP/1.1", "Host: localhost", *fields))
    return f"{head}\r\n\r\n{body}".encode()


UNREAD = {
    "nonsense": (b"NONSENSE\r\n\r\n", 400, "", ""),
    "two lengths": (
        post("/oauth2/token", "Content-Length: 1", "Content-Length: 2"),
        400,
        "",
        "/oauth2/token",
    ),
    "bad host": (b"GET /oauth2/token?a=b HTTP/1.1\r\nHost: a b\r\n\r\n", 400, "GET", None),
    "late header": (post("/oauth2/token?a=b")[:-2], 408, "", "/oauth2/token"),
    "large body": (post("/nowhere", "Content-Length: 9999999"), 413, "POST", "/nowhere"),
    "large body of a token": (
        post("/oauth2/token", "Content-Length: 9999999"),
        413,
        "POST",
        "/oauth2/token",
    ),
    "unknown expectation": (post("/nowhere", "Expect: much"), 417, "POST", "/nowhere"),
    "large header": (post("/nowhere", f"A: {'a' * 9_000}"), 431, "POST", "/nowhere"),
    "long target": (post(f"/nowhere?{'a' * 9_000}"), 414, "POST", "/nowhere"),
    "endless header": (post("/nowhere", f"A: {'a' * 9_000}")[:-4], 431, "", "/nowhere"),
}


@pytest.mark.parametrize("site_and_edge", SERVED, ids="-".join, indirect=True)
def test_messages_that_are_not_read_to_their_end_have_their_lines(site_and_edge):
    site, edge = site_and_edge
    for name, (message, status, method, path) in UNREAD.items():
        with edge.connect() as connection:
            connection.send(message)
            answer = connection.receive()
        assert answer is not None, name
        line = site.line_of(answer.headers)
        assert (answer.status, line["status"], line["client_id"]) == (status, status, ""), name
        assert (line["method"], line["source_address"]) == (method, "127.0.0.1"), name
        assert line["path"] == ("/oauth2/token" if path is None else path), name
        if status == 408:
            assert line["milliseconds"] >= 500


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("hostile", ["a\r\nb", "a\u2028b", "\x1b[31m", '"}\n{"forged":1}', "\x00"])
def test_a_line_stays_one_line(form, monkeypatch, hostile):
    root, stream = logging.getLogger(), io.StringIO()
    handlers, level = root.handlers[:], root.level
    monkeypatch.setattr(sys, "stderr", stream)
    configure_logging(LoggingSettings(level="error", format=form))
    log = AccessLog(ClientAddressReader([]))
    log.write(Request(hostile, f"/{hostile}"), status=404, request_id=hostile, seconds=0.5)
    root.handlers[:], root.level = handlers, level
    written = stream.getvalue()
    assert len(written.splitlines()) == 1
    assert written[:-1].isprintable()
    (line,) = access_lines(written)
    assert (line["path"], line["milliseconds"]) == (f"/{hostile}", 500)
