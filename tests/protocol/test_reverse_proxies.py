"""nginx and HAProxy as the documentation configures them: which headers pass, and the address."""

import json
import secrets
from email.utils import formatdate
from urllib.parse import urlencode

import httpx
import pytest

from authz_server.endpoints.client_address import ClientAddressReader
from authz_server.endpoints.request import Request
from support.databases import copied_database
from support.edge import running_edge
from support.reverse_proxy import ReverseProxy
from support.scripted_server import ScriptedServer

PROXIES = ("nginx", "haproxy")
# Every address of 127.0.0.0/8 is this machine's: a client that is not the proxy.
CLIENT = "127.0.0.2"
FORGED = "203.0.113.9"
SPELLINGS = (
    "X-Forwarded-For",
    "X_Forwarded_For",
    "X-Forwarded_For",
    "X_Forwarded-For",
    "x_forwarded_for",
)
OTHER_HEADERS = ("Forwarded", "X-Real-IP", "X_Real_IP", "Content_Length", "Transfer_Encoding")
HAPROXY_FORWARDED = [("option httpchk GET /health/ready", "option forwarded proto for")]
NGINX_FORWARDED = [
    (
        "proxy_set_header X-Forwarded-For $remote_addr;",
        'proxy_set_header Forwarded "for=\\"$remote_addr:$remote_port\\";proto=$scheme";',
    )
]


def client(local_address=CLIENT):
    return httpx.Client(transport=httpx.HTTPTransport(local_address=local_address))


def answer_empty(connection, _request):
    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
    return False


def headers_of(request):
    """Return the names as sent in lower case, with their values joined as the server joins them."""
    headers = {}
    for line in request.partition(b"\r\n\r\n")[0].decode("latin-1").split("\r\n")[1:]:
        name, _, value = line.partition(":")
        name, value = name.lower(), value.strip()
        headers[name] = f"{headers[name]}, {value}" if name in headers else value
    return headers


@pytest.fixture(params=PROXIES)
def proxy_kind(request):
    return request.param


def passed(kind, directory, headers, changes=()):
    """Return the headers that a server behind the proxy gets of this request."""
    with (
        ScriptedServer(answer_empty) as server,
        ReverseProxy(kind, server.port, directory, changes) as proxy,
        client() as sender,
    ):
        assert sender.post(f"{proxy.base_url}/oauth2/token", headers=headers).status_code == 200
        return headers_of(server.requests[0])


def test_no_spelling_of_a_forwarded_header_passes_the_proxy(proxy_kind, tmp_path):
    """Case I100."""
    forged = dict.fromkeys((*SPELLINGS, *OTHER_HEADERS), FORGED)
    arrived = passed(proxy_kind, tmp_path, forged | {"Content_Length": "7"})
    assert arrived["x-forwarded-for"] == CLIENT
    assert [name for name in arrived if "_" in name] == []
    reader = ClientAddressReader(["127.0.0.1"], "x-forwarded-for")
    assert reader.read(Request("POST", "/", headers=arrived, peer="127.0.0.1")) == CLIENT


def test_message_id_and_what_the_server_reads_pass_the_proxy(proxy_kind, tmp_path):
    sent = {
        "accept": "application/token-introspection+jwt",
        "accept-language": "pt-BR, fr;q=0.5",
        "authorization": "Basic bWluaXN0cnk6c2VjcmV0",
        "content-encoding": "gzip",
        "content-type": "application/x-www-form-urlencoded",
        "dpop": "proof",
        "if-match": '"b"',
        "if-modified-since": formatdate(0, usegmt=True),
        "if-none-match": '"a"',
        "if-unmodified-since": formatdate(0, usegmt=True),
        "timestamp": formatdate(usegmt=True),
        "user-agent": "verifier/1",
    }
    arrived = passed(proxy_kind, tmp_path, sent | {"message_id": "2026-0001"})
    assert arrived["message-id"] == "2026-0001"
    assert {name: arrived.get(name) for name in sent} == sent
    assert "message-id" not in passed(proxy_kind, tmp_path, sent)


@pytest.mark.parametrize(
    ("kind", "changes"), [("nginx", NGINX_FORWARDED), ("haproxy", HAPROXY_FORWARDED)]
)
def test_forwarded_as_the_proxies_write_it_is_understood(kind, changes, tmp_path):
    """Case I100."""
    arrived = passed(kind, tmp_path, {"X-Forwarded-For": FORGED}, changes)
    reader = ClientAddressReader(["127.0.0.1"], "forwarded")
    assert reader.read(Request("POST", "/", headers=arrived, peer="127.0.0.1")) == CLIENT


@pytest.fixture(scope="module")
def edge(request, tmp_path_factory):
    """A running server that trusts the proxies of this file; its database does not matter."""
    directory = tmp_path_factory.mktemp("server")
    trusted = {"trusted_proxies": ["127.0.0.1"]}
    with (
        copied_database(request, "sqlite", directory) as url,
        running_edge(directory, url, server=trusted) as edge,
    ):
        yield edge


@pytest.fixture(scope="module", params=PROXIES)
def proxy(edge, request, tmp_path_factory):
    """Each proxy in front of that server."""
    with ReverseProxy(request.param, edge.port, tmp_path_factory.mktemp("proxy")) as proxy:
        yield proxy


def ask(edge, proxy, headers, **options):
    """Send a request of the G2P Connect profile through the proxy; its answer and audit record."""
    message_id = f"id-{secrets.token_hex(8)}"
    form = {"grant_type": "client_credentials", "scope": "mapper/link"} | edge.demo.post.form()
    with client(**options) as sender:
        answer = sender.post(
            f"{proxy.base_url}/oauth2/client/token",
            content=urlencode(form).encode(),
            headers={
                "Content-Type": "application/x-www-form-urlencoded",
                "timestamp": formatdate(usegmt=True),
                "message_id": message_id,
                **headers,
            },
        )
    records = map(json.loads, edge.audit_trail().splitlines())
    (record,) = [each for each in records if each.get("message_id") == message_id]
    return answer, record


@pytest.mark.parametrize("value", [FORGED, "127.0.0.1", "nonsense"])
def test_a_client_behind_the_proxy_cannot_choose_its_address(edge, proxy, value):
    """Case I100."""
    for name in (*SPELLINGS, "Forwarded", "X-Real-IP"):
        answer, record = ask(edge, proxy, {name: value})
        assert answer.status_code == 200, name
        assert answer.headers["message_id"] == record["message_id"]
        assert record["source_address"] == CLIENT, name


@pytest.mark.parametrize("name", SPELLINGS[1:])
def test_serve_reads_the_header_under_its_exact_name(edge, name):
    """Case I100."""
    as_sent_by_a_proxy = {"local_address": "127.0.0.1"}
    headers = [("X-Forwarded-For", CLIENT), (name, FORGED)]
    for both in (headers, headers[::-1]):
        _, record = ask(edge, edge.server, dict(both), **as_sent_by_a_proxy)
        assert record["source_address"] == CLIENT
    _, record = ask(edge, edge.server, {name: FORGED}, **as_sent_by_a_proxy)
    assert record["source_address"] == "127.0.0.1"


def test_the_proxys_own_requests_have_its_address(edge, proxy):
    _, record = ask(edge, proxy, {}, local_address="127.0.0.1")
    assert record["source_address"] == "127.0.0.1"
