"""Requests to a Vault end in time and go to the configured addresses, whatever answers there."""

import ssl
import time
from contextlib import ExitStack
from time import monotonic

import pytest

from keys.backends.vault.breaker import (
    FAILURES_TO_OPEN,
    FIRST_OPEN_SECONDS,
    LONGEST_OPEN_SECONDS,
    CircuitBreaker,
)
from keys.backends.vault.connection import MAXIMUM_REPLY_BYTES
from keys.backends.vault.http import VaultHttp, VaultRequest
from keys.backends.vault.settings import VaultAccess, VaultLogin
from keys.errors import BackendUnavailable
from keys.events import BackendAnswered, BackendFailed
from support.openbao import CertificateAuthority
from support.ports import release_port, reserve_port
from support.received_events import ReceivedEvents
from support.scripted_server import EMPTY, ScriptedServer, answer_with

READ = VaultRequest("GET", "some/path")
WRITE = VaultRequest("POST", "some/path", {}, repeatable=False)
LONGEST_CALL_SECONDS = 2.0
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 1000\r\n\r\n"


def http_to(
    *addresses: str, received: ReceivedEvents | None = None, **settings: object
) -> VaultHttp:
    login = VaultLogin(method="token", token="t")
    return VaultHttp(
        VaultAccess(addresses=addresses, login=login, **settings), received or ReceivedEvents()
    )


def failure_of(http: VaultHttp, request: VaultRequest = READ) -> BackendUnavailable:
    """Return the error of a call that has to fail in time."""
    begun = monotonic()
    with pytest.raises(BackendUnavailable) as caught:
        http.send(request)
    assert monotonic() - begun < LONGEST_CALL_SECONDS
    return caught.value


@pytest.fixture
def nobody():
    """An address where nobody listens."""
    port = reserve_port()
    yield f"http://127.0.0.1:{port}"
    release_port(port)


def drip(connection, _) -> bool:
    """Answer byte by byte, each in time."""
    connection.sendall(HEAD)
    for _ in range(100):
        connection.sendall(b" ")
        time.sleep(0.1)
    return False


def drip_headers(connection, _) -> bool:
    connection.sendall(b"HTTP/1.1 200 OK\r\n")
    for number in range(100):
        connection.sendall(b"X-%d: y\r\n" % number)
        time.sleep(0.1)
    return False


def say_nothing(connection, _) -> bool:
    connection.recv(1)
    return False


@pytest.mark.parametrize("script", [drip, drip_headers, say_nothing])
def test_a_slow_answer_is_cut_off(script):
    """Case G80"""
    with ScriptedServer(script) as server:
        assert "TimeoutError" in str(failure_of(http_to(server.address)))


def test_two_slow_addresses_take_no_longer_than_one():
    """Case G80"""
    with ScriptedServer(say_nothing) as first, ScriptedServer(say_nothing) as second:
        failure_of(http_to(first.address, second.address))


def test_an_address_that_takes_no_connection_is_given_up_soon():
    """Case G80"""
    # A documentation network (RFC 5737): nothing answers there, or the machine has no route.
    begun = monotonic()
    failure_of(http_to("http://192.0.2.1:8200"))
    assert monotonic() - begun < 10


@pytest.mark.parametrize("name", ["no-such-host.invalid", "a..b", "x" * 64])
def test_a_name_that_does_not_exist_is_unavailable(name):
    failure_of(http_to(f"http://{name}:8200"))


def close_at_once(_connection, _) -> bool:
    return False


def break_off(connection, _) -> bool:
    connection.sendall(HEAD + b'{"data"')
    return False


def talk_nonsense(connection, _) -> bool:
    connection.sendall(b"220 mail.example ESMTP\r\n")
    return False


def talk_without_end(connection, _) -> bool:
    head = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: "
    connection.sendall(f"{head}{MAXIMUM_REPLY_BYTES + 1}\r\n\r\n".encode())
    connection.sendall(b" " * (MAXIMUM_REPLY_BYTES + 1))
    return False


@pytest.mark.parametrize(
    "script",
    [
        close_at_once,
        break_off,
        talk_nonsense,
        talk_without_end,
        answer_with(b"<html>", kind="text/html"),
        answer_with(b"not JSON"),
        answer_with(b"[1]"),
        answer_with(b'{"data":{"keys":{}},"data":{}}'),
        answer_with(b'{"data":NaN}'),
        answer_with(b'{"data":' + b"[" * 100_000),
        answer_with(b"{}", status=503),
        answer_with(b"{}", status=502),
        answer_with(b"{}", status=501),
        answer_with(b"{}", status=473),
    ],
)
def test_what_does_not_answer_as_a_serving_vault_is_unavailable(script):
    """Case G79"""
    with ScriptedServer(script) as server:
        error = failure_of(http_to(server.address))
        assert server.address in str(error)
        assert error.retry_after >= 1


def test_a_redirect_is_not_followed():
    """The token would go to wherever it points."""
    with ScriptedServer(answer_with(EMPTY)) as thief:
        script = answer_with(b"", status=307, extra=f"Location: {thief.address}/v1/x\r\n")
        with ScriptedServer(script) as server:
            error = failure_of(http_to(server.address))
        assert "sends callers elsewhere" in str(error)
        assert thief.requests == []


def test_the_environment_has_no_say_in_where_requests_go(monkeypatch, tmp_path):
    """Left to its habits, the requests library would use the proxy and the netrc password."""
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login thief password secret\n")
    with ScriptedServer(answer_with(EMPTY)) as proxy, ScriptedServer(answer_with(EMPTY)) as server:
        for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
            monkeypatch.setenv(name, proxy.address)
        monkeypatch.setenv("no_proxy", "")
        monkeypatch.setenv("NETRC", str(netrc))
        monkeypatch.setenv("VAULT_NAMESPACE", "theirs")
        monkeypatch.setenv("VAULT_TOKEN", "theirs")
        http_to(server.address).send(READ)
        assert proxy.requests == []
        (request,) = server.requests
        assert b"authorization" not in request.lower()
        assert b"theirs" not in request


def test_the_namespace_is_named_in_every_request():
    with ScriptedServer(answer_with(EMPTY)) as server:
        http_to(server.address, namespace="team/a").send(READ)
        http_to(server.address).send(READ)
        first, second = server.requests
        assert b"X-Vault-Namespace: team/a\r\n" in first
        assert b"X-Vault-Namespace" not in second
        assert b"X-Vault-Request: true\r\n" in first


def test_an_address_may_have_a_path():
    with ScriptedServer(answer_with(EMPTY)) as server:
        http_to(f"{server.address}/vault/").send(READ)
        assert server.requests[0].startswith(b"GET /vault/v1/some/path HTTP/1.1\r\n")


# ------------------------------------------------------------------------------ several addresses


def test_another_address_takes_over_and_is_asked_first_from_then_on(nobody):
    received = ReceivedEvents()
    with ScriptedServer(answer_with(EMPTY)) as server:
        http = http_to(nobody, server.address, received=received)
        for request in (WRITE, READ, READ):
            assert http.send(request).address == server.address
        assert http.address == server.address
    assert received.of(BackendAnswered) == [(server.address,)]
    ((failed, reason),) = received.of(BackendFailed)
    assert failed == nobody
    assert "refused" in reason


def test_a_write_that_may_have_happened_is_not_repeated_elsewhere():
    with ScriptedServer(close_at_once) as first, ScriptedServer(answer_with(EMPTY)) as second:
        failure_of(http_to(first.address, second.address), WRITE)
        assert second.requests == []
        assert http_to(first.address, second.address).send(READ).address == second.address


@pytest.mark.parametrize("status", [503, 473, 502, 524])
def test_a_write_goes_on_only_where_the_first_node_did_nothing(status):
    script = answer_with(b"{}", status=status)
    with ScriptedServer(script) as first, ScriptedServer(answer_with(EMPTY)) as second:
        http = http_to(first.address, second.address)
        if status in {503, 473}:
            assert http.send(WRITE).address == second.address
        else:
            failure_of(http, WRITE)
            assert second.requests == []


def test_a_node_that_fails_at_something_is_not_the_last_word():
    """A standby without a leader answers 500."""
    with (
        ScriptedServer(answer_with(b'{"errors": ["no leader"]}', status=500)) as first,
        ScriptedServer(answer_with(EMPTY)) as second,
    ):
        assert http_to(first.address, second.address).send(READ).status == 200
        assert http_to(first.address).send(READ).status == 500
        assert http_to(first.address, second.address).send(WRITE).status == 500


def test_no_more_than_three_addresses_are_asked():
    with ExitStack() as stack:
        script = answer_with(b"{}", status=503)
        servers = [stack.enter_context(ScriptedServer(script)) for _ in range(5)]
        failure_of(http_to(*(server.address for server in servers)))
        assert sorted(len(server.requests) for server in servers) == [0, 0, 1, 1, 1]


def test_one_connection_serves_many_requests_and_a_closed_one_is_noticed():
    closing = []

    def answer(connection, request) -> bool:
        # Before the answer: the test goes on at once.
        ends = bool(closing)
        answer_with(EMPTY)(connection, request)
        return not ends

    with ScriptedServer(answer) as server:
        http = http_to(server.address)
        for _ in range(5):
            http.send(WRITE)
        assert server.connections == 1
        closing.append(True)
        http.send(WRITE)
        while not server.ended:
            time.sleep(0.001)
        closing.clear()
        http.send(WRITE)
        assert server.connections == 2


# -------------------------------------------------------------------------------------- throttling


def test_throttling_is_answered_by_one_more_attempt_a_little_later():
    answers = [429, 200]

    def answer(connection, request) -> None:
        answer_with(EMPTY, status=answers.pop(0))(connection, request)

    with ScriptedServer(answer) as server:
        assert http_to(server.address).send(WRITE).status == 200
        assert len(server.requests) == 2


def test_throttling_that_goes_on_is_unavailable_after_one_more_attempt():
    """Case G79"""
    with ScriptedServer(answer_with(b"{}", status=429)) as server:
        assert "too many requests" in str(failure_of(http_to(server.address)))
        assert len(server.requests) == 2


# ------------------------------------------------------------------------------ circuit breaker


def test_an_address_that_keeps_failing_is_left_alone_and_tried_again():
    """Case G79"""
    broken = [True]

    def answer(connection, request) -> bool:
        if broken:
            time.sleep(0.05)
            return False
        answer_with(EMPTY)(connection, request)
        return True

    received = ReceivedEvents()
    with ScriptedServer(answer) as server:
        http = http_to(server.address, received=received)
        for _ in range(FAILURES_TO_OPEN):
            failure_of(http, WRITE)
        asked = len(server.requests)
        error = failure_of(http, WRITE)
        assert "left alone" in str(error)
        assert error.retry_after >= 1
        assert len(server.requests) == asked
        broken.clear()
        deadline = monotonic() + 60
        while True:
            try:
                http.send(READ)
                break
            except BackendUnavailable:
                assert monotonic() < deadline
                time.sleep(0.02)
    assert len(received.of(BackendFailed)) == 1
    assert len(received.of(BackendAnswered)) == 1


class Clock:
    """Seconds that pass when told to."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_the_circuit_opens_for_longer_and_longer_and_lets_one_try():
    clock = Clock()
    breaker = CircuitBreaker(clock)
    waits = []
    for _ in range(FAILURES_TO_OPEN - 1):
        breaker.failed()
        assert breaker.may_try()
    for _ in range(8):
        breaker.failed()
        assert not breaker.may_try()
        waits.append(breaker.seconds_to_wait())
        clock.now += waits[-1] + 0.001
        assert breaker.may_try()
        assert not breaker.may_try(), "one at a time"
    assert 0.7 * FIRST_OPEN_SECONDS <= waits[0] <= FIRST_OPEN_SECONDS
    assert 0.7 * LONGEST_OPEN_SECONDS <= waits[-1] <= LONGEST_OPEN_SECONDS
    assert breaker.succeeded()
    assert not breaker.succeeded()
    assert breaker.may_try()
    assert breaker.seconds_to_wait() == 0


# --------------------------------------------------------------------------------------------- TLS


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    return CertificateAuthority(tmp_path_factory.mktemp("authority"))


def tls_of(authority: CertificateAuthority) -> ssl.SSLContext:
    """Return what a server with a certificate of `authority` speaks."""
    made = authority.certify("server")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(made.certificate_path, made.private_key_path)
    return context


def test_only_the_configured_ca_is_trusted(authority, tmp_path):
    """Case G79"""
    other = tmp_path / "other"
    other.mkdir()
    stranger = CertificateAuthority(other)
    with ScriptedServer(answer_with(EMPTY), tls_of(authority)) as server:
        ca_file = str(authority.certificate_path)
        assert http_to(server.address, ca_file=ca_file).send(READ).status == 200
        for wrong in ("", str(stranger.certificate_path)):
            error = failure_of(http_to(server.address, ca_file=wrong))
            assert "certificate verify failed" in str(error)


def test_a_handshake_that_hangs_is_cut_off(authority):
    """Case G80"""
    with ScriptedServer(say_nothing) as server:
        address = server.address.replace("http:", "https:")
        failure_of(http_to(address, ca_file=str(authority.certificate_path)))
