"""Who counts as a second person: by roles, owners and identities from before the change."""

from itertools import count

import pytest

from authz_server.clients.registration.models import Registration
from authz_server.operations.clients import get_client
from authz_server.operations.operator_roles import AssignedRole
from authz_server.operations.operators import create_operator, find_grants, update_operator
from authz_server.operations.permissions import UNLIMITED, Caller, Grant, Limits, make_grants
from authz_server.operations.resource_servers import (
    create_resource_server,
    update_resource_server,
)
from authz_server.operations.scopes import add_scope, assign_scopes
from support.approval_site import MONEY, ApprovalSite, running_approval_site
from support.parties import ACTOR

APPROVER = AssignedRole(role="approver")
ACTS = ["scope.grant_money", "operator.change_role", "stop.lift"]
_numbers = count()


@pytest.fixture(scope="module")
def approvals(module_database_url: str, tmp_path_factory):
    """The admin API where grants of money, roles and lifted stops need a second person."""
    directory = tmp_path_factory.mktemp("persons")
    with running_approval_site(directory, module_database_url, {"acts": ACTS}) as site:
        yield site


def _local(approvals: ApprovalSite, *roles: AssignedRole) -> Caller:
    """Return a new local operator, who has just logged in."""
    name = f"operator-{next(_numbers)}"
    create_operator(approvals.api.services, actor=ACTOR, name=name, roles=roles)
    return _logged_in(approvals, name)


def _logged_in(approvals: ApprovalSite, name: str) -> Caller:
    """Return a local operator who has just logged in, with the present roles."""
    services = approvals.api.services
    operator_id = approvals.api.get(f"/operators/{name}").json["id"]
    with services.database.reading() as session:
        grants = find_grants(services, session, operator_id)
    return _operator(approvals, name, operator_id, grants)


def _operator(approvals: ApprovalSite, name: str, operator_id: str, grants) -> Caller:
    return Caller(
        name=name,
        kind="operator",
        way="console",
        grants=grants,
        operator_id=operator_id,
        authenticated_at=approvals.api.clock(),
    )


def _person(approvals: ApprovalSite, role: str, limits: Limits = UNLIMITED) -> Caller:
    """Return a person of a provider, who has just logged in."""
    subject = f"person-{next(_numbers)}"
    grants = make_grants(approvals.api.settings, [(role, limits)])
    return _operator(approvals, subject, f"openid:{subject}", grants)


def _file(approvals: ApprovalSite, organisation: str = "") -> str:
    """Request a grant of money to a new client; return the change."""
    path = f"/clients/{approvals.api.new_client(organisation=organisation)['id']}"
    filed = approvals.change("PATCH", path, {"allowed_scopes": ["mapper/link", MONEY]})
    assert filed.status_code == 202, filed.text
    approvals.api.clock.advance(1)
    return str(filed.json["id"])


def _decide(approvals: ApprovalSite, caller: Caller, change: str, decision: str = "approve"):
    """Return the status and the problem of a decision."""
    done = approvals.api.app.api.perform(
        caller, "POST", f"/changes/{change}/{decision}", body={"reason": "x"}, if_match="*"
    )
    return done.status, done.body.get("detail", "")


def test_a_wider_role_that_was_given_since_does_not_widen_an_earlier_one(approvals):
    """An approver of one organisation gets another role for a change of others."""
    limited = AssignedRole(role="approver", organisations=("Treasury",))
    before = _local(approvals, limited)
    approvals.api.clock.advance(1)
    own, foreign = _file(approvals, "Treasury"), _file(approvals, "Health")
    wider = [limited, AssignedRole(role="security-officer")]
    update_operator(approvals.api.services, before.name, actor=ACTOR, roles=wider)
    caller = _logged_in(approvals, before.name)
    status, detail = _decide(approvals, caller, foreign)
    assert (status, "after the change was requested" in detail) == (403, True)
    assert _decide(approvals, caller, own) == (200, "")
    approvals.api.clock.advance(1)
    assert _decide(approvals, caller, _file(approvals, "Health")) == (200, "")


def _new_server(approvals: ApprovalSite, organisation: str = "") -> str:
    name = f"server-{next(_numbers)}"
    create_resource_server(
        approvals.api.services,
        actor=ACTOR,
        id=name,
        name=name,
        identifier=f"urn:test:{name}",
        organisation=organisation,
    )
    return name


@pytest.mark.parametrize("decision", ["approve", "break-glass"])
def test_a_scope_that_has_another_owner_by_now_is_not_granted_within_limits(approvals, decision):
    """Neither by an approver nor by the requester: it belongs to others."""
    api, services = approvals.api, approvals.api.services
    server, other = _new_server(approvals), _new_server(approvals)
    for verb, risk in (("read", "read"), ("pay", "money")):
        fields = {"name": f"{server}/{verb}", "risk": risk, "resource_server_id": server}
        add_scope(services, actor=ACTOR, **fields)
    limits = Limits(resource_servers=frozenset({server}))
    manager = _person(approvals, "client-manager", limits)
    made = api.new_client(allowed_scopes=[f"{server}/read"])["id"]
    path, scopes = f"/clients/{made}", [f"{server}/read", f"{server}/pay"]
    if decision == "approve":
        filed = approvals.change("PATCH", path, {"allowed_scopes": scopes}).json
    else:
        body = {"allowed_scopes": scopes}
        filed = api.app.api.perform(manager, "PATCH", path, body=body, if_match="*").body
    assert filed["state"] == "pending"
    assign_scopes(services, [f"{server}/pay"], other, actor=ACTOR, take_over=True)
    api.clock.advance(1)
    approver = _person(approvals, "approver", limits)
    caller, status = (approver, 412) if decision == "approve" else (manager, 422)
    assert _decide(approvals, caller, filed["id"], decision)[0] == status
    assert approvals.state(filed["id"]) == "failed"
    assert get_client(services, made).allowed_scopes == (f"{server}/read",)


def test_what_belongs_to_another_organisation_by_now_is_not_approved(approvals):
    """The approver's limits are compared with the organisation of the request."""
    api = approvals.api
    server = _new_server(approvals, "Treasury")
    body = {"kind": "resource-server", "subject": server, "reason": "x"}
    assert api.send("POST", "/stops", json=body).status_code == 201
    path = f"/stops/resource-server/{server}"
    filed = approvals.change("POST", f"{path}/lift", {"reason": "over"}, path)
    assert filed.status_code == 202, filed.text
    update_resource_server(api.services, server, actor=ACTOR, organisation="Health")
    api.clock.advance(1)
    approver = _person(approvals, "approver", Limits(organisations=frozenset({"Treasury"})))
    assert _decide(approvals, approver, filed.json["id"])[0] == 412
    assert api.get(path).status_code == 200


def _require_decides_once_confirmed(approvals: ApprovalSite, caller: Caller, change: str) -> None:
    """Require that a caller decides on nothing until a change that made it one is confirmed."""
    approvals.api.clock.advance(1)
    money = _file(approvals)
    status, detail = _decide(approvals, caller, money)
    assert (status, f"The change {change}" in detail) == (403, True)
    assert approvals.decide(change, "confirm").status_code == 200
    assert _decide(approvals, caller, money) == (200, "")


def test_an_operator_who_was_made_by_breaking_the_glass_decides_once_confirmed(approvals):
    """Otherwise one person makes the second one, who may be herself."""
    name, query = f"operator-{next(_numbers)}", "?break_glass=true&reason=x"
    body = {"name": name, "roles": [{"role": "approver"}]}
    made = approvals.api.send("POST", f"/operators{query}", json=body)
    assert made.status_code == 201, made.text
    (change,) = made.json["approval"]["changes"]
    _require_decides_once_confirmed(approvals, _logged_in(approvals, name), change)


def _client(name: str) -> Caller:
    grant = Grant(permissions=frozenset({"changes:approve"}))
    return Caller(name=name, kind="client", way="api", grants=(grant,))


def test_a_client_that_was_made_by_breaking_the_glass_decides_once_confirmed(approvals):
    """So does one that gets the permission."""
    api, query = approvals.api, "?break_glass=true&reason=x"
    body = {"name": "New", "allowed_scopes": ["changes:approve"]}
    made = api.send("POST", f"/clients{query}", json=body)
    assert made.status_code == 201, made.text
    (change,) = made.json["approval"]["changes"]
    _require_decides_once_confirmed(approvals, _client(made.json["id"]), change)
    path = f"/clients/{api.new_client()['id']}"
    given = approvals.change(
        "PATCH", f"{path}{query}", {"allowed_scopes": ["changes:approve"]}, path
    )
    (change,) = given.json["approval"]["changes"]
    _require_decides_once_confirmed(approvals, _client(given.json["id"]), change)


def test_a_client_that_registered_by_such_a_token_decides_once_it_is_confirmed(approvals):
    """An initial access token gives the permission to whoever registers with it."""
    api, query = approvals.api, "?break_glass=true&reason=x"
    body = {"expires_at": "2040-01-01T00:00:00Z", "scopes": ["changes:approve"]}
    token = api.send("POST", f"/registration-tokens{query}", json=body)
    assert token.status_code == 201, token.text
    (change,) = token.json["approval"]["changes"]
    made = api.new_client()["id"]
    with api.services.transaction() as session:
        session.add(
            Registration(
                client_id=made,
                token_digest="",
                granted_by=f"registration:{token.json['id']}",
                permitted_scopes=[],
                permitted_grant_types=[],
                registered_scopes=[],
                registered_grant_types=[],
                registered={},
                software_statement={},
                registered_at=api.services.clock(),
            )
        )
    _require_decides_once_confirmed(approvals, _client(made), change)


def test_the_settings_say_which_identities_decide(sqlite_url, tmp_path):
    """A person with a passkey and a log-in at the provider, or a client, is not two persons."""
    settings = {"acts": ACTS, "deciders": ["provider"]}
    with running_approval_site(tmp_path, sqlite_url, settings) as approvals:
        local = _local(approvals, APPROVER)
        approvals.api.clock.advance(1)
        change = _file(approvals)
        for caller, kind in ((local, "local"), (_client("second"), "client")):
            status, detail = _decide(approvals, caller, change)
            assert (status, f"{kind!r}" in detail) == (403, True)
        assert _decide(approvals, _person(approvals, "approver"), change) == (200, "")


@pytest.mark.parametrize("decision", ["approve", "confirm"])
def test_what_such_an_operator_requested_is_approved_once_the_change_is_confirmed(
    approvals, decision
):
    """The maker would request by the other identity, and decide by her own."""
    api, name = approvals.api, f"operator-{next(_numbers)}"
    body = {"name": name, "roles": [{"role": "client-manager"}]}
    made = api.send("POST", "/operators?break_glass=true&reason=x", json=body)
    (change,) = made.json["approval"]["changes"]
    path, query = f"/clients/{api.new_client()['id']}", {"reason": "x"}
    if decision == "confirm":
        query["break_glass"] = "true"
    granted = {"allowed_scopes": ["mapper/link", MONEY]}
    filed = api.app.api.perform(
        _logged_in(approvals, name), "PATCH", path, body=granted, if_match="*", query=query
    ).body
    (waits,) = filed["approval"]["changes"] if decision == "confirm" else (filed["id"],)
    api.clock.advance(1)
    second = _person(approvals, "approver")
    status, detail = _decide(approvals, second, waits, decision)
    assert (status, f"The change {change}, which concerns the requester" in detail) == (403, True)
    assert approvals.decide(change, "confirm").status_code == 200
    assert _decide(approvals, second, waits, decision) == (200, "")
