"""Event streams and initial access tokens of a caller with limits."""

import pytest

from authz_server.operations.event_streams import get_stream
from authz_server.tokens.event_streams.models import EventStream
from support.administrators import BY_ORGANISATION, BY_SERVER

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
    assert [each["description"] for each in tokens] == ["Own"]
    new = {"expires_at": UNTIL, "scopes": ["mine/read"]}
    own = ours.perform(caller, "POST", "/registration-tokens", body=new)
    assert own.status == 201, own.body
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
