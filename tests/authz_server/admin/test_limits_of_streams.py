"""Event streams and initial access tokens of a caller with limits."""

import pytest

from authz_server.operations.clients import create_client, delete_client, set_enabled
from authz_server.operations.event_streams import get_stream
from authz_server.operations.programmes import define_programme
from authz_server.operations.revocation import revoke_tokens
from authz_server.operations.scopes import add_scope
from authz_server.operations.stops import lift_stop, plan_stop, set_stop
from authz_server.tokens.event_streams.models import EventStream
from support.administrators import BY_ORGANISATION, BY_SERVER, MARK
from support.parties import ACTOR

UNTIL = "2040-01-01T00:00:00Z"


@pytest.mark.parametrize("limits", [BY_SERVER, BY_ORGANISATION], ids=["server", "organisation"])
def test_a_limited_caller_has_its_own_streams_and_tokens(ours, limits):
    """A new stream begins after the records of others too, and is not given to another API."""
    caller = ours.caller("api-owner", "client-manager", limits=limits)
    streams = ours.perform(caller, "GET", "/event-streams").body["items"]
    assert [each["resource_server_id"] for each in streams] == ["mine"]
    removed = ours.perform(caller, "DELETE", "/event-streams/mine", if_match="*")
    assert removed.status == 200, removed.body
    body = {"resource_server": "mine", "delivery": "poll"}
    made = ours.perform(caller, "POST", "/event-streams", body=body)
    assert made.status == 201, made.body
    services = ours.site.services
    assert get_stream(services, "mine").unread <= 1
    with services.database.reading() as session:
        assert session.get_one(EventStream, "mine").position > 0
    other = ours.perform(
        caller, "POST", "/event-streams", body={**body, "resource_server": "alien-server"}
    )
    assert other.status == 404
    tokens = ours.perform(caller, "GET", "/registration-tokens").body["items"]
    assert [each["description"] for each in tokens if each["works"]] == ["Own"]
    created = {"action": "registration.token_created"}
    before = ours.perform(caller, "GET", "/audit", query=created).body["items"]
    new = {"expires_at": UNTIL, "scopes": ["mine/read"]}
    own = ours.perform(caller, "POST", "/registration-tokens", body=new)
    assert own.status == 201, own.body
    # Her own act is among them at once, though the list was read before it.
    after = ours.perform(caller, "GET", "/audit", query=created).body["items"]
    assert [each["subject"] for each in after] == [
        own.body["id"],
        *(each["subject"] for each in before),
    ]
    beyond = {**new, "scopes": ["alien/read"], "organisation": "alien"}
    assert ours.perform(caller, "POST", "/registration-tokens", body=beyond).status in {
        403,
        404,
        422,
    }
    ended = ours.perform(caller, "DELETE", f"/registration-tokens/{own.body['id']}", if_match="*")
    assert ended.status == 200
    records = ours.perform(caller, "GET", "/audit", query={"subject": own.body["id"]}).body
    assert len(records["items"]) == 2


def _end_all(services, owner: str, server: str) -> None:
    """End the tokens of a client and a scope of a resource server, delete both, stop programmes."""
    client, scope = f"{owner}-gone", f"{owner}/gone"
    because = {"actor": ACTOR, "reason": f"{MARK} reason"}
    add_scope(services, actor=ACTOR, name=scope, resource_server_id=server)
    create_client(services, actor=ACTOR, id=client, name=client, allowed_scopes=[scope])
    for kind, members in (("scopes", {"scopes": [scope]}), ("clients", {"clients": [client]})):
        name = f"{owner}-{kind}"
        define_programme(services, name, actor=ACTOR, **{"scopes": [], "clients": []} | members)
        set_stop(services, plan_stop(services, "programme", name), **because)
        lift_stop(services, "programme", name, **because)
    services.feed.poll()
    with services.transaction() as session:
        services.revocations.revoke_token(
            session,
            jti=f"jti-of-{client}",
            client_id=client,
            expires_at=services.clock(),
            actor=ACTOR,
        )
    set_enabled(services, client, kind="client", enabled=False, actor=ACTOR)
    revoke_tokens(services, "client", client, actor=ACTOR)
    revoke_tokens(services, "scope", scope, actor=ACTOR)
    delete_client(services, client, kind="client", actor=ACTOR)
    with services.transaction() as session:
        services.scopes.delete_scope(session, scope, actor=ACTOR)
    services.feed.poll()


def test_a_stream_has_what_ends_own_tokens_and_nothing_of_others(ours):
    """Deleted clients and scopes, and programmes: by what their records show.

    An event of several resource servers has no reason.
    """
    services = ours.site.services
    services.feed.poll()
    with services.database.transaction() as session:
        services.event_reader.claim(session, session.get_one(EventStream, "mine"), 0)
    _end_all(services, "own", "mine")
    _end_all(services, MARK, f"{MARK}-server")
    revoke_tokens(services, "all", actor=ACTOR, reason=f"{MARK} reason")
    with services.database.transaction() as session:
        stream = session.get_one(EventStream, "mine")
        events = [each.event for each in services.event_reader.claim(session, stream, 100)]
        for each in services.event_reader.claim(session, stream, 100):
            services.event_reader.give_up(session, stream, each, "refused")
    assert [(each.name, *each.subject.values()) for each in events] == [
        ("stopped", "opaque", "programme:own-scopes"),
        ("resumed", "opaque", "programme:own-scopes"),
        ("stopped", "opaque", "programme:own-clients"),
        ("resumed", "opaque", "programme:own-clients"),
        ("token-revoked", "jwt_id", services.settings.issuer, "jti-of-own-gone"),
        ("client-disabled", "iss_sub", services.settings.issuer, "own-gone"),
        ("tokens-revoked", "iss_sub", services.settings.issuer, "own-gone"),
        ("tokens-revoked", "opaque", "scope:own/gone"),
        ("client-deleted", "iss_sub", services.settings.issuer, "own-gone"),
        ("tokens-revoked", "iss_sub", services.settings.issuer, "own-gone"),
        ("tokens-revoked", "opaque", "scope:own/gone"),
        ("tokens-revoked", "opaque", "all:"),
    ]
    assert MARK not in repr(events)
    caller = ours.caller("api-owner", limits=BY_SERVER)
    shown = ours.perform(caller, "GET", "/event-streams/mine/undelivered").body["items"]
    assert len(shown) == len(events)
    assert MARK not in repr(shown)
