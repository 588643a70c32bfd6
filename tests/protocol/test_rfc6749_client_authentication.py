"""Client authentication (RFC 6749, 2.3 and 5.2): alike at every endpoint and for every method."""

import json
from collections.abc import Callable
from datetime import datetime, timedelta
from functools import partial

import pytest

from support.parties import ACTOR, Credentials
from support.protocol import (
    ENDPOINTS,
    METHODS,
    PRESENTATIONS,
    Protocol,
    basic,
    facts,
    method_of,
    present,
    require_refusal,
)

WRONG = "wrong-wrong-wrong-wrong-wrong-wrong-wrong-w"
Cast = dict[str, tuple[str, str]]


@pytest.fixture(scope="module")
def casts(protocol: Protocol) -> dict[str, Cast]:
    """For each method: id and secret of everyone who has to be refused, by what is wrong."""
    casts = {method: make_cast(protocol, method) for method in METHODS}
    protocol.clock.advance(10)
    return casts


def make_cast(protocol: Protocol, method: str) -> Cast:
    right = protocol.new_client(method)
    soon = protocol.clock() + timedelta(seconds=5)
    clients = {
        "disabled client": new_changed(protocol, method, disable),
        "deleted client": new_changed(protocol, method, delete),
        "expired client": protocol.new_client(method, expires_at=soon),
        "client that has not started": protocol.new_client(
            method, starts_at=soon + timedelta(days=1)
        ),
        "expired secret": new_changed(protocol, method, partial(end_secrets_later, at=soon)),
        "ended secret": new_changed(protocol, method, end_secrets),
        "client of another method": protocol.new_client(other_than(method)),
    }
    return {
        "unknown client": ("no-such-client", WRONG),
        "wrong secret": (right.id, WRONG),
        "somebody else's secret": (right.id, protocol.new_client(method).secret),
        "secret in other letters": (right.id, right.secret.swapcase()),
        "secret cut short": (right.id, right.secret[:-1]),
        "id in other letters": (right.id.upper(), right.secret),
        **{name: (each.id, each.secret) for name, each in clients.items()},
    }


def new_changed(protocol: Protocol, method: str, change: Callable[..., object]) -> Credentials:
    client = protocol.new_client(method)
    with protocol.parties.change() as (services, session):
        change(services.clients, session, client.id)
    return client


def disable(clients, session, client_id: str) -> None:
    clients.set_enabled(session, client_id, actor=ACTOR, enabled=False)


def delete(clients, session, client_id: str) -> None:
    clients.delete_client(session, client_id, actor=ACTOR)


def end_secrets(clients, session, client_id: str) -> None:
    for secret in clients.get_client(session, client_id).secrets:
        clients.end_secret(session, client_id, secret.id, actor=ACTOR)


def end_secrets_later(clients, session, client_id: str, at: datetime) -> None:
    for secret in clients.get_client(session, client_id).secrets:
        clients.end_secret(session, client_id, secret.id, actor=ACTOR, at=at)


def other_than(method: str) -> str:
    return next(each for each in METHODS if each != method)


@pytest.mark.parametrize("presentation", PRESENTATIONS)
@pytest.mark.parametrize("endpoint", ENDPOINTS)
def test_every_reason_for_refusal_is_answered_alike(
    protocol: Protocol, casts, endpoint: str, presentation: str
):
    """Cases A1, A3."""
    cast = casts[method_of(presentation)]
    answers = {
        name: protocol.offer(endpoint, presentation, client_id, secret)
        for name, (client_id, secret) in cast.items()
    }
    for name, answer in answers.items():
        require_refusal(answer, 401, "invalid_client", endpoint)
        challenged = "WWW-Authenticate" in answer.headers
        assert challenged == (presentation != "client_secret_post")
        assert facts(answer) == facts(answers["unknown client"]), name


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("endpoint", ENDPOINTS)
def test_right_credentials_authenticate(protocol: Protocol, endpoint: str, method: str):
    """Case A3."""
    client = protocol.demo.clients[method]
    answer = protocol.ask(endpoint, client)
    assert answer.status_code == 200
    assert "WWW-Authenticate" not in answer.headers


@pytest.mark.parametrize("endpoint", ENDPOINTS)
def test_no_credentials_at_all(protocol: Protocol, endpoint: str):
    """Case A3."""
    form = protocol.form(endpoint)
    for fields in ({}, {"client_id": protocol.demo.post.id}, {"client_secret": "x" * 43}):
        answer = protocol.post(endpoint, form | fields)
        require_refusal(answer, 401, "invalid_client", endpoint)
        assert "WWW-Authenticate" not in answer.headers


UNREADABLE = {
    "no-credentials": "Basic",
    "nothing-in-it": "Basic ",
    "not-base64": "Basic !!!!",
    "url-safe-base64": "Basic " + basic("ab?:ab>").removeprefix("Basic ").replace("/", "_"),
    "no-colon": basic("client-basic"),
    "no-id": basic(":secret"),
    "no-secret": basic("client-basic:"),
    "neither": basic(":"),
    "not-utf-8": basic(b"\xff\xfe:secret"),
    "nul": basic("client-basic\x00:secret"),
    "line-feed": basic("client-basic\n:secret"),
    "bearer": "Bearer something",
    "digest": 'Digest username="client-basic"',
    "negotiate": "Negotiate YII=",
    "scheme-alone-misspelt": "Basics " + basic("a:b").removeprefix("Basic "),
    "ten-kilobytes": basic("a" * 10_000 + ":" + "b" * 10_000),
    "latin-1": "Basic \xe9\xe9\xe9",
}


@pytest.mark.parametrize("name", UNREADABLE)
@pytest.mark.parametrize("endpoint", ENDPOINTS)
def test_authorization_header_that_proves_nothing(protocol: Protocol, endpoint: str, name: str):
    """Case A3."""
    headers = {"Authorization": UNREADABLE[name]}
    answer = protocol.post(endpoint, protocol.form(endpoint), headers)
    require_refusal(answer, 401, "invalid_client", endpoint)
    assert answer.headers["WWW-Authenticate"].startswith("Basic realm=")


@pytest.mark.parametrize("endpoint", ENDPOINTS)
def test_empty_authorization_header_is_an_absent_one(protocol: Protocol, endpoint: str):
    """Case A3."""
    headers = {"Authorization": ""}
    answer = protocol.post(endpoint, protocol.form(endpoint), headers)
    require_refusal(answer, 401, "invalid_client", endpoint)
    assert "WWW-Authenticate" not in answer.headers
    form = protocol.form(endpoint) | protocol.demo.post.form()
    assert protocol.post(endpoint, form, headers).status_code == 200


@pytest.mark.parametrize("endpoint", ENDPOINTS)
def test_scheme_is_read_in_any_letters(protocol: Protocol, endpoint: str):
    """Case A3."""
    header = protocol.demo.basic.headers()["Authorization"].removeprefix("Basic ")
    for scheme in ("basic ", "BASIC ", "Basic  "):
        headers = {"Authorization": scheme + header}
        assert protocol.post(endpoint, protocol.form(endpoint), headers).status_code == 200


@pytest.mark.parametrize("endpoint", ENDPOINTS)
def test_two_authentication_methods_at_once(protocol: Protocol, endpoint: str):
    """Case A5."""
    post, by_basic = protocol.demo.post, protocol.demo.basic
    assertion = {"client_assertion": "e30.e30.", "client_assertion_type": "urn:x"}
    unreadable = {"Authorization": "Bearer something"}
    for fields, headers in (
        (post.form(), by_basic.headers()),
        ({"client_secret": by_basic.secret}, by_basic.headers()),
        ({"client_secret": "wrong"}, by_basic.headers()),
        ({"client_id": by_basic.id, "client_secret": "wrong"}, by_basic.headers()),
        ({"client_id": post.id}, by_basic.headers()),
        (assertion, by_basic.headers()),
        (post.form() | assertion, {}),
        (post.form(), unreadable),
    ):
        answer = protocol.post(endpoint, protocol.form(endpoint) | fields, headers)
        require_refusal(answer, 400, "invalid_request", endpoint)


@pytest.mark.parametrize("endpoint", ENDPOINTS)
def test_same_pair_in_both_places_is_one_method(protocol: Protocol, endpoint: str):
    """By the one of the two that the client is registered for. Case A5."""
    for caller in (protocol.demo.basic, protocol.demo.post):
        for secret, status in ((caller.secret, 200), (WRONG, 401)):
            fields, _ = present("client_secret_post", caller.id, secret)
            _, headers = present("client_secret_basic", caller.id, secret)
            answer = protocol.post(endpoint, protocol.form(endpoint) | fields, headers)
            assert answer.status_code == status


@pytest.mark.parametrize("endpoint", ENDPOINTS)
def test_empty_parameters_beside_basic_are_absent_ones(protocol: Protocol, endpoint: str):
    """Case A5."""
    caller = protocol.demo.basic
    for fields in (
        {"client_id": "", "client_secret": ""},
        {"client_id": caller.id, "client_secret": ""},
        {"client_assertion": ""},
    ):
        form = protocol.form(endpoint) | fields
        assert protocol.post(endpoint, form, caller.headers()).status_code == 200


@pytest.mark.parametrize("presentation", PRESENTATIONS)
@pytest.mark.parametrize("endpoint", ENDPOINTS)
def test_registered_method_is_the_only_one(protocol: Protocol, endpoint: str, presentation: str):
    """Case A7."""
    other = protocol.demo.clients[other_than(method_of(presentation))]
    answer = protocol.offer(endpoint, presentation, other.id, other.secret)
    require_refusal(answer, 401, "invalid_client", endpoint)
    own = protocol.demo.clients[method_of(presentation)]
    assert protocol.offer(endpoint, presentation, own.id, own.secret).status_code == 200


@pytest.mark.parametrize("presentation", PRESENTATIONS)
@pytest.mark.parametrize("endpoint", ENDPOINTS)
def test_party_of_no_particular_method_may_use_either(
    protocol: Protocol, endpoint: str, presentation: str
):
    """RFC 6749, 2.3.1: a server must support Basic for clients with a password. Case A7."""
    parties = [protocol.new_client("client_secret")]
    if endpoint == "introspect":
        server_id = f"server-{presentation.replace('_', '-')}"
        parties.append(protocol.parties.make_resource_server(server_id, "client_secret"))
    for party in parties:
        assert protocol.offer(endpoint, presentation, party.id, party.secret).status_code == 200
        answer = protocol.offer(endpoint, presentation, party.id, WRONG)
        require_refusal(answer, 401, "invalid_client", endpoint)


@pytest.mark.parametrize("presentation", PRESENTATIONS)
def test_record_says_by_which_method_the_client_authenticated(
    protocol: Protocol, presentation: str
):
    """Case K124."""
    client = protocol.new_client("client_secret")
    assert protocol.offer("token", presentation, client.id, client.secret).status_code == 200
    record = json.loads(protocol.audit_trail().splitlines()[-1])
    assert (record["event"], record["client_id"]) == ("token.issued", client.id)
    assert record["authentication_method"] == method_of(presentation)


@pytest.mark.parametrize("endpoint", ENDPOINTS)
def test_change_of_method_ends_the_old_one(protocol: Protocol, endpoint: str):
    """Case A7."""
    client = protocol.new_client("client_secret_post")
    assert protocol.ask(endpoint, client).status_code == 200
    with protocol.parties.change() as (services, session):
        services.clients.update_client(
            session, client.id, actor=ACTOR, authentication_method="client_secret_basic"
        )
    require_refusal(protocol.ask(endpoint, client), 401, "invalid_client", endpoint)
    answer = protocol.offer(endpoint, "client_secret_basic", client.id, client.secret)
    assert answer.status_code == 200
