"""A change that waits is carried out at once by its requester, and confirmed by another person."""

import pytest

from authz_server.operations.operator_roles import AssignedRole
from authz_server.operations.operators import create_operator, set_operator_enabled
from support.admin_site import require_problem
from support.approval_site import ApprovalSite, request_act
from support.parties import ACTOR


@pytest.fixture
def client(approvals: ApprovalSite) -> str:
    """The path of a new client with a secret."""
    return f"/clients/{approvals.api.new_client()['id']}"


@pytest.mark.parametrize("act", ["client.add_credential", "key.activate", "operator.change_role"])
def test_a_change_that_waits_is_done_at_once(approvals, client, act):
    """Planned before, with a reason and by its requester alone; nothing is done twice."""
    api = approvals.api
    answer, path = request_act(approvals, act, client)
    assert answer.status_code == 202, answer.text
    change = answer.json["id"]
    before = api.get(path).json
    for by, reason, status in (("second", "x", 404), ("caller", "", 422)):
        assert approvals.decide(change, "break-glass", by, reason=reason).status_code == status
    planned = approvals.decide(
        change, "break-glass", "caller", query="?dry_run=true", reason="payday"
    )
    assert (planned.status_code, api.get(path).json) == (200, before)
    assert approvals.state(change) == "pending"
    done = approvals.decide(change, "break-glass", "caller", reason="payday")
    assert done.status_code == 200, done.text
    assert (done.json["state"], done.json["kind"], done.json["reason"]) == (
        "unconfirmed",
        "break_glass",
        "payday",
    )
    assert api.get(path).json != before
    (record, *_) = approvals.records(f"action=change.carried_out&subject={change}")
    assert record["detail"]["diff"]
    again = approvals.decide(change, "break-glass", "caller", reason="payday")
    require_problem(again, 409, "conflict")
    require_problem(approvals.decide(change, "confirm", "caller"), 403, "refused")
    assert approvals.decide(change, "confirm").status_code == 200
    assert approvals.state(change) == "confirmed"


def test_a_change_of_another_state_is_not_carried_out(approvals, client):
    """It has failed: what it rests on was changed meanwhile."""
    answer, _ = request_act(approvals, "scope.grant_money", client)
    assert approvals.change("PATCH", client, {"name": "Another"}).status_code == 200
    broken = approvals.decide(answer.json["id"], "break-glass", "caller", reason="payday")
    require_problem(broken, 412, "precondition-failed")
    assert approvals.state(answer.json["id"]) == "failed"


def test_who_lost_the_permission_of_the_act_does_not_carry_it_out(approvals, client):
    """The permission counts at the time of the act, as for a new request."""
    answer, _ = request_act(approvals, "client.change_keys", client)
    change = answer.json["id"]
    path = f"/changes/{change}"
    headers = {"If-Match": approvals.api.get(path).headers["ETag"]}
    fewer = approvals.api.token("changes:read", "clients:read")
    refused = approvals.api.send(
        "POST", f"{path}/break-glass", token=fewer, json={"reason": "payday"}, headers=headers
    )
    require_problem(refused, 403, "refused")
    assert approvals.state(change) == "pending"


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("PATCH", "{client}", {"allowed_scopes": ["mapper/link", "keys:read"]}),
        ("POST", "/clients", {"name": "New", "allowed_scopes": ["keys:read"]}),
        ("POST", "/operators", {"name": "new", "roles": [{"role": "approver"}]}),
        ("POST", "/operators/{operator}/enrolments", {}),
        ("POST", "/operators/{operator}/enable", {}),
        (
            "POST",
            "/registration-tokens",
            {"expires_at": "2040-01-01T00:00:00Z", "scopes": ["keys:read"]},
        ),
    ],
)
def test_permissions_that_were_lost_since_are_not_given(approvals, client, method, path, body):
    """The rule of the request applies to the caller as she is when she carries it out."""
    operator = f"renewed-{client[-8:]}"
    create_operator(
        approvals.api.services, actor=ACTOR, name=operator, roles=[AssignedRole(role="approver")]
    )
    if path.endswith("/enable"):
        set_operator_enabled(approvals.api.services, operator, actor=ACTOR, enabled=False)
    item = client if method == "PATCH" else path.removesuffix("/enable").format(operator=operator)
    path = path.format(client=client, operator=operator)
    read = approvals.api.get(item)
    headers = {"If-Match": read.headers["ETag"]} if "ETag" in read.headers else {}
    filed = approvals.api.send(method, path, json=body, headers=headers)
    assert filed.status_code == 202, filed.text
    change = f"/changes/{filed.json['id']}"
    tag = {"If-Match": approvals.api.get(change).headers["ETag"]}
    fewer = approvals.api.token("changes:read", "clients:write", "operators:write")
    refused = approvals.api.send(
        "POST", f"{change}/break-glass", token=fewer, json={"reason": "payday"}, headers=tag
    )
    assert "keys:read" in require_problem(refused, 403, "refused")["detail"]
    assert approvals.state(filed.json["id"]) == "pending"
    done = approvals.decide(filed.json["id"], "break-glass", "caller", reason="payday")
    assert done.status_code == 200, done.text
