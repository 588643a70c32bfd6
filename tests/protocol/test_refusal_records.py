"""The record of a refusal says exactly why; the answer does not."""

import json
from collections.abc import Callable, Iterator
from datetime import timedelta
from itertools import count

import pytest

from support.databases import copied_database
from support.parties import ACTOR, Credentials
from support.protocol import (
    ENDPOINTS,
    METHODS,
    PRESENTATIONS,
    TOKEN_ENDPOINTS,
    Protocol,
    facts,
    method_of,
    present,
    require_refusal,
    running_protocol,
)

WRONG = "wrong-wrong-wrong-wrong-wrong-wrong-wrong-w"
EVENTS = {
    "token": "token.refused",
    "g2p": "token.refused",
    "introspect": "introspection.refused",
    "revoke": "revocation.refused",
}
_hosts = count(1)


@pytest.fixture(scope="module")
def protocol(request, tmp_path_factory) -> Iterator[Protocol]:
    """An application for tests that leave the usual parties as they are."""
    directory = tmp_path_factory.mktemp("protocol")
    with (
        copied_database(request, "sqlite", directory) as url,
        running_protocol(directory, url) as protocol,
    ):
        yield protocol


def last_record(protocol: Protocol) -> dict:
    return json.loads(protocol.audit_trail().splitlines()[-1])


def offer(protocol: Protocol, endpoint: str, presentation: str, client_id: str, secret: str):
    """Offer a secret from an address that nobody used before, so that it has a record alone."""
    fields, headers = present(presentation, client_id, secret)
    number = next(_hosts)
    base = {"REMOTE_ADDR": f"198.18.{number // 256}.{number % 256}"}
    return protocol.post(endpoint, protocol.form(endpoint) | fields, headers, environ_base=base)


def change(protocol: Protocol, client: Credentials, act: Callable) -> Credentials:
    with protocol.parties.change() as (services, session):
        act(services.clients, session, services.clients.get_client(session, client.id))
    return client


def disable(clients, session, client) -> None:
    clients.set_enabled(session, client.id, actor=ACTOR, enabled=False)


def end_secret(clients, session, client) -> None:
    clients.end_secret(session, client.id, client.secrets[0].id, actor=ACTOR)


def replace_secret(clients, session, client) -> None:
    clients.add_secret(session, client.id, actor=ACTOR)
    end_secret(clients, session, client)


def make_offers(protocol: Protocol, method: str) -> dict[str, list[tuple[str, str]]]:
    """Return ids and secrets by the reason for which they are refused."""
    soon = protocol.clock() + timedelta(seconds=5)

    def end_secret_soon(clients, session, client) -> None:
        clients.end_secret(session, client.id, client.secrets[0].id, actor=ACTOR, at=soon)

    other = next(each for each in METHODS if each != method)
    new = protocol.new_client
    right = new(method)
    disabled = change(protocol, new(method), disable)
    cast = {
        "client_disabled": [disabled],
        "client_expired": [new(method, expires_at=soon)],
        "client_not_yet_valid": [new(method, starts_at=soon + timedelta(days=1))],
        "secret_expired": [
            change(protocol, new(method), end_secret_soon),
            change(protocol, new(method), end_secret),
            change(protocol, new(method), replace_secret),
        ],
        "method_not_registered": [new(other)],
    }
    offers = {reason: [(each.id, each.secret) for each in cast[reason]] for reason in cast}
    protocol.clock.advance(10)
    return offers | {
        "client_unknown": [("no-such-client", WRONG), (right.id.upper(), right.secret)],
        "secret_wrong": [(right.id, WRONG), (right.id, right.secret[:-1]), (disabled.id, WRONG)],
    }


@pytest.mark.parametrize("presentation", PRESENTATIONS)
@pytest.mark.parametrize("endpoint", ENDPOINTS)
def test_record_of_a_failed_authentication_says_why(
    protocol: Protocol, endpoint: str, presentation: str
):
    """Cases A1, K124."""
    answers = []
    for reason, pairs in make_offers(protocol, method_of(presentation)).items():
        for client_id, secret in pairs:
            answer = offer(protocol, endpoint, presentation, client_id, secret)
            require_refusal(answer, 401, "invalid_client", endpoint)
            answers.append(facts(answer))
            record = last_record(protocol)
            assert (record["event"], record["reason"]) == (EVENTS[endpoint], reason), client_id
            assert (record["error"], record["count"]) == ("invalid_client", 1)
            known = reason != "client_unknown"
            assert record["client_id"] == (client_id if known else "*" * len(client_id))
    assert all(answer == answers[0] for answer in answers)


@pytest.mark.parametrize("presentation", PRESENTATIONS)
@pytest.mark.parametrize("endpoint", ENDPOINTS)
def test_record_says_why_an_imported_secret_is_refused(
    protocol: Protocol, endpoint: str, presentation: str
):
    """Cases A1, K124."""
    method = method_of(presentation)
    other = next(each for each in METHODS if each != method)
    soon = protocol.clock() + timedelta(seconds=5)
    secret = "an+imported%secret"
    cast = {
        "client_disabled": protocol.new_client(method),
        "client_expired": protocol.new_client(method, expires_at=soon),
        "method_not_registered": protocol.new_client(other),
    }
    for client in cast.values():
        with protocol.parties.change() as (services, session):
            services.clients.add_secret(
                session, client.id, actor=ACTOR, imported_secret=secret.encode()
            )
    change(protocol, cast["client_disabled"], disable)
    protocol.clock.advance(10)
    for reason, client in cast.items():
        # The second time the outcome is remembered.
        for _ in range(2):
            answer = offer(protocol, endpoint, presentation, client.id, secret)
            require_refusal(answer, 401, "invalid_client", endpoint)
            assert last_record(protocol)["reason"] == reason
        offer(protocol, endpoint, presentation, client.id, "another+secret")
        assert last_record(protocol)["reason"] == "secret_wrong"


@pytest.mark.parametrize("endpoint", ENDPOINTS)
def test_record_of_a_request_without_a_secret(protocol: Protocol, endpoint: str):
    """Case K124."""
    client = protocol.demo.post
    for fields, headers, client_id in (
        ({}, {}, ""),
        ({"client_id": client.id}, {}, client.id),
        ({}, {"Authorization": "Bearer something"}, ""),
    ):
        answer = protocol.post(endpoint, protocol.form(endpoint) | fields, headers)
        require_refusal(answer, 401, "invalid_client", endpoint)
        record = last_record(protocol)
        assert (record["reason"], record["client_id"]) == ("credentials_missing", client_id)


@pytest.mark.parametrize("endpoint", TOKEN_ENDPOINTS)
def test_record_names_the_grant_type_that_is_not_supported(protocol: Protocol, endpoint: str):
    answer = protocol.ask(endpoint, protocol.demo.basic, grant_type="password")
    require_refusal(answer, 400, "unsupported_grant_type", endpoint)
    record = last_record(protocol)
    assert (record["reason"], record["detail"]) == ("grant_type_unsupported", "password")
    assert "password" not in answer.text


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("endpoint", ENDPOINTS)
def test_record_of_a_throttled_failure_names_its_reason(start_protocol, endpoint: str, method: str):
    """Cases A13, K124."""
    protocol = start_protocol(clients={"failures_per_window": 1})
    client = protocol.demo.clients[method]
    statuses = [protocol.offer(endpoint, method, client.id, WRONG).status_code for _ in range(2)]
    assert statuses == [401, 429]
    record = last_record(protocol)
    assert (record["reason"], record["detail"]) == ("throttled", "secret_wrong")
    assert (record["error"], record["client_id"]) == ("slow_down", client.id)


@pytest.mark.parametrize("endpoint", TOKEN_ENDPOINTS)
def test_record_names_the_scopes_that_were_refused(protocol: Protocol, endpoint: str):
    """Case K124."""
    client = protocol.new_client(allowed_scopes=["mapper/link", "disburse/disburse"])
    for scope, refused in (
        ("mapper/update", "mapper/update"),
        ("mapper/link no/such mapper/update mapper/link", "no/such mapper/update"),
        ("mapper/link,mapper/resolve", "mapper/link,mapper/resolve"),
    ):
        answer = protocol.ask(endpoint, client, scope=scope)
        require_refusal(answer, 400, "invalid_scope", endpoint)
        record = last_record(protocol)
        assert (record["reason"], record["detail"]) == ("scope_not_granted", refused)
        assert record["client_id"] == client.id
        assert "no/such" not in answer.text


@pytest.mark.parametrize("endpoint", TOKEN_ENDPOINTS)
def test_record_of_a_granted_scope_without_a_resource_server(start_protocol, endpoint: str):
    """Case K124."""
    protocol = start_protocol()
    client = protocol.new_client(allowed_scopes=["disburse/disburse", "mapper/link"])
    change(protocol, protocol.demo.mapper, disable)
    with protocol.parties.change() as (services, session):
        services.clients.delete_client(session, protocol.demo.disburse.id, actor=ACTOR)
    for scope in ("disburse/disburse", "mapper/link"):
        answer = protocol.ask(endpoint, client, scope=scope)
        require_refusal(answer, 400, "invalid_scope", endpoint)
        record = last_record(protocol)
        assert (record["reason"], record["detail"]) == ("scope_without_resource_server", scope)
        assert record["client_id"] == client.id


@pytest.mark.parametrize("endpoint", TOKEN_ENDPOINTS)
def test_record_of_scopes_and_resources_that_do_not_fit(protocol: Protocol, endpoint: str):
    """Case K124."""
    client = protocol.demo.post
    for fields, reason, detail in (
        (
            {"scope": "mapper/link", "resource": "https://disburse.example"},
            "scope_not_granted",
            "mapper/link is of another resource server",
        ),
        ({"resource": "https://no.example"}, "resource_invalid", "https://no.example"),
        ({"scope": "mapper/link disburse/disburse"}, "scope_several_resource_servers", ""),
    ):
        assert protocol.ask(endpoint, client, **fields).status_code == 400
        record = last_record(protocol)
        assert (record["reason"], record["detail"]) == (reason, detail)
        assert record["client_id"] == client.id


@pytest.mark.parametrize("endpoint", TOKEN_ENDPOINTS)
def test_detail_of_a_record_is_short_and_holds_no_token(protocol: Protocol, endpoint: str):
    """Case K122."""
    token = protocol.new_token()
    answer = protocol.ask(endpoint, protocol.demo.post, scope=f"{token} " + "s" * 2_000)
    require_refusal(answer, 400, "invalid_scope", endpoint)
    detail = last_record(protocol)["detail"]
    assert token[:40] not in detail
    assert len(detail) == 1_000


@pytest.mark.parametrize("endpoint", ENDPOINTS)
def test_repeated_refusals_are_recorded_with_a_count(start_protocol, endpoint: str):
    """Case A13."""
    protocol = start_protocol()
    client = protocol.demo.post
    before = len(protocol.audit_trail().splitlines())
    for _ in range(50):
        answer = protocol.offer(endpoint, "client_secret_post", client.id, WRONG)
        require_refusal(answer, 401, "invalid_client", endpoint)
    protocol.services.maintenance.stop()
    records = [json.loads(line) for line in protocol.audit_trail().splitlines()[before:]]
    assert [record["count"] for record in records] == [1] * 10 + [40]
    assert {(each["event"], each["reason"], each["client_id"]) for each in records} == {
        (EVENTS[endpoint], "secret_wrong", client.id)
    }
    assert records[-1]["request_id"] == ""
