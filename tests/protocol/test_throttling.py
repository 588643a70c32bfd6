"""Failed authentications are slowed down; the right secret always gets in."""

import gc
import time
import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count

import pytest

from support.databases import copied_database
from support.mtls import AUTHORITY, MTLS, SELF, ask, subject
from support.parties import ACTOR, Credentials
from support.protocol import (
    ENDPOINTS,
    METHODS,
    Protocol,
    basic,
    facts,
    present,
    require_refusal,
    running_protocol,
)

ATTACKER, HOME = "203.0.113.66", "198.51.100.7"
WRONG = "wrong-wrong-wrong-wrong-wrong-wrong-wrong-w"


_numbers = count(1)


@contextmanager
def throttling(request, tmp_path_factory, failures: int) -> Iterator[Protocol]:
    directory = tmp_path_factory.mktemp("protocol")
    limit = {"failures_per_window": failures}
    with (
        copied_database(request, "sqlite", directory) as url,
        running_protocol(
            directory,
            url,
            clients=limit,
            server={"trusted_proxies": ["127.0.0.1"]},
            client_certificates={"source": "nginx", "mtls_base_url": MTLS},
        ) as protocol,
    ):
        yield protocol


@pytest.fixture(scope="module")
def throttled(request, tmp_path_factory) -> Iterator[Protocol]:
    """An application that throttles as it does by default: after 100 failures in a minute.

    Each test has clients of its own, for each client is counted apart.
    """
    with throttling(request, tmp_path_factory, 100) as protocol:
        yield protocol


@pytest.fixture(scope="module")
def strict(request, tmp_path_factory) -> Iterator[Protocol]:
    """An application that throttles after 3 failures in a minute."""
    with throttling(request, tmp_path_factory, 3) as protocol:
        yield protocol


def new_resource_server(protocol: Protocol) -> Credentials:
    """Make a resource server without scopes."""
    return protocol.parties.make_resource_server(f"throttled-{next(_numbers)}")


def offer(protocol: Protocol, endpoint: str, method: str, pair: tuple[str, str], source: str):
    """Offer an id and a secret from an address."""
    fields, headers = present(method, *pair)
    form = protocol.form(endpoint) | fields
    return protocol.post(endpoint, form, headers, environ_base={"REMOTE_ADDR": source})


def guess(protocol: Protocol, endpoint: str, method: str, client_id: str, source: str = ATTACKER):
    return offer(protocol, endpoint, method, (client_id, WRONG), source)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("endpoint", ENDPOINTS)
def test_guesser_is_slowed_down_and_the_client_is_not(
    throttled: Protocol, endpoint: str, method: str
):
    """Case A13."""
    client = throttled.new_client(method)

    def own_request() -> int:
        began = time.thread_time_ns()
        answer = offer(throttled, endpoint, method, (client.id, client.secret), HOME)
        took = time.thread_time_ns() - began
        assert answer.status_code == 200
        return took

    # The quickest of many says what the work costs, whatever else the machine does.
    before = min(own_request() for _ in range(30))
    answers = [guess(throttled, endpoint, method, client.id) for _ in range(200)]
    assert [answer.status_code for answer in answers] == [401] * 100 + [429] * 100
    last = answers[-1]
    require_refusal(last, 429, "slow_down", endpoint)
    assert 1 <= int(last.headers["Retry-After"]) <= 61
    assert "WWW-Authenticate" not in last.headers
    # The right secret gets in from there too: the address may be a proxy's that all clients share.
    answer = offer(throttled, endpoint, method, (client.id, client.secret), ATTACKER)
    assert answer.status_code == 200
    assert guess(throttled, endpoint, method, client.id).status_code == 429
    assert min(own_request() for _ in range(30)) < 2 * before


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("endpoint", ENDPOINTS)
def test_throttling_tells_nothing_of_who_exists(throttled: Protocol, endpoint: str, method: str):
    """Cases A1, A13."""
    other = next(each for each in METHODS if each != method)
    cast = (
        throttled.new_client(method).id,
        throttled.new_client(other).id,
        f"no-such-client-{next(_numbers)}",
    )
    last = []
    for client_id in cast:
        answers = [guess(throttled, endpoint, method, client_id) for _ in range(101)]
        assert [answer.status_code for answer in answers] == [401] * 100 + [429]
        last.append(facts(answers[-1]))
    assert last[0] == last[1] == last[2]


@pytest.mark.parametrize("endpoint", ENDPOINTS)
def test_throttling_tells_nothing_of_who_exists_by_an_id_with_a_colon(
    strict: Protocol, endpoint: str
):
    """Where a Basic header is split depends on who is registered. Cases A1, A8, A13."""
    number = next(_numbers)
    strict.parties.make_client(f"known{number}:unit", "client_secret_basic")
    seen = []
    for beginning in (f"known{number}", f"unknown{number}"):
        pairs = [f"{beginning}:{secret}" for secret in ("a", "b", "c", f"unit:{WRONG}")]
        answers = [
            strict.post(endpoint, strict.form(endpoint), {"Authorization": basic(pair)})
            for pair in pairs
        ]
        seen.append([answer.status_code for answer in answers])
    assert seen == [[401, 401, 401, 429]] * 2


@pytest.mark.parametrize("result", ["SUCCESS", "FAILED:self-signed certificate"])
@pytest.mark.parametrize("endpoint", ["token", "introspect", "revoke"])
def test_a_certificate_tells_nothing_of_who_exists(strict: Protocol, endpoint: str, result: str):
    """Each wrong certificate counts as a guess, whatever its client is. Cases A1, A13."""
    number = next(_numbers)
    kinds = {
        "client_secret_post": {},
        "private_key_jwt": {"jwks": {"keys": [SELF.jwk()]}},
        "tls_client_auth": subject(),
        "self_signed_tls_client_auth": {"jwks": {"keys": [SELF.jwk()]}},
    }
    for method, properties in kinds.items():
        strict.parties.make_client(f"{method}-{number}", method, properties=properties)
    disabled = strict.parties.make_client(
        f"disabled-{number}", "tls_client_auth", properties=subject()
    )
    with strict.parties.change() as (services, session):
        services.clients.set_enabled(session, disabled.id, actor=ACTOR, enabled=False)
    key = AUTHORITY.issue("CN=other", names=())
    seen = []
    for name in ("unknown", "disabled", *kinds):
        answers = [
            ask(strict, endpoint, f"{name}-{number}", key, headers={"X-SSL-Client-Verify": result})
            for _ in range(4)
        ]
        assert [answer.status_code for answer in answers] == [401, 401, 401, 429], name
        seen.append(facts(answers[-1]))
    assert all(each == seen[0] for each in seen)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("endpoint", ENDPOINTS)
def test_failures_at_all_endpoints_count_together(throttled: Protocol, endpoint: str, method: str):
    """Case A13."""
    client = throttled.new_client(method)
    for number in range(100):
        guess(throttled, tuple(ENDPOINTS)[number % 4], method, client.id)
    assert guess(throttled, endpoint, method, client.id).status_code == 429


def test_window_passes(throttled: Protocol):
    """Case A13."""
    client, method = throttled.new_client(), "client_secret_post"
    for _ in range(101):
        answer = guess(throttled, "token", method, client.id)
    wait = int(answer.headers["Retry-After"])
    throttled.clock.advance(wait - 2)
    assert guess(throttled, "token", method, client.id).status_code == 429
    throttled.clock.advance(2)
    assert guess(throttled, "token", method, client.id).status_code == 401
    answer = offer(throttled, "token", method, (client.id, client.secret), ATTACKER)
    assert answer.status_code == 200


@pytest.mark.parametrize("address", ["127.0.0.1", "::1", "10.0.0.5"])
@pytest.mark.parametrize("endpoint", ENDPOINTS)
def test_shared_address_locks_nobody_out(throttled: Protocol, endpoint: str, address: str):
    """Behind a proxy that is not trusted all senders have one address. Case A13."""
    mapper, client = new_resource_server(throttled), throttled.new_client()
    victims = {mapper.id: mapper, client.id: client}
    for victim in victims.values():
        answers = [
            guess(throttled, endpoint, victim.method, victim.id, address) for _ in range(150)
        ]
        assert [answer.status_code for answer in answers] == [401] * 100 + [429] * 50
    for victim in victims.values():
        pair = (victim.id, victim.secret)
        answer = offer(throttled, "introspect", victim.method, pair, address)
        assert answer.status_code == 200
    other = throttled.new_client("client_secret_basic")
    assert guess(throttled, endpoint, other.method, other.id, address).status_code == 401


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("endpoint", ENDPOINTS)
def test_right_secret_by_the_wrong_method_is_not_counted(
    strict: Protocol, endpoint: str, method: str
):
    """Case A13."""
    protocol, client = strict, strict.new_client(method)
    wrong_method = next(each for each in METHODS if each != method)
    pair = (client.id, client.secret)
    for _ in range(5):
        answer = offer(protocol, endpoint, wrong_method, pair, ATTACKER)
        require_refusal(answer, 401, "invalid_client", endpoint)
    answers = [guess(protocol, endpoint, wrong_method, client.id) for _ in range(4)]
    assert [answer.status_code for answer in answers] == [401] * 3 + [429]
    # Nor is it slowed down by the failures of others.
    assert offer(protocol, endpoint, wrong_method, pair, ATTACKER).status_code == 401


@pytest.mark.parametrize("endpoint", ENDPOINTS)
def test_request_without_a_secret_is_always_challenged(strict: Protocol, endpoint: str):
    """Many HTTP libraries send credentials only after a 401. Case A13."""
    protocol, client = strict, strict.new_client()
    for fields, headers in (({}, {}), ({"client_id": client.id}, {}), ({}, {"Authorization": "x"})):
        for _ in range(5):
            answer = protocol.post(endpoint, protocol.form(endpoint) | fields, headers)
            require_refusal(answer, 401, "invalid_client", endpoint)


@pytest.mark.parametrize("endpoint", ENDPOINTS)
def test_ipv6_senders_are_counted_by_their_network(strict: Protocol, endpoint: str):
    """One subscriber has a /64 and its 2^64 addresses. Case A13."""
    protocol, client, method = strict, strict.new_client(), "client_secret_post"

    def status(address: str) -> int:
        return guess(protocol, endpoint, method, client.id, address).status_code

    assert [status(f"2001:db8:1:2:{n}::{n}") for n in range(1, 5)] == [401] * 3 + [429]
    assert status("2001:db8:1:3::1") == 401
    assert [status(f"::ffff:192.0.2.{n}") for n in range(1, 5)] == [401] * 4
    assert [status("192.0.2.1"), status("192.0.2.1"), status("::ffff:192.0.2.1")] == [401, 401, 429]


def test_source_is_the_peer_unless_a_trusted_proxy_says_otherwise(start_protocol):
    """Cases A13, I100."""
    protocol = start_protocol(
        clients={"failures_per_window": 3}, server={"trusted_proxies": ["10.0.0.0/24"]}
    )
    client = protocol.demo.post

    def status(peer: str, forwarded: str) -> int:
        form = protocol.form("token") | {"client_id": client.id, "client_secret": WRONG}
        headers = {"X-Forwarded-For": forwarded}
        base = {"REMOTE_ADDR": peer}
        return protocol.post("token", form, headers, environ_base=base).status_code

    # Behind the proxy each sender has a count of its own; what a sender writes itself is not read.
    assert [status("10.0.0.5", f"{n}.1.1.1, {ATTACKER}") for n in range(1, 5)] == [401] * 3 + [429]
    assert status("10.0.0.5", f"{ATTACKER}, {HOME}") == 401
    # A stranger that claims to forward is counted as itself.
    assert [status("192.0.2.1", f"{n}.2.2.2") for n in range(1, 5)] == [401] * 3 + [429]


def test_long_ids_do_not_fill_the_memory(throttled: Protocol):
    """Case A13."""
    guess(throttled, "token", "client_secret_post", "first")
    gc.collect()
    tracemalloc.start()
    try:
        for number in range(100):
            guess(throttled, "token", "client_secret_post", f"{number:04}" + "x" * 8_000)
        gc.collect()
        kept, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert kept < 100 * 4_000
