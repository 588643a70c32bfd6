"""Security events: which there are, delivered by push (RFC 8935) and by poll (RFC 8936)."""

from collections.abc import Iterator

import pytest

from authz_server.audit.records import store_audit_record
from authz_server.metrics.events import EventDelivered
from authz_server.operations.event_streams import (
    delete_stream,
    get_stream,
    list_undelivered,
    retry_events,
    set_stream,
)
from authz_server.operations.revocation import revoke_tokens
from authz_server.operations.stops import lift_stop, plan_stop, set_stop
from authz_server.tokens.event_streams.models import EventStream
from authz_server.tokens.event_streams.polling import Poll
from authz_server.tokens.event_streams.reading import find_latest
from keys.jose.compact import parse_compact
from support.event_sink import EventSink
from support.event_streams import OUTBOUND, claims_of, kinds_of, revoke, running_streams
from support.parties import ACTOR, RESOURCE_SERVERS
from support.ports import release_port, reserve_port
from support.protocol import Protocol

ISSUER = "https://authz.example"
AUDIENCE = RESOURCE_SERVERS["mapper"]
OAUTH = "https://schemas.openid.net/secevent/oauth/event-type/"
RISC = "https://schemas.openid.net/secevent/risc/event-type/"
CAEP = "https://schemas.openid.net/secevent/caep/event-type/"


@pytest.fixture(scope="module")
def protocol(module_database_url, tmp_path_factory) -> Iterator[Protocol]:
    with running_streams(tmp_path_factory.mktemp("events"), module_database_url) as running:
        yield running


@pytest.fixture
def sink() -> Iterator[EventSink]:
    with EventSink() as running:
        yield running


@pytest.fixture
def pushed(protocol: Protocol, sink: EventSink) -> Iterator[EventSink]:
    """A stream that pushes the events of the mapper to a sink from now."""
    set_stream(protocol.services, "mapper", delivery="push", endpoint_url=sink.url, actor=ACTOR)
    yield sink
    delete_stream(protocol.services, "mapper", actor=ACTOR)


@pytest.fixture
def outcomes(protocol: Protocol, monkeypatch) -> list[str]:
    """The outcomes that are counted (`authz_server_security_events_total`)."""
    counted: list[str] = []
    pusher = protocol.services.event_pusher
    notify = pusher._notify  # noqa: SLF001 - what the metrics receive

    def count(event: object) -> None:
        if isinstance(event, EventDelivered):
            counted.append(event.outcome)
        notify(event)

    monkeypatch.setattr(pusher, "_notify", count)
    return counted


def push(protocol: Protocol) -> int:
    protocol.services.feed.poll()
    return protocol.services.event_pusher.push_one("mapper")


def test_a_revoked_token_is_pushed_as_a_signed_event(protocol: Protocol, pushed: EventSink):
    """RFC 8417, 2.2 and 2.3: typ, iss, aud, iat, jti, events, without exp; RFC 9493: sub_id."""
    jti = revoke(protocol)
    assert push(protocol) == 1
    (token,) = pushed.received
    assert pushed.types == ["application/secevent+jwt"]
    header, claims = parse_compact(token).header, claims_of(token)
    published = protocol.get("/.well-known/jwks.json").json["keys"]
    assert header["typ"] == "secevent+jwt"
    assert header["kid"] in {key["kid"] for key in published}
    assert (claims["iss"], claims["aud"]) == (ISSUER, AUDIENCE)
    assert claims["sub_id"] == {"format": "jwt_id", "iss": ISSUER, "jti": jti}
    assert kinds_of([token]) == [f"{OAUTH}token-revoked"]
    assert claims["iat"] <= protocol.clock().timestamp()
    assert "exp" not in claims
    assert "sub" not in claims
    assert push(protocol) == 0


def test_each_change_is_an_event(protocol: Protocol, pushed: EventSink):
    """In the order of the changes; each has an id of its own."""
    services = protocol.services
    client = protocol.new_client()
    with protocol.parties.change() as (_, session):
        services.clients.set_enabled(session, client.id, actor=ACTOR, enabled=False)
    with protocol.parties.change() as (_, session):
        services.clients.set_enabled(session, client.id, actor=ACTOR, enabled=True)
    set_stop(services, plan_stop(services, "scope", "mapper/link"), reason="INC-1", actor=ACTOR)
    lift_stop(services, "scope", "mapper/link", reason="over", actor=ACTOR)
    revoke_tokens(services, "client", client.id, actor=ACTOR, reason="INC-2")
    with protocol.parties.change() as (_, session):
        (secret,) = services.clients.get_client(session, client.id).secrets
        services.clients.end_secret(session, client.id, secret.id, actor=ACTOR)
    with services.database.transaction() as session:
        store_audit_record(
            session,
            at=protocol.clock(),
            actor=ACTOR,
            action="key.revoked",
            subject="kid-1",
            ring="another",
            kid="kid-1",
            reason="leaked",
            event_hash="x",
        )
    with protocol.parties.change() as (_, session):
        services.clients.delete_client(session, client.id, actor=ACTOR)
    push(protocol)
    assert kinds_of(pushed.received) == [
        f"{RISC}account-disabled",
        f"{RISC}account-enabled",
        "urn:authz-server:secevent:stopped",
        "urn:authz-server:secevent:resumed",
        f"{OAUTH}tokens-revoked",
        f"{CAEP}credential-change",
        f"{RISC}credential-compromise",
        f"{RISC}account-purged",
        f"{OAUTH}tokens-revoked",
    ]
    found = [claims_of(each) for each in pushed.received]
    assert len({each["jti"] for each in found}) == len(found)
    assert found[0]["sub_id"] == {"format": "iss_sub", "iss": ISSUER, "sub": client.id}
    assert found[2]["sub_id"] == {"format": "opaque", "id": "scope:mapper/link"}


def test_an_event_of_no_concern_is_not_sent(protocol: Protocol, pushed: EventSink):
    """A client, a scope and a resource server of others."""
    services = protocol.services
    own = ["disburse/disburse"]
    client = protocol.new_client(allowed_scopes=own, default_scopes=own)
    token = protocol.new_token(client, scope=own[0])
    protocol.ask("revoke", client, token=token)
    for kind, subject in (
        ("scope", own[0]),
        ("resource-server", "disburse"),
        ("client", client.id),
    ):
        set_stop(services, plan_stop(services, kind, subject), reason="INC-1", actor=ACTOR)
        lift_stop(services, kind, subject, reason="over", actor=ACTOR)
    push(protocol)
    assert pushed.received == []


def test_the_end_of_an_alias_is_sent_to_the_resource_server_that_had_it(
    protocol: Protocol, pushed: EventSink
):
    """Also where a scope of another one has the spelling before the event is read."""
    alias = "mapper.unlink"
    with protocol.parties.change() as (services, session):
        for name, aliases in (("mapper/unlink", []), ("disburse/disburse", [alias])):
            services.scopes.update_scope(session, name, actor=ACTOR, aliases=aliases)
    push(protocol)
    assert [claims_of(each)["sub_id"]["id"] for each in pushed.received] == [f"scope:{alias}"]


def test_a_stream_may_be_limited_to_some_events(protocol: Protocol, sink: EventSink):
    services = protocol.services
    set_stream(
        services,
        "mapper",
        delivery="push",
        endpoint_url=sink.url,
        events=["client-disabled"],
        actor=ACTOR,
    )
    client = protocol.new_client()
    revoke(protocol, client)
    with protocol.parties.change() as (_, session):
        services.clients.set_enabled(session, client.id, actor=ACTOR, enabled=False)
    push(protocol)
    assert kinds_of(sink.received) == [f"{RISC}account-disabled"]
    delete_stream(services, "mapper", actor=ACTOR)


FAULTS = {
    "full": ({"status": 503}, "status 503"),
    "slow": ({"seconds": 2.0}, "too long"),
    "redirects inward": ({"status": 307, "location": "http://127.0.0.1:1/"}, "status 307"),
    "gone": ({"status": 404}, "status 404"),
}


@pytest.mark.parametrize("kind", FAULTS)
def test_a_sink_that_fails_is_tried_again_with_growing_pauses(
    protocol: Protocol, pushed: EventSink, kind: str, outcomes: list[str], caplog
):
    """In order, the same token; nothing is lost, and the operator sees the cause."""
    fault, problem = FAULTS[kind]
    first, second = revoke(protocol), revoke(protocol)
    for name, value in fault.items():
        setattr(pushed, name, value)
    for pause in (1, 2, 4):
        assert push(protocol) == 0
        assert push(protocol) == 0  # not before the pause is over
        protocol.clock.advance(pause)
    view = get_stream(protocol.services, "mapper")
    assert (view.failures, view.pending) == (3, 2)
    assert problem in view.last_error
    assert len(pushed.received) == 3
    pushed.status, pushed.seconds, pushed.location = 202, 0.0, ""
    assert push(protocol) == 2
    subjects = [claims_of(each)["sub_id"]["jti"] for each in pushed.received]
    assert subjects == [first, first, first, first, second]
    assert len({claims_of(each)["jti"] for each in pushed.received[:4]}) == 1
    assert get_stream(protocol.services, "mapper").failures == 0
    assert outcomes == ["failed"] * 3 + ["delivered"] * 2
    assert caplog.text.count("events cannot be pushed to mapper: ") == 1


def test_an_absent_sink_does_not_lose_events(protocol: Protocol, outcomes: list[str], caplog):
    port = reserve_port()
    url = f"http://127.0.0.1:{port}/events"
    set_stream(protocol.services, "mapper", delivery="push", endpoint_url=url, actor=ACTOR)
    revoke(protocol)
    assert push(protocol) == 0
    view = get_stream(protocol.services, "mapper")
    assert (view.failures, view.pending) == (1, 1)
    assert outcomes == ["failed"]
    assert "events cannot be pushed to mapper: " in caplog.text
    delete_stream(protocol.services, "mapper", actor=ACTOR)
    release_port(port)


def test_a_sink_inside_the_network_is_refused(start_protocol):
    """Its address is not public and in no allowed network; the event waits."""
    outbound = {**OUTBOUND, "allowed_networks": []}
    protocol = start_protocol(outbound=outbound)
    protocol.services.event_pusher.push = lambda: None
    with EventSink() as sink:
        set_stream(protocol.services, "mapper", delivery="push", endpoint_url=sink.url, actor=ACTOR)
        revoke(protocol)
        assert push(protocol) == 0
        assert sink.received == []
    assert "not public" in get_stream(protocol.services, "mapper").last_error


def test_a_refused_event_waits_for_the_operator_and_others_follow(
    protocol: Protocol, pushed: EventSink, outcomes: list[str], caplog
):
    """400 is for good (RFC 8935, 2.3): a record, a metric, a log line; `retry` sends it again."""
    jti = revoke(protocol)
    pushed.status = 400
    pushed.body = b'{"err":"invalid_audience","description":"not for this API"}'
    assert push(protocol) == 0
    (left,) = list_undelivered(protocol.services, "mapper")
    assert (left.event, left.subject) == ("token-revoked", jti)
    assert left.error == "invalid_audience: not for this API"
    view = get_stream(protocol.services, "mapper")
    assert (view.undelivered, view.pending, view.failures) == (1, 0, 0)
    assert '"event":"security_event.undelivered"' in protocol.audit_trail()
    assert outcomes == ["undelivered"]
    assert "is not delivered to mapper: invalid_audience: not for this API" in caplog.text
    pushed.status, pushed.body = 202, b""
    revoke(protocol)
    assert push(protocol) == 1
    assert retry_events(protocol.services, "mapper", actor=ACTOR) == 1
    assert push(protocol) == 1
    assert claims_of(pushed.received[-1])["sub_id"]["jti"] == jti
    assert list_undelivered(protocol.services, "mapper") == ()


@pytest.mark.parametrize("body", [b'{"err":"\xff"}', b'{"err":' + b"[" * 60_000, b"[]", b""])
def test_a_refusal_that_cannot_be_read_is_a_refusal(
    protocol: Protocol, pushed: EventSink, body: bytes
):
    revoke(protocol)
    pushed.status, pushed.body = 400, body
    assert push(protocol) == 0
    (left,) = list_undelivered(protocol.services, "mapper")
    assert left.error == "the recipient refuses it"


def test_an_event_that_is_late_by_hours_waits_for_the_operator(
    protocol: Protocol, pushed: EventSink
):
    """After `keep_hours` of failures; a younger one is still tried."""
    jti = revoke(protocol)
    pushed.status = 503
    assert push(protocol) == 0
    protocol.clock.advance(3_601)
    revoke(protocol)
    assert push(protocol) == 0
    view = get_stream(protocol.services, "mapper")
    assert (view.undelivered, view.pending) == (1, 1)
    (left,) = list_undelivered(protocol.services, "mapper")
    assert left.subject == jti


@pytest.mark.parametrize(("asked", "pause"), [("40", 40), ("999999999999", 300), ("-1", 1)])
def test_a_sink_is_left_alone_as_long_as_it_asks(
    protocol: Protocol, pushed: EventSink, asked: str, pause: int
):
    """`Retry-After` (RFC 9110, 10.2.3), within the longest pause."""
    revoke(protocol)
    pushed.status, pushed.retry_after = 429, asked
    assert push(protocol) == 0
    pushed.status = 202
    protocol.clock.advance(pause - 0.5)
    assert push(protocol) == 0
    protocol.clock.advance(1)
    assert push(protocol) == 1
    assert len(pushed.received) == 2


@pytest.mark.parametrize("failing", [True, False])
def test_what_was_stored_while_the_clock_was_ahead_holds_nothing_up(
    protocol: Protocol, pushed: EventSink, failing
):
    """Neither the time of the next attempt nor a lease, once the clock is right again."""
    revoke(protocol)
    right = protocol.clock.now
    protocol.clock.advance(1_800)
    if failing:
        pushed.status = 500
        assert push(protocol) == 0
        pushed.status = 202
    else:
        protocol.services.event_pusher._lease("mapper")  # noqa: SLF001 - a process that dies
    protocol.clock.now = right
    assert push(protocol) == 1


def test_a_turn_that_is_cut_off_is_repeated(protocol: Protocol, pushed: EventSink):
    """At least once: the lease of a node that died ends, and the event comes again."""
    revoke(protocol)
    pusher = protocol.services.event_pusher
    url, claimed = pusher._lease("mapper")  # noqa: SLF001 - a process that dies in a turn
    assert (url, len(claimed)) == (pushed.url, 1)
    assert push(protocol) == 0
    protocol.clock.advance(61)
    assert push(protocol) == 1


@pytest.mark.parametrize("delivery", ["push", "poll"])
def test_a_record_that_commits_late_is_delivered(
    protocol: Protocol, sink: EventSink, delivery: str
):
    """Without a newer record, and after a pause of the recipient of a quarter of an hour."""
    services = protocol.services
    url = sink.url if delivery == "push" else ""
    set_stream(services, "mapper", delivery=delivery, endpoint_url=url, actor=ACTOR)
    revoke(protocol)
    with services.database.transaction() as session:
        # The state after a read beyond an id that was not visible.
        stream = session.get(EventStream, "mapper")
        stream.position = find_latest(session)
        stream.pending = {
            str(stream.position): ["gap", int(protocol.clock().timestamp())],
            str(stream.position - 1): ["gap", int(protocol.clock().timestamp())],
        }
    protocol.clock.advance(901)
    if delivery == "push":
        pusher = services.event_pusher
        assert pusher._find_due() == ["mapper"]  # noqa: SLF001 - what the background work does
        assert push(protocol) == 1
        assert pusher._find_due() == []  # noqa: SLF001
    else:
        assert len(services.event_polls.answer("mapper", Poll(10)).tokens) == 1
    delete_stream(services, "mapper", actor=ACTOR)


def test_an_event_is_decided_once(protocol: Protocol, pushed: EventSink):
    """The client loses its scopes while the recipient is down, and is disabled after it."""
    services = protocol.services
    client = protocol.new_client()
    revoke(protocol, client)
    pushed.status = 503
    assert push(protocol) == 0
    others = ["disburse/disburse"]
    with protocol.parties.change() as (_, session):
        services.clients.update_client(
            session, client.id, actor=ACTOR, allowed_scopes=others, default_scopes=others
        )
    with protocol.parties.change() as (_, session):
        services.clients.set_enabled(session, client.id, actor=ACTOR, enabled=False)
    pushed.status = 202
    protocol.clock.advance(2)
    assert push(protocol) == 2
    assert kinds_of(pushed.received[1:]) == [f"{OAUTH}token-revoked", f"{RISC}account-disabled"]
