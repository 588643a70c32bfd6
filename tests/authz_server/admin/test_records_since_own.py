"""A caller with limits sees the records of what is its own since it is, and no earlier ones."""

import json

import pytest

from authz_server.audit.records import store_audit_record
from authz_server.operations.client_secrets import add_secret
from authz_server.operations.clients import create_client, update_client
from authz_server.operations.permissions import ROLES, Limits
from authz_server.operations.resource_servers import (
    create_resource_server,
    update_resource_server,
)
from authz_server.operations.scope_changes import delete_scope
from authz_server.operations.scopes import add_scope, assign_scopes
from authz_server.operations.stops import lift_stop, plan_stop, set_stop
from support.administrators import BY_ORGANISATION, BY_SERVER, MARK
from support.parties import ACTOR

BY_BOTH = Limits(
    resource_servers=BY_SERVER.resource_servers, organisations=BY_ORGANISATION.organisations
)


def _actions(ours, limits, subject: str) -> list[str]:
    """Return the actions of the records that a caller sees, which name nothing of others."""
    caller = ours.caller(*ROLES, limits=limits)
    found = ours.perform(caller, "GET", "/audit", query={"subject": subject})
    assert found.status == 200, found.body
    assert MARK not in json.dumps(found.body)
    return [each["action"] for each in found.body["items"]]


def _describe_scope(services, name: str) -> None:
    with services.transaction() as session:
        services.scopes.update_scope(session, name, actor=ACTOR, description="own")


def _stop_and_lift(services, kind: str, subject: str) -> None:
    set_stop(services, plan_stop(services, kind, subject), reason=MARK, actor=ACTOR)
    lift_stop(services, kind, subject, reason=MARK, actor=ACTOR)


@pytest.mark.parametrize("limits", [BY_SERVER, BY_BOTH], ids=["server", "both"])
def test_a_client_that_had_scopes_of_others(ours, limits):
    """Also what names none of them: its secrets were not seen then either."""
    services = ours.site.services
    scopes, made = ["mine/read", f"{MARK}/read"], f"had-{len(limits.organisations or ())}"
    fields = {"name": MARK, "organisation": "Own", "allowed_scopes": scopes}
    create_client(services, actor=ACTOR, id=made, **fields)
    add_secret(services, made, kind="client", actor=ACTOR)
    _stop_and_lift(services, "client", made)
    assert _actions(ours, limits, made) == []
    update_client(services, made, actor=ACTOR, allowed_scopes=["mine/read"], name="Former")
    assert _actions(ours, limits, made) == _actions(ours, limits, f"client:{made}") == []
    update_client(services, made, actor=ACTOR, name="Own")
    assert _actions(ours, limits, made) == ["client.updated"]
    _stop_and_lift_own(services, made)
    assert _actions(ours, limits, f"client:{made}") == ["stop.lifted", "stop.set"]


def _stop_and_lift_own(services, client: str) -> None:
    set_stop(services, plan_stop(services, "client", client), reason="own", actor=ACTOR)
    lift_stop(services, "client", client, reason="own", actor=ACTOR)


@pytest.mark.parametrize("limits", [BY_ORGANISATION, BY_BOTH], ids=["organisation", "both"])
def test_a_client_of_another_organisation_before(ours, limits):
    """A move within the limits hides nothing."""
    services, made = ours.site.services, f"moved-{len(limits.resource_servers or ())}"
    fields = {"name": MARK, "organisation": MARK, "allowed_scopes": ["mine/read"]}
    create_client(services, actor=ACTOR, id=made, **fields)
    update_client(services, made, actor=ACTOR, organisation="Own", name="Own")
    assert _actions(ours, limits, made) == []
    update_client(services, made, actor=ACTOR, name="Newer")
    assert _actions(ours, limits, made) == ["client.updated"]
    wider = Limits(organisations=frozenset({"Own", MARK}))
    caller = ours.caller(*ROLES, limits=wider)
    query = {"subject": made, "action": "client."}
    found = ours.perform(caller, "GET", "/audit", query=query).body["items"]
    assert [each["action"] for each in found][-1] == "client.created"


@pytest.mark.parametrize("limits", [BY_SERVER, BY_ORGANISATION], ids=["server", "organisation"])
def test_a_scope_of_another_resource_server_before(ours, limits):
    """Nor the records of a client that has it, from then."""
    services, number = ours.site.services, len(limits.organisations or ())
    name, holder = f"taken{number}/read", f"holder-{number}"
    owner = f"{MARK}-server"
    add_scope(services, actor=ACTOR, name=name, resource_server_id=owner, description="former")
    _stop_and_lift(services, "scope", name)
    fields = {"name": "Former", "organisation": "Own", "allowed_scopes": [name]}
    create_client(services, actor=ACTOR, id=holder, **fields)
    assign_scopes(services, [name], "mine", take_over=True, actor=ACTOR)
    update_client(services, holder, actor=ACTOR, name="Own")
    assert _actions(ours, limits, name) == _actions(ours, limits, f"scope:{name}") == []
    if limits == BY_SERVER:
        assert _actions(ours, limits, holder) == ["client.updated"]
    _describe_scope(services, name)
    assert _actions(ours, limits, name) == ["scope.updated"]


def test_a_scope_that_had_no_owner_before_is_shown_with_its_assignment(ours):
    """It was that of nobody else."""
    services, name = ours.site.services, "found/read"
    add_scope(services, actor=ACTOR, name=name)
    assign_scopes(services, [name], "mine", take_over=False, actor=ACTOR)
    assert _actions(ours, BY_SERVER, name) == ["scope.assigned", "scope.added"]


def test_a_resource_server_of_another_organisation_before(ours):
    """Nor the records of its scopes."""
    services, server, name = ours.site.services, "moved-server", "moved/read"
    fields = {"name": MARK, "identifier": "urn:test:moved", "organisation": MARK}
    create_resource_server(services, actor=ACTOR, id=server, **fields)
    add_scope(services, actor=ACTOR, name=name, resource_server_id=server, description="former")
    _stop_and_lift(services, "resource-server", server)
    update_resource_server(services, server, actor=ACTOR, organisation="Own", name="Own")
    for subject in (server, name, f"resource-server:{server}"):
        assert _actions(ours, BY_ORGANISATION, subject) == []
    update_resource_server(services, server, actor=ACTOR, name="Newer")
    _describe_scope(services, name)
    assert _actions(ours, BY_ORGANISATION, server) == ["resource_server.updated"]
    assert _actions(ours, BY_ORGANISATION, name) == ["scope.updated"]


@pytest.mark.parametrize("limits", [BY_SERVER, BY_ORGANISATION], ids=["server", "organisation"])
def test_a_scope_that_was_deleted_and_added_again(ours, limits):
    """Its records are seen from when it is one's own, also those of before the deletion."""
    services, number = ours.site.services, len(limits.organisations or ())
    own, others = f"again{number}/read", f"again{number}/other"
    for name, server in ((own, "mine"), (others, f"{MARK}-server")):
        add_scope(services, actor=ACTOR, name=name, resource_server_id=server)
        delete_scope(services, name, actor=ACTOR)
        assert _actions(ours, limits, name) == []
        add_scope(services, actor=ACTOR, name=name, resource_server_id="mine")
    assert _actions(ours, limits, own) == ["scope.added", "scope.deleted", "scope.added"]
    assert _actions(ours, limits, others) == ["scope.added"]


def test_a_record_with_an_escaped_nul(ours):
    """PostgreSQL stores it, and extracts nothing from it: the other records are seen."""
    services, made = ours.site.services, "with-nul"
    fields = {"name": MARK, "organisation": MARK, "allowed_scopes": ["mine/read"]}
    create_client(services, actor=ACTOR, id=made, **fields)
    update_client(services, made, actor=ACTOR, organisation="Own", name="Own")
    diff = {"name": {"before": "a\0", "after": "b\\u0000"}}
    with services.transaction() as session:
        facts = {"at": services.clock(), "actor": ACTOR, "action": "client.updated"}
        store_audit_record(session, **facts, subject=made, diff=diff)
    assert _actions(ours, BY_ORGANISATION, made) == ["client.updated"]
    update_client(services, made, actor=ACTOR, name="Newer")
    assert _actions(ours, BY_ORGANISATION, made) == ["client.updated", "client.updated"]
