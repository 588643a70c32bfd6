"""Documents of other parties, from servers that behave and servers that do not."""

import asyncio
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator

import pytest
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID

from authz_server.clients.fetching import (
    LONGEST_BACK_OFF_SECONDS,
    MAXIMUM_FETCHES_OF_ORIGIN,
    Access,
    Fetcher,
    FetchError,
    UrlRefusedError,
    read_lifetime,
)
from authz_server.serving.lanes import Lanes
from authz_server.settings import OutboundSettings
from authz_server.waiting import Lane, run
from support.client_certificates import ClientAuthority
from support.scripted_server import ScriptedServer, answer_with

LOOPBACK = ("127.0.0.0/8",)
DOCUMENT = b'{"keys": []}'
PUBLIC = "93.184.215.14"


class Clock:
    """Monotonic seconds that a test moves."""

    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def make(clock: Clock):
    """A function of settings that returns a fetcher that may reach this machine by http."""

    def make_fetcher(resolve: Callable | None = None, **settings) -> Fetcher:
        usual = {"allowed_networks": LOOPBACK, "plain_http": True, "timeout_seconds": 1}
        resolving = {} if resolve is None else {"resolve": resolve}
        return Fetcher(OutboundSettings(**usual | settings), now=clock, **resolving)

    return make_fetcher


def get(fetcher: Fetcher, url: str, **options) -> bytes:
    return run(fetcher.fetch(url, **options))


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
def test_a_server_that_misbehaves_is_given_up_in_bounded_time(make, name):
    """Case H92."""
    with ScriptedServer(MISBEHAVING[name]) as server:
        began = time.monotonic()
        with pytest.raises(FetchError):
            get(make(), f"{server.address}/jwks")
        assert time.monotonic() - began < 2.5
        assert len(server.requests) == 1


def test_a_document_comes_as_it_is_and_the_request_holds_nothing_else(make):
    with ScriptedServer(answer_with(DOCUMENT)) as server:
        assert get(make(), f"{server.address}/jwks?a=b") == DOCUMENT
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
def test_a_document_of_the_largest_size_is_accepted(make, answer):
    with ScriptedServer(answer) as server:
        assert get(make(), server.address) == b"x" * 65_536


def test_the_environment_proxies_are_not_used(make, monkeypatch):
    with ScriptedServer(answer_with(DOCUMENT)) as server:
        for name in ("http_proxy", "HTTP_PROXY", "all_proxy"):
            monkeypatch.setenv(name, "http://127.0.0.1:1")
        assert get(make(), server.address) == DOCUMENT


# ------------------------------------------------------------------------------ addresses


def test_an_inner_address_is_never_connected_to(make):
    """Case H92."""
    with ScriptedServer(answer_with(DOCUMENT)) as server:
        for fetcher in (
            make(allowed_networks=()),
            make(lambda _host, _seconds: ["127.0.0.1"], allowed_networks=()),
            # One inner address is enough, whatever the others are.
            make(lambda _host, _seconds: [PUBLIC, "127.0.0.1"], allowed_networks=()),
            make(lambda _host, _seconds: ["::ffff:127.0.0.1"], allowed_networks=()),
        ):
            for host in ("127.0.0.1", "keys.example"):
                with pytest.raises(FetchError):
                    get(fetcher, f"https://{host}:{server.port}/")
        assert server.connections == 0


def test_a_host_is_looked_up_once_and_the_connection_goes_to_what_was_checked(make):
    """Case H92. A second look-up could give another address (DNS rebinding)."""
    asked = []

    def resolve(host: str, _seconds: float) -> list[str]:
        asked.append(host)
        return ["127.0.0.1"] if len(asked) == 1 else ["10.0.0.1"]

    with ScriptedServer(answer_with(DOCUMENT)) as server:
        fetcher = make(resolve)
        assert get(fetcher, f"http://keys.example:{server.port}/") == DOCUMENT
        assert b"Host: keys.example:" in server.requests[0]
    assert asked == ["keys.example"]


def test_plain_http_is_for_loopback_alone(make):
    fetcher = make(lambda _host, _seconds: [PUBLIC])
    with pytest.raises(UrlRefusedError):
        get(fetcher, "http://keys.example:8080/")
    with pytest.raises(UrlRefusedError):
        get(make(plain_http=False), "http://127.0.0.1:8080/")


def test_a_name_without_address_and_a_resolver_that_hangs_are_failures(make):
    with pytest.raises(FetchError):
        get(make(), "https://no-such-host.invalid/")

    def hang(_host: str, seconds: float) -> list[str]:
        time.sleep(seconds)
        raise TimeoutError("looking up the host takes too long")

    with pytest.raises(FetchError, match="looking up"):
        get(make(hang), "https://keys.example/")


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
def test_only_allowed_origins_are_fetched_from(make, allowed, url, is_allowed):
    """Case H92."""
    fetcher = make(allowed_origins=(allowed,))
    if is_allowed:
        fetcher.check(url)
        return
    with pytest.raises(UrlRefusedError):
        get(fetcher, url)


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


def test_the_certificate_must_be_of_a_trusted_authority_and_for_the_host(make, tls_server, ca_file):
    url = f"https://keys.example:{tls_server.port}/"
    assert get(make(here, ca_file=ca_file), url) == DOCUMENT
    with pytest.raises(FetchError, match="TLS"):
        get(make(here), url)
    with pytest.raises(FetchError, match="TLS"):
        get(make(here, ca_file=ca_file), f"https://other.example:{tls_server.port}/")
    with pytest.raises(FetchError, match="TLS"):
        get(make(ca_file=ca_file), f"https://127.0.0.1:{tls_server.port}/")


def test_an_operators_url_may_have_its_own_authority_token_and_inner_address(
    make, tls_server, ca_file, tmp_path
):
    token = tmp_path / "token"
    token.write_text("a.b-c\n")
    access = Access(trusted=True, ca_file=ca_file, token_file=str(token))
    fetcher = make(here, allowed_networks=(), allowed_origins=("https://other.example",))
    url = f"https://keys.example:{tls_server.port}/"
    assert get(fetcher, url, access=access) == DOCUMENT
    assert b"Authorization: Bearer a.b-c\r\n" in tls_server.requests[0]
    # What is held for an operator's URL is not given to a client that names it.
    with pytest.raises(UrlRefusedError):
        get(fetcher, url)
    token.write_text("a\r\nX-Other: b")
    with pytest.raises(FetchError):
        get(make(here), url, access=access)


# ---------------------------------------------------------------------------------- cache


def test_a_document_is_cached_as_long_as_it_may_be_within_the_bounds(make, clock):
    bounds = {"minimum_cache_seconds": 10, "maximum_cache_seconds": 100}
    for control, seconds in (
        ("max-age=50", 50),
        ("public, MAX-AGE=50, must-revalidate", 50),
        ("max-age=1", 10),
        ("no-store", 10),
        ("max-age=100000", 100),
        ("", 20),
        ("nonsense", 20),
    ):
        answer = answer_with(DOCUMENT, extra=f"Cache-Control: {control}\r\n")
        with ScriptedServer(answer) as server:
            fetcher = make(default_cache_seconds=20, **bounds)
            first = get(fetcher, server.address)
            clock.now += seconds - 0.1
            assert get(fetcher, server.address) is first
            assert len(server.requests) == 1
            clock.now += 0.2
            # The document has not changed, so that what was read of it need not be read again.
            assert get(fetcher, server.address) is first
            assert len(server.requests) == 2


def test_a_newer_document_is_fetched_at_most_once_in_the_shortest_time(make, clock):
    bodies = iter([b"1", b"2", b"3"])
    with ScriptedServer(lambda peer, _: answer_with(next(bodies))(peer, b"")) as server:
        fetcher = make(minimum_cache_seconds=30)
        assert get(fetcher, server.address) == b"1"
        assert get(fetcher, server.address, newer=True) == b"1"
        clock.now += 31
        assert get(fetcher, server.address) == b"1"
        assert get(fetcher, server.address, newer=True) == b"2"
        assert get(fetcher, server.address, newer=True) == b"2"
        assert len(server.requests) == 2


def test_the_last_document_is_used_for_a_limited_time_while_its_url_fails(make, clock):
    is_well = True

    def answer(peer: socket.socket, request: bytes) -> None:
        answer_with(DOCUMENT, 200 if is_well else 500)(peer, request)

    with ScriptedServer(answer) as server:
        fetcher = make(default_cache_seconds=100, keep_seconds=1_000)
        assert get(fetcher, server.address) == DOCUMENT
        is_well = False
        clock.now += 101
        assert get(fetcher, server.address) == DOCUMENT
        assert len(server.requests) == 2
        clock.now += 900
        assert get(fetcher, server.address) == DOCUMENT
        clock.now += 100
        with pytest.raises(FetchError):
            get(fetcher, server.address)
        is_well = True
        clock.now += LONGEST_BACK_OFF_SECONDS
        assert get(fetcher, server.address) == DOCUMENT


def test_a_url_that_fails_is_left_alone_for_a_time_that_grows(make, clock):
    with ScriptedServer(answer_with(b"", 500)) as server:
        fetcher = make()
        for number, seconds in enumerate((1, 2, 4, 8), start=1):
            for _ in range(3):
                with pytest.raises(FetchError):
                    get(fetcher, server.address)
                with pytest.raises(FetchError):
                    get(fetcher, server.address, newer=True)
            assert len(server.requests) == number
            clock.now += seconds + 0.1
        for _ in range(20):
            clock.now += LONGEST_BACK_OFF_SECONDS + 0.1
            with pytest.raises(FetchError):
                get(fetcher, server.address)
        assert len(server.requests) == 24


def test_the_cache_is_bounded_in_bytes_and_documents(make, monkeypatch):
    monkeypatch.setattr("authz_server.clients.fetching.MAXIMUM_DOCUMENTS", 3)
    with ScriptedServer(answer_with(DOCUMENT)) as server:
        fetcher = make()
        for number in range(5):
            get(fetcher, f"{server.address}/{number}")
        get(fetcher, f"{server.address}/4")
        assert len(server.requests) == 5
        get(fetcher, f"{server.address}/0")
        assert len(server.requests) == 6
    monkeypatch.setattr("authz_server.clients.fetching.MAXIMUM_CACHED_BYTES", 150_000)
    with ScriptedServer(answer_with(b"x" * 60_000)) as server:
        fetcher = make()
        for path in "abc":
            get(fetcher, f"{server.address}/{path}")
        get(fetcher, f"{server.address}/c")
        assert len(server.requests) == 3
        get(fetcher, f"{server.address}/a")
        assert len(server.requests) == 4


def test_urls_that_give_nothing_displace_no_document(make, monkeypatch):
    monkeypatch.setattr("authz_server.clients.fetching.MAXIMUM_EMPTY", 2)

    def answer(peer: socket.socket, request: bytes) -> None:
        answer_with(DOCUMENT, 200 if b"/good" in request else 404)(peer, request)

    with ScriptedServer(answer) as server:
        fetcher = make()
        get(fetcher, f"{server.address}/good")
        for number in (*range(5), 4, 3):
            with pytest.raises(FetchError):
                get(fetcher, f"{server.address}/{number}")
        assert len(server.requests) == 6
        get(fetcher, f"{server.address}/good")
        assert len(server.requests) == 6


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("", None),
        ("max-age=0", 0),
        ('max-age="60"', 60),
        ("no-cache, max-age=60", 0),
        ("s-maxage=9", None),
        ("max-age=-1", None),
        ("max-age=" + "9" * 5_000, 9_999_999_999),
    ],
)
def test_the_lifetime_of_a_document_is_read(value, seconds):
    assert read_lifetime(value) == seconds


# ------------------------------------------------------------------------- many at a time


def slowly(connection: socket.socket, request: bytes) -> None:
    time.sleep(0.3)
    answer_with(DOCUMENT)(connection, request)


def test_requests_in_threads_share_one_fetch(make):
    with ScriptedServer(slowly) as server:
        fetcher, bodies = make(), []
        threads = [
            threading.Thread(target=lambda: bodies.append(get(fetcher, server.address)))
            for _ in range(20)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert bodies == [DOCUMENT] * 20
        assert len(server.requests) == 1


async def on_loop(*coroutines, threads: int = 4, limit: int = 1_000) -> list:
    """Run coroutines at once as a worker does; return results and errors."""
    loop = asyncio.get_running_loop()
    lanes = Lanes(
        loop,
        threads=dict.fromkeys(Lane, threads),
        maximum_waiting=limit,
        prepared_queries=None,
    )

    async def caught(coroutine):
        try:
            return await coroutine
        except Exception as error:  # noqa: BLE001 - it is the result
            return error

    results = [loop.create_future() for _ in coroutines]
    for coroutine, result in zip(coroutines, results, strict=True):
        lanes.start(caught(coroutine), result.set_result)
    gathered = await asyncio.gather(*results)
    await lanes.close()
    return gathered


def test_any_number_of_requests_on_a_loop_share_one_fetch_and_one_thread(make):
    """Case H92. Threads that wait for one slow URL would be missing for another."""
    with ScriptedServer(slowly) as slow, ScriptedServer(answer_with(b"quick")) as quick:
        fetcher = make()
        results = asyncio.run(
            on_loop(
                *(fetcher.fetch(slow.address) for _ in range(300)),
                fetcher.fetch(quick.address),
                threads=2,
            )
        )
        assert results == [DOCUMENT] * 300 + [b"quick"]
        assert len(slow.requests) == 1


def test_a_failure_is_that_of_every_request_that_waits(make):
    with ScriptedServer(answer_with(b"", 500)) as server:
        fetcher = make()
        results = asyncio.run(on_loop(*(fetcher.fetch(server.address) for _ in range(50))))
        assert {type(each) for each in results} == {FetchError}
        assert len(server.requests) == 1


def test_one_slow_origin_holds_no_more_than_its_share_of_threads(make):
    held = threading.Event()
    with (
        ScriptedServer(lambda *_: held.wait(5)) as slow,
        ScriptedServer(answer_with(DOCUMENT)) as quick,
    ):
        fetcher = make()
        urls = [f"{slow.address}/{number}" for number in range(MAXIMUM_FETCHES_OF_ORIGIN + 3)]
        results = asyncio.run(
            on_loop(*map(fetcher.fetch, (*urls, quick.address)), threads=len(urls) + 1)
        )
        held.set()
        assert results[-1] == DOCUMENT
        assert len(slow.requests) == MAXIMUM_FETCHES_OF_ORIGIN
        # What was not fetched for want of room is not held against its URL.
        assert sum("too many" in str(each) for each in results) == 3
