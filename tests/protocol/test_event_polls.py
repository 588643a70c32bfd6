"""Security events by poll (RFC 8936), and none that is left out."""

import threading
import time
from collections.abc import Iterator
from datetime import datetime
from functools import partial

import pytest
from sqlalchemy import text

from authz_server.audit.models import AuditRecord
from authz_server.operations.event_streams import (
    delete_stream,
    list_undelivered,
    retry_events,
    set_stream,
)
from authz_server.tokens.event_streams.models import EventStream
from support.assertions import Signer, jwks_of, new_key
from support.event_streams import claims_of, kinds_of, revoke, running_streams
from support.parties import ACTOR
from support.protocol import Protocol, require_refusal

RISC = "https://schemas.openid.net/secevent/risc/event-type/"


@pytest.fixture(scope="module")
def protocol(module_database_url, tmp_path_factory) -> Iterator[Protocol]:
    with running_streams(tmp_path_factory.mktemp("events"), module_database_url) as running:
        yield running


@pytest.fixture
def polled(protocol: Protocol) -> Iterator[None]:
    """A stream that the mapper polls from now."""
    set_stream(protocol.services, "mapper", delivery="poll", actor=ACTOR)
    poll(protocol, returnImmediately=True)
    yield
    delete_stream(protocol.services, "mapper", actor=ACTOR)


def poll(protocol: Protocol, caller=None, **members: object):
    caller = caller or protocol.demo.mapper
    return protocol.send("POST", "/security-events", json=members, headers=caller.headers())


def test_a_poll_returns_events_until_they_are_acknowledged(protocol: Protocol, polled: None):
    """RFC 8936, 2.4: `sets` by `jti`, and `moreAvailable`."""
    del polled
    first, second = revoke(protocol), revoke(protocol)
    for _ in range(2):
        answer = poll(protocol, returnImmediately=True)
        assert (answer.status_code, answer.content_type) == (200, "application/json")
        assert answer.json["moreAvailable"] is False
        sets = answer.json["sets"]
        assert [claims_of(each)["sub_id"]["jti"] for each in sets.values()] == [first, second]
        assert all(claims_of(token)["jti"] == jti for jti, token in sets.items())
    one = poll(protocol, returnImmediately=True, maxEvents=1).json
    assert (list(one["sets"]), one["moreAvailable"]) == (list(sets)[:1], True)
    left = poll(protocol, returnImmediately=True, ack=list(sets)[:1]).json["sets"]
    assert list(left) == list(sets)[1:]
    assert poll(protocol, maxEvents=0, ack=list(left)).json == {
        "sets": {},
        "moreAvailable": False,
    }
    assert poll(protocol, returnImmediately=True).json["sets"] == {}


def test_a_poll_waits_for_an_event(protocol: Protocol, polled: None):
    """Without `returnImmediately`, up to `poll_wait_seconds`."""
    del polled
    began = time.monotonic()
    assert poll(protocol).json["sets"] == {}
    assert 0.5 < time.monotonic() - began < 5
    client = protocol.new_client()
    token = protocol.new_token(client)
    timer = threading.Timer(0.3, protocol.ask, ("revoke", client), {"token": token})
    timer.start()
    began = time.monotonic()
    assert len(poll(protocol).json["sets"]) == 1
    assert time.monotonic() - began < 1
    timer.join()


def test_a_refused_polled_event_waits_for_the_operator(protocol: Protocol, polled: None):
    """`setErrs` (RFC 8936, 2.6); unknown ids are ignored."""
    del polled
    jti = revoke(protocol)
    (event,) = poll(protocol, returnImmediately=True).json["sets"]
    error = {"err": "authentication_failed", "description": "The SET could not be authenticated"}
    errors = {event: error, "1-0123456789abcdef": error, "x": 1}
    answer = poll(protocol, returnImmediately=True, setErrs=errors, ack=["", "99", f"{event}0"])
    assert answer.json["sets"] == {}
    (left,) = list_undelivered(protocol.services, "mapper")
    assert (left.subject, left.error.partition(":")[0]) == (jti, "authentication_failed")
    retry_events(protocol.services, "mapper", actor=ACTOR)
    assert list(poll(protocol, returnImmediately=True).json["sets"]) == [event]


@pytest.mark.parametrize(
    "body",
    [
        {"maxEvents": -1},
        {"maxEvents": "1"},
        {"maxEvents": True},
        {"returnImmediately": 1},
        {"ack": "x"},
        {"ack": [1]},
        {"ack": ["x"] * 1_001},
        {"setErrs": []},
    ],
)
def test_a_malformed_poll_is_refused(protocol: Protocol, polled: None, body: dict):
    del polled
    require_refusal(poll(protocol, **body), 400, "invalid_request")


def test_credentials_of_a_form_are_members_of_a_poll(protocol: Protocol, polled: None):
    """A resource server that is registered for exactly the form could not poll otherwise."""
    del polled
    mapper, jti = protocol.demo.mapper, revoke(protocol)
    given = {"client_id": mapper.id, "client_secret": mapper.secret}

    def ask(**members: object):
        return protocol.send(
            "POST", "/security-events", json={"returnImmediately": True, **members}
        )

    for method in ("client_secret_post", mapper.method):
        with protocol.parties.change() as (services, session):
            services.clients.update_resource_server(
                session, mapper.id, actor=ACTOR, authentication_method=method
            )
        protocol.services.feed.poll()
        answer = ask(**given)
        if method == mapper.method:
            require_refusal(answer, 401, "invalid_client")
            continue
        assert answer.status_code == 200, answer.text
        (token,) = answer.json["sets"].values()
        assert claims_of(token)["sub_id"]["jti"] == jti
        require_refusal(ask(**given | {"client_secret": "wrong"}), 401, "invalid_client")
        require_refusal(ask(client_id=1), 400, "invalid_request")
        assert poll(protocol).status_code == 401


def test_a_client_assertion_is_a_member_of_a_poll(protocol: Protocol, polled: None):
    """RFC 7523, 2.2; once, and not with another key."""
    del polled
    mapper, jti, key = protocol.demo.mapper, revoke(protocol), new_key("ES256")

    def ask(members: dict[str, str]):
        return protocol.send(
            "POST", "/security-events", json={"returnImmediately": True, **members}
        )

    def register(method: str, **properties: object) -> None:
        with protocol.parties.change() as (services, session):
            services.clients.update_resource_server(
                session,
                mapper.id,
                actor=ACTOR,
                authentication_method=method,
                properties=properties,
            )
        protocol.services.feed.poll()

    register("private_key_jwt", jwks=jwks_of(key, kid="key-1"))
    clock = partial(datetime.timestamp, protocol.clock())
    signer = Signer(mapper.id, key, clock, "ES256", "key-1")
    given = signer.form()
    answer = ask(given)
    assert answer.status_code == 200, answer.text
    (token,) = answer.json["sets"].values()
    assert claims_of(token)["sub_id"]["jti"] == jti
    forger = Signer(mapper.id, new_key("ES256"), clock, "ES256", "key-1")
    for wrong in (given, forger.form(), {**signer.form(), "client_assertion_type": "x"}):
        require_refusal(ask(wrong), 401, "invalid_client")
    assert poll(protocol).status_code == 401
    register(mapper.method)


def test_only_the_resource_server_polls_its_events(protocol: Protocol, polled: None):
    """Without credentials, with wrong ones, as a client, and without a stream; recorded."""
    del polled
    anonymous = protocol.send("POST", "/security-events", json={})
    require_refusal(anonymous, 401, "invalid_client")
    headers = {"Authorization": "Basic bWFwcGVyOndyb25n"}
    wrong = protocol.send("POST", "/security-events", json={}, headers=headers)
    require_refusal(wrong, 401, "invalid_client")
    require_refusal(poll(protocol, protocol.demo.basic), 404, "invalid_request")
    for data, kind, status in (
        (b"[]", "application/json", 400),
        (b"{", "application/json", 400),
        (b"{}", "text/plain", 415),
    ):
        answer = protocol.send(
            "POST",
            "/security-events",
            data=data,
            headers={"Content-Type": kind, **protocol.demo.mapper.headers()},
        )
        require_refusal(answer, status, "invalid_request")
    assert '"event":"event_poll.refused"' in protocol.audit_trail()


def test_an_event_of_a_transaction_that_ends_late_is_not_left_out(protocol: Protocol, polled: None):
    """Records become visible in the order of commits: a gap in their ids is looked for again."""
    del polled
    services = protocol.services
    client = protocol.new_client()
    poll(protocol, returnImmediately=True)
    with services.database.transaction() as session:
        latest = session.get(EventStream, "mapper").position

        def add(record_id: int, action: str) -> None:
            session.add(
                AuditRecord(
                    id=record_id,
                    at=protocol.clock(),
                    actor=ACTOR,
                    action=action,
                    subject=client.id,
                    detail={},
                )
            )

        add(latest + 3, "client.enabled")
    found = poll(protocol, returnImmediately=True).json["sets"]
    assert kinds_of(list(found.values())) == [f"{RISC}account-enabled"]
    with services.database.transaction() as session:
        add(latest + 1, "client.disabled")
    later = poll(protocol, returnImmediately=True, ack=list(found)).json["sets"]
    assert kinds_of(list(later.values())) == [f"{RISC}account-disabled"]
    if services.database.connector is not None:
        # The sequence has to pass the ids that were given by hand.
        advance = text("SELECT nextval(pg_get_serial_sequence('audit_record', 'id'))")
        with services.database.transaction() as session:
            for _ in range(4):
                session.execute(advance)
