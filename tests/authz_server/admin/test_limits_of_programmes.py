"""Programmes and a caller with limits, who does not see them."""

from authz_server.operations.clients import create_client
from authz_server.operations.programmes import ProgrammeView, define_programme, delete_programme
from authz_server.operations.stops import lift_stop, plan_stop, set_stop
from support.administrators import BY_ORGANISATION, MARK
from support.parties import ACTOR


def test_an_own_client_that_is_deleted_leaves_the_programmes_of_the_whole_server(ours):
    """Though its administrator sees neither them nor their stops, not even in a message."""
    services = ours.site.services
    create_client(
        services, actor=ACTOR, id="leaver", name="L", organisation="Own", allowed_scopes=[]
    )
    members = {"scopes": ["mine/read"], "clients": ["leaver", "shared"]}
    define_programme(services, MARK, actor=ACTOR, **members)
    because = {"actor": ACTOR, "reason": "INC-1"}
    set_stop(services, plan_stop(services, "programme", MARK), **because)
    caller = ours.caller("client-manager", limits=BY_ORGANISATION)

    def remove():
        return ours.perform(caller, "DELETE", "/clients/leaver", if_match="*")

    query = {"q": "leaver"}
    for who, stopped_by in ((caller, None), (ours.caller("client-manager"), f"programme {MARK}")):
        (client,) = ours.perform(who, "GET", "/clients", query=query).body["items"]
        assert client["stopped_by"] == stopped_by
    assert ours.perform(caller, "GET", f"/stops/programme/{MARK}").status == 404
    refused = remove()
    words = "A programme with 'leaver' is stopped: lift the stop first."
    assert (refused.status, refused.body["detail"]) == (409, words)
    lift_stop(services, "programme", MARK, **because)
    assert remove().status == 200
    left = ProgrammeView(name=MARK, scopes=("mine/read",), clients=("shared",))
    assert delete_programme(services, MARK, actor=ACTOR) == left
