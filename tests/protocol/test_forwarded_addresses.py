"""The client's address at each endpoint: recorded as a trusted proxy passes it, or refused."""

import json
from itertools import count

import pytest

from support.parties import Credentials
from support.protocol import (
    ENDPOINTS,
    METHODS,
    TOKEN_ENDPOINTS,
    Protocol,
    require_refusal,
    running_protocol,
)

CLIENT = "203.0.113.9"
PROXY = "127.0.0.1"
CONFIGURED = "x-forwarded-for"
GOOD = {
    "x-forwarded-for": f"9.9.9.9, {CLIENT}:4711",
    "forwarded": f'for=9.9.9.9, for="{CLIENT}:4711";proto=https',
    "x-real-ip": CLIENT,
}
MALFORMED = {
    "x-forwarded-for": f"{CLIENT}, nonsense",
    "forwarded": f"for={CLIENT}, for=nonsense",
    "x-real-ip": "nonsense",
}
NUMBERS = count()


@pytest.fixture(scope="module")
def protocol(module_database_url: str, tmp_path_factory):
    """An application that trusts its peer."""
    directory = tmp_path_factory.mktemp("protocol")
    server = {"trusted_proxies": [PROXY]}
    with running_protocol(directory, module_database_url, server=server) as protocol:
        yield protocol


@pytest.fixture(params=ENDPOINTS)
def endpoint(request) -> str:
    """The endpoint."""
    return request.param


@pytest.fixture(params=METHODS)
def caller(request, protocol: Protocol, endpoint: str) -> Credentials:
    """A party of either method that may call the endpoint."""
    if endpoint == "introspect":
        return protocol.parties.make_resource_server(f"reader-{next(NUMBERS)}", request.param)
    return protocol.new_client(request.param)


def send(protocol: Protocol, endpoint: str, caller: Credentials, headers: dict[str, str]):
    """Send a form that succeeds with further headers; return the answer and its records."""
    form = protocol.form(endpoint) | caller.form()
    answer = protocol.post(endpoint, form, caller.headers() | headers)
    records = map(json.loads, protocol.audit_trail().splitlines())
    request_id = answer.headers["X-Request-Id"]
    return answer, [each for each in records if each["request_id"] == request_id]


def test_the_address_is_recorded_as_the_proxy_passes_it(protocol, endpoint, caller):
    """Case I100."""
    answer, records = send(protocol, endpoint, caller, {CONFIGURED: GOOD[CONFIGURED]})
    assert answer.status_code == 200
    assert [record["source_address"] for record in records] == [CLIENT] * len(records)
    assert records or endpoint not in TOKEN_ENDPOINTS


def test_a_malformed_address_is_refused_and_recorded_with_the_proxys(protocol, endpoint, caller):
    """Case I100."""
    answer, (record,) = send(protocol, endpoint, caller, {CONFIGURED: MALFORMED[CONFIGURED]})
    require_refusal(answer, 400, "invalid_request", endpoint)
    assert record["reason"] == "forwarded_address_malformed"
    assert record["source_address"] == PROXY


@pytest.mark.parametrize("header", GOOD)
def test_the_configured_header_alone_counts(start_protocol, header):
    """Case I100."""
    server = {"trusted_proxies": [PROXY], "forwarded_header": header}
    protocol = start_protocol(server=server)
    others = {name: value for name, value in MALFORMED.items() if name != header}
    for headers, address in ((others, PROXY), (others | {header: GOOD[header]}, CLIENT)):
        answer, records = send(protocol, "token", protocol.demo.post, headers)
        assert answer.status_code == 200
        assert [record["source_address"] for record in records] == [address]
    answer, _ = send(protocol, "token", protocol.demo.post, {header: MALFORMED[header]})
    require_refusal(answer, 400, "invalid_request")


def test_keys_are_refused_to_a_malformed_address(protocol):
    """Case I100."""
    path = "/.well-known/jwks.json"
    assert protocol.get(path, **{CONFIGURED: GOOD[CONFIGURED]}).status_code == 200
    answer = protocol.get(path, **{CONFIGURED: MALFORMED[CONFIGURED]})
    assert (answer.status_code, answer.json["error"]) == (400, "invalid_request")
