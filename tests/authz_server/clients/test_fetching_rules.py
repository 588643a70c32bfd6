"""Fetching from servers that misbehave, inner addresses and untrusted authorities."""

import socket
import ssl
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress

import pytest
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID

from authz_server.clients.fetching import (
    Access,
    FetchError,
    UrlRefusedError,
)
from support.client_certificates import ClientAuthority
from support.fetching import DOCUMENT, get
from support.scripted_server import ScriptedServer, answer_with

PUBLIC = "93.184.215.14"


def head(*lines: str) -> bytes:
    return "\r\n".join(("HTTP/1.1 200 OK", *lines, "", "")).encode()


def script(*parts: bytes, pause: float = 0.0):
    """Return a script that sends parts, and then ends the connection."""

    def answer(connection: socket.socket, _request: bytes) -> bool:
        for part in parts:
            connection.sendall(part)
            time.sleep(pause)
        return False

    return answer


def drip(connection: socket.socket, _request: bytes) -> bool:
    connection.sendall(head("Content-Length: 1000"))
    for _ in range(1_000):
        connection.sendall(b"x")
        time.sleep(0.05)
    return False


def endless_headers(connection: socket.socket, _request: bytes) -> bool:
    connection.sendall(b"HTTP/1.1 200 OK\r\n")
    while True:
        connection.sendall(b"X-Filler: " + b"x" * 8_000 + b"\r\n")


def endless_interim(connection: socket.socket, _request: bytes) -> bool:
    while True:
        connection.sendall(b"HTTP/1.1 100 Continue\r\n\r\n" * 100)


def endless_chunks(connection: socket.socket, _request: bytes) -> bool:
    connection.sendall(head("Transfer-Encoding: chunked"))
    while True:
        connection.sendall(b"1000\r\n" + b"x" * 0x1000 + b"\r\n")


def silent(_connection: socket.socket, _request: bytes) -> bool:
    time.sleep(3)
    return False


MISBEHAVING = {
    "redirect": answer_with(b"", 302, extra="Location: http://127.0.0.1:1/\r\n"),
    "permanent redirect": answer_with(DOCUMENT, 308, extra="Location: /elsewhere\r\n"),
    "not found": answer_with(DOCUMENT, 404),
    "interim answers alone": script(b"HTTP/1.1 103 Early Hints\r\n\r\n"),
    "another protocol": script(b"HTTP/1.1 101 Switching Protocols\r\n\r\n", head(), DOCUMENT),
    "no content": script(b"HTTP/1.1 204 No Content\r\n\r\n"),
    "not modified": script(b"HTTP/1.1 304 Not Modified\r\n\r\n"),
    "server error": answer_with(DOCUMENT, 500),
    "too large": answer_with(b"x" * 65_537),
    "too large without a length": script(head("Connection: close"), b"x" * 65_537),
    "endless chunks": endless_chunks,
    "endless headers": endless_headers,
    "endless interim answers": endless_interim,
    "length that is a lie": script(head("Content-Length: 100"), DOCUMENT),
    "broken chunks": script(head("Transfer-Encoding: chunked"), b"zz\r\n{}\r\n"),
    "compressed": answer_with(DOCUMENT, extra="Content-Encoding: gzip\r\n"),
    "byte by byte": drip,
    "silence": silent,
    "end at once": script(),
    "not HTTP": script(b"SSH-2.0-OpenSSH_9.9\r\n"),
    "a line without end": script(b"HTTP/1.1 200 " + b"x" * 100_000),
}


@pytest.mark.parametrize("name", MISBEHAVING)
def test_a_server_that_misbehaves_is_given_up_in_bounded_time(make_fetcher, name):
    """Case H92."""
    with ScriptedServer(MISBEHAVING[name]) as server:
        began = time.monotonic()
        with pytest.raises(FetchError):
            get(make_fetcher(), f"{server.address}/jwks")
        assert time.monotonic() - began < 15
        assert len(server.requests) == 1


@pytest.mark.parametrize(
    "status", [b"100 Continue", b"102 Processing", b"103 Early Hints", b"199 X"]
)
def test_a_document_comes_after_interim_answers(make_fetcher, status):
    """RFC 9110, 15.2."""
    interim = b"HTTP/1.1 %b\r\nLink: </style.css>\r\n\r\n" % status
    final = head(f"Content-Length: {len(DOCUMENT)}")
    with ScriptedServer(script(interim, interim, final, DOCUMENT)) as server:
        assert get(make_fetcher(), f"{server.address}/jwks") == DOCUMENT


def test_a_document_comes_as_it_is_and_the_request_holds_nothing_else(make_fetcher):
    with ScriptedServer(answer_with(DOCUMENT)) as server:
        assert get(make_fetcher(), f"{server.address}/jwks?a=b") == DOCUMENT
        request = server.requests[0].decode()
    assert request.splitlines()[0] == "GET /jwks?a=b HTTP/1.1"
    names = {line.partition(":")[0] for line in request.splitlines()[1:] if line}
    assert names == {"Host", "Accept", "Accept-Encoding", "Connection"}


@pytest.mark.parametrize(
    "answer",
    [
        script(head("Content-Length: 65536"), b"x" * 65_536),
        script(head("Connection: close"), b"x" * 65_536),
        script(head("Transfer-Encoding: chunked"), b"10000\r\n", b"x" * 65_536, b"\r\n0\r\n\r\n"),
    ],
)
def test_a_document_of_the_largest_size_is_accepted(make_fetcher, answer):
    with ScriptedServer(answer) as server:
        assert get(make_fetcher(), server.address) == b"x" * 65_536


def test_the_environment_proxies_are_not_used(make_fetcher, monkeypatch):
    with ScriptedServer(answer_with(DOCUMENT)) as server:
        for name in ("http_proxy", "HTTP_PROXY", "all_proxy"):
            monkeypatch.setenv(name, "http://127.0.0.1:1")
        assert get(make_fetcher(), server.address) == DOCUMENT


# ------------------------------------------------------------------------------ addresses


def test_an_inner_address_is_never_connected_to(make_fetcher):
    """Case H92."""
    with ScriptedServer(answer_with(DOCUMENT)) as server:
        for fetcher in (
            make_fetcher(allowed_networks=()),
            make_fetcher(lambda _host, _seconds: ["127.0.0.1"], allowed_networks=()),
            # One inner address is enough, whatever the others are.
            make_fetcher(lambda _host, _seconds: [PUBLIC, "127.0.0.1"], allowed_networks=()),
            make_fetcher(lambda _host, _seconds: ["::ffff:127.0.0.1"], allowed_networks=()),
        ):
            for host in ("127.0.0.1", "keys.example"):
                with pytest.raises(FetchError):
                    get(fetcher, f"https://{host}:{server.port}/")
        assert server.connections == 0


def test_a_host_is_looked_up_once_and_the_connection_goes_to_what_was_checked(make_fetcher):
    """Case H92. A second look-up could give another address (DNS rebinding)."""
    asked = []

    def resolve(host: str, _seconds: float) -> list[str]:
        asked.append(host)
        return ["127.0.0.1"] if len(asked) == 1 else ["10.0.0.1"]

    with ScriptedServer(answer_with(DOCUMENT)) as server:
        fetcher = make_fetcher(resolve)
        assert get(fetcher, f"http://keys.example:{server.port}/") == DOCUMENT
        assert b"Host: keys.example:" in server.requests[0]
    assert asked == ["keys.example"]


def test_an_address_that_does_not_answer_leaves_time_to_the_others(make_fetcher):
    with socket.create_server(("127.0.0.2", 0), backlog=0) as full, ExitStack() as stack:
        port = full.getsockname()[1]
        for _ in range(3):
            # The kernel drops further attempts while the backlog is full.
            waiting = stack.enter_context(socket.socket())
            waiting.settimeout(0)
            with suppress(BlockingIOError):
                waiting.connect(("127.0.0.2", port))
        time.sleep(0.1)
        server = stack.enter_context(ScriptedServer(answer_with(DOCUMENT), port=port))
        fetcher = make_fetcher(lambda _host, _seconds: ["127.0.0.2", "127.0.0.1"])
        assert get(fetcher, f"http://keys.example:{port}/") == DOCUMENT
        assert server.connections == 1


def test_plain_http_is_for_loopback_alone(make_fetcher):
    fetcher = make_fetcher(lambda _host, _seconds: [PUBLIC])
    with pytest.raises(UrlRefusedError):
        get(fetcher, "http://keys.example:8080/")
    with pytest.raises(UrlRefusedError):
        get(make_fetcher(plain_http=False), "http://127.0.0.1:8080/")


def test_a_name_without_address_and_a_resolver_that_hangs_are_failures(make_fetcher):
    with pytest.raises(FetchError):
        get(make_fetcher(), "https://no-such-host.invalid/")

    def hang(_host: str, seconds: float) -> list[str]:
        time.sleep(seconds)
        raise TimeoutError("looking up the host takes too long")

    with pytest.raises(FetchError, match="looking up"):
        get(make_fetcher(hang), "https://keys.example/")


@pytest.mark.parametrize(
    ("allowed", "url", "is_allowed"),
    [
        ("https://keys.example", "https://keys.example/a", True),
        ("https://keys.example", "https://keys.example:8443/a", False),
        ("https://keys.example", "https://other.example/a", False),
        ("https://*.example", "https://a.b.example/", True),
        ("https://*.example", "https://example/", False),
        ("https://*.example", "https://notexample/", False),
        ("https://*.example:8443", "https://a.example:8443/", True),
        ("https://*.example:8443", "https://a.example/", False),
    ],
)
def test_only_allowed_origins_are_fetched_from(make_fetcher, allowed, url, is_allowed):
    """Case H92."""
    asked = []

    def resolve(host: str, _seconds: float) -> list[str]:
        asked.append(host)
        raise FetchError("the host has no address")

    with pytest.raises(FetchError):
        get(make_fetcher(resolve, allowed_origins=(allowed,)), url)
    assert bool(asked) is is_allowed


# ------------------------------------------------------------------------------------ TLS


@pytest.fixture(scope="module")
def authority() -> ClientAuthority:
    return ClientAuthority()


@pytest.fixture
def ca_file(authority, tmp_path) -> str:
    path = tmp_path / "ca.pem"
    path.write_bytes(authority.pem)
    return str(path)


@pytest.fixture
def tls_server(authority, tmp_path) -> Iterator[ScriptedServer]:
    issued = authority.issue(
        "CN=keys", names=[x509.DNSName("keys.example")], usage=ExtendedKeyUsageOID.SERVER_AUTH
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(issued.write(tmp_path, "server"))
    with ScriptedServer(answer_with(DOCUMENT), tls=context) as server:
        yield server


def here(_host: str, _seconds: float) -> list[str]:
    return ["127.0.0.1"]


def test_the_certificate_must_be_of_a_trusted_authority_and_for_the_host(
    make_fetcher, tls_server, ca_file
):
    url = f"https://keys.example:{tls_server.port}/"
    assert get(make_fetcher(here, ca_file=ca_file), url) == DOCUMENT
    with pytest.raises(FetchError, match="TLS"):
        get(make_fetcher(here), url)
    with pytest.raises(FetchError, match="TLS"):
        get(make_fetcher(here, ca_file=ca_file), f"https://other.example:{tls_server.port}/")
    with pytest.raises(FetchError, match="TLS"):
        get(make_fetcher(ca_file=ca_file), f"https://127.0.0.1:{tls_server.port}/")


def test_an_operators_url_may_have_its_own_authority_token_and_inner_address(
    make_fetcher, tls_server, ca_file, tmp_path
):
    token = tmp_path / "token"
    token.write_text("a.b-c\n")
    access = Access(trusted=True, ca_file=ca_file, token_file=str(token))
    fetcher = make_fetcher(here, allowed_networks=(), allowed_origins=("https://other.example",))
    url = f"https://keys.example:{tls_server.port}/"
    assert get(fetcher, url, access=access) == DOCUMENT
    assert b"Authorization: Bearer a.b-c\r\n" in tls_server.requests[0]
    # What is held for an operator's URL is not given to a client that names it.
    with pytest.raises(UrlRefusedError):
        get(fetcher, url)
    token.write_text("\ufeffa.b-c\r\n")  # a byte order mark of an editor is not the token's
    get(make_fetcher(here), url, access=access)
    assert b"Authorization: Bearer a.b-c\r\n" in tls_server.requests[-1]
    token.write_text("a\r\nX-Other: b")
    with pytest.raises(FetchError):
        get(make_fetcher(here), url, access=access)
