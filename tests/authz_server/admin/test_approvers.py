"""Who may approve: local operators, people of a provider, and callers with limits."""

from dataclasses import replace
from datetime import datetime, timedelta

import pytest

from authz_server.audit.pending_changes import PendingChange
from authz_server.audit.records import store_audit_record
from authz_server.database.operator_sessions import OperatorPasskey
from authz_server.operations.enrolment import EnrolmentRefusedError, find_enrolment
from authz_server.operations.operator_roles import AssignedRole
from authz_server.operations.operators import create_operator, find_grants, update_operator
from authz_server.operations.permissions import Caller, Limits, make_grants
from support.admin_site import require_problem
from support.approval_site import MONEY, running_approval_site
from support.parties import ACTOR

APPROVER = AssignedRole(role="approver")


@pytest.fixture(scope="module")
def approvals(module_database_url: str, tmp_path_factory):
    """The admin API where grants of money and roles need a second person."""
    acts = {"acts": ["scope.grant_money", "operator.change_role"]}
    directory = tmp_path_factory.mktemp("approvers")
    with running_approval_site(directory, module_database_url, acts) as site:
        yield site


@pytest.fixture
def change(approvals) -> str:
    """A grant of money that waits for an approval."""
    return _file(approvals)


def _file(approvals, organisation: str = "") -> str:
    answer = _grant(approvals, organisation)
    assert answer.status_code == 202, answer.text
    return answer.json["id"]


def _grant(approvals, organisation: str, query: str = ""):
    """Grant a scope of money to a new client."""
    path = f"/clients/{approvals.api.new_client(organisation=organisation)['id']}"
    body = {"allowed_scopes": ["mapper/link", MONEY]}
    return approvals.change("PATCH", f"{path}{query}", body, path)


def _local(approvals, name: str) -> Caller:
    """Return a local operator, who has just logged in."""
    services = approvals.api.services
    made = create_operator(services, actor=ACTOR, name=name, roles=[APPROVER])
    return _caller(approvals, name, made.operator.id)


def _caller(approvals, name: str, operator_id: str) -> Caller:
    services = approvals.api.services
    with services.database.reading() as session:
        grants = find_grants(services, session, operator_id)
    return Caller(
        name=name,
        kind="operator",
        way="console",
        grants=grants,
        operator_id=operator_id,
        authenticated_at=services.clock(),
    )


def _person(approvals, limits: Limits | None = None) -> Caller:
    """Return a person of a provider, whose groups give the role of an approver."""
    grants = make_grants(approvals.api.settings, [("approver", limits or Limits())])
    return Caller(
        name="Ada",
        kind="operator",
        way="console",
        grants=grants,
        operator_id="openid:ada",
        authenticated_at=approvals.api.clock(),
        groups=("treasury",),
    )


def _approve(approvals, caller: Caller, change: str):
    return _decide(approvals, caller, change, "approve")


def _decide(approvals, caller: Caller, change: str, decision: str):
    return approvals.api.app.api.perform(
        caller, "POST", f"/changes/{change}/{decision}", body={}, if_match="*"
    )


def test_a_local_operator_approves_what_was_requested_after_the_role(approvals):
    """Not what was requested before: the role may have been given for it."""
    earlier = _local(approvals, "earlier")
    approvals.api.clock.advance(1)
    change = _file(approvals)
    approvals.api.clock.advance(1)
    later = _local(approvals, "later")
    refused = _approve(approvals, later, change)
    assert refused.status == 403
    assert "after the change was requested" in refused.body["detail"]
    done = _approve(approvals, earlier, change)
    assert (done.status, done.body["decided_by"]) == (200, "operator:earlier via console")


def test_a_role_that_was_changed_afterwards_does_not_count(approvals):
    """Its form is newer than the change."""
    approver = _local(approvals, "widened")
    approvals.api.clock.advance(1)
    change = _file(approvals)
    approvals.api.clock.advance(1)
    limited = AssignedRole(role="approver", organisations=("Treasury",))
    services = approvals.api.services
    for roles in ([limited], [APPROVER]):
        update_operator(services, approver.operator_id, actor=ACTOR, roles=roles)
    again = _caller(approvals, "widened", approver.operator_id)
    assert _approve(approvals, again, change).status == 403


@pytest.mark.parametrize("removed", [False, True])
def test_an_operator_with_a_newer_passkey_does_not_decide(approvals, removed):
    """The requester may have enrolled it by a link, to approve and to confirm as another."""
    services = approvals.api.services
    name = f"ada-{removed}"
    caller = _local(approvals, name)
    approvals.api.clock.advance(1)
    pending = _file(approvals)
    done = _grant(approvals, "", "?break_glass=true&reason=x")
    (unconfirmed,) = done.json["approval"]["changes"]
    with services.transaction() as session:
        if removed:
            store_audit_record(
                session,
                at=services.clock(),
                actor=ACTOR,
                action="operator.passkey_enrolled",
                subject=name,
            )
        else:
            session.add(_passkey(caller.operator_id, services.clock()))
    for change, decide in ((pending, "approve"), (unconfirmed, "confirm")):
        refused = _decide(approvals, caller, change, decide)
        assert refused.status == 403
        assert "A passkey of yours is newer" in refused.body["detail"]
    approvals.api.clock.advance(1)
    assert _approve(approvals, caller, _file(approvals)).status == 200


def _passkey(operator_id: str, created_at: datetime) -> OperatorPasskey:
    return OperatorPasskey(
        credential_id=operator_id.encode(),
        operator_id=operator_id,
        name="key",
        public_key=b"k",
        sign_count=0,
        transports=[],
        created_at=created_at,
    )


def test_a_person_of_a_provider_logs_in_after_the_request(approvals):
    """The groups of an earlier log-in may be old; the approval keeps the log-in and its groups."""
    early = _person(approvals)
    approvals.api.clock.advance(1)
    change = _file(approvals)
    refused = _approve(approvals, early, change)
    assert (refused.status, refused.body["type"].rpartition(":")[2]) == (
        401,
        "insufficient-user-authentication",
    )
    assert approvals.state(change) == "pending"
    approvals.api.clock.advance(1)
    late = _person(approvals)
    done = _approve(approvals, late, change)
    assert (done.status, done.body["groups"]) == (200, ["treasury"])
    assert late.authenticated_at is not None
    assert done.body["authenticated_at"] == late.authenticated_at.isoformat().replace("+00:00", "Z")


def test_an_approval_needs_a_fresh_log_in(approvals, change):
    """Of the last five minutes, by local operators too."""
    caller = _local(approvals, "sleepy")
    approvals.api.clock.advance(timedelta(minutes=6).total_seconds())
    approvals.forget_tokens()
    assert _approve(approvals, caller, change).status == 401


def test_to_do_an_act_at_once_needs_a_fresh_log_in(approvals):
    """Of an operator, at the request and for a change that waits."""
    caller = _manager(approvals)
    site, perform = approvals.api, approvals.api.app.api.perform
    path = f"/clients/{site.new_client()['id']}"
    glass, reason = {"break_glass": "true", "reason": "x"}, {"reason": "x"}
    body = {"allowed_scopes": ["mapper/link", MONEY]}
    filed = perform(caller, "PATCH", path, body=body, if_match="*")
    waits = f"/changes/{filed.body['id']}/break-glass"
    site.clock.advance(timedelta(minutes=6).total_seconds())
    approvals.forget_tokens()
    for answer in (
        perform(caller, "PATCH", path, body=body, if_match="*", query=glass),
        perform(caller, "POST", waits, body=reason, if_match="*"),
        perform(caller, "POST", waits, body=reason, if_match="*", query={"dry_run": "true"}),
    ):
        assert (answer.status, answer.body["type"].rpartition(":")[2]) == (
            401,
            "insufficient-user-authentication",
        )
    fresh = _manager(approvals)
    assert perform(fresh, "POST", waits, body=reason, if_match="*").status == 200
    done = perform(fresh, "PATCH", path, body={"allowed_scopes": []}, if_match="*", query=glass)
    assert done.status == 200


def _manager(approvals) -> Caller:
    """Return a person of a provider who manages clients, and has just logged in."""
    grants = make_grants(approvals.api.settings, [("client-manager", Limits())])
    return replace(_person(approvals), grants=grants)


def test_a_limited_approver_sees_and_approves_within_the_limits(approvals):
    """Others' changes are not there for it."""
    own, foreign = _file(approvals, "Treasury"), _file(approvals, "Health")
    approvals.api.clock.advance(1)
    caller = _person(approvals, Limits(organisations=frozenset({"Treasury"})))
    api = approvals.api.app.api
    listed = api.perform(caller, "GET", "/changes", query={"state": "pending"})
    assert {each["id"] for each in listed.body["items"]} == {own}
    assert api.perform(caller, "GET", f"/changes/{foreign}").status == 404
    assert _approve(approvals, caller, foreign).status == 404
    assert _approve(approvals, caller, own).status == 200


def test_a_limited_approver_does_not_decide_on_a_client_of_the_admin_api(approvals):
    """Its permissions reach beyond the organisation of the client, given or taken."""
    path = f"/clients/{approvals.api.new_client(organisation='Justice')['id']}"
    granted = approvals.change("PATCH", path, {"allowed_scopes": ["clients:read"]})
    assert granted.status_code == 202, granted.text
    query = "?break_glass=true&reason=x"
    done = approvals.change("PATCH", path + query, {"allowed_scopes": ["clients:read"]}, path)
    money = approvals.change("PATCH", path, {"allowed_scopes": [MONEY]})
    assert money.status_code == 202, money.text
    with approvals.api.services.database.reading() as session:
        concerned = session.get_one(PendingChange, money.json["id"]).resource_servers
    # With an empty id, as the scope that pays belongs to no resource server.
    assert concerned == ["", "authz-server-admin"]
    approvals.api.clock.advance(1)
    caller = _person(approvals, Limits(organisations=frozenset({"Justice"})))
    for change in (granted.json["id"], *done.json["approval"]["changes"], money.json["id"]):
        assert _approve(approvals, caller, change).status == 404
        assert _decide(approvals, caller, change, "confirm").status == 404
    assert _approve(approvals, _person(approvals), money.json["id"]).status == 200


def test_an_operator_is_created_and_changed_by_two_people(approvals):
    """Its link works once the operator is approved; a further link and other roles wait too."""
    api, services = approvals.api, approvals.api.services
    body = {"name": "grace", "roles": [{"role": "auditor"}]}
    filed = api.send("POST", "/operators", json=body)
    assert (filed.status_code, filed.json["operation"]) == (202, "create_operator")
    token = filed.json["answer"]["enrolment"]["link"].rpartition("/")[2]
    with services.database.transaction() as session, pytest.raises(EnrolmentRefusedError):
        find_enrolment(session, token, services.clock())
    assert approvals.decide(filed.json["id"], "approve").status_code == 200
    with services.database.transaction() as session:
        assert find_enrolment(session, token, services.clock()).name == "grace"
    again = api.send("POST", "/operators/grace/enrolments", json={})
    assert (again.status_code, again.json["diff"]) == (
        202,
        {"enrolment": {"before": None, "after": "issued"}},
    )
    link = again.json["answer"]["link"].rpartition("/")[2]
    assert approvals.decide(again.json["id"], "approve").status_code == 200
    with services.database.transaction() as session:
        assert find_enrolment(session, link, services.clock()).name == "grace"
    roles = {"roles": [{"role": "approver", "organisations": ["Treasury"]}]}
    changed = approvals.change("PATCH", "/operators/grace", roles)
    stale = approvals.change("PATCH", "/operators/grace", {"roles": []})
    assert (changed.status_code, stale.status_code) == (202, 202)
    assert approvals.decide(changed.json["id"], "approve").status_code == 200
    (role,) = api.get("/operators/grace").json["roles"]
    assert (role["role"], role["organisations"]) == ("approver", ["Treasury"])
    require_problem(approvals.decide(stale.json["id"], "approve"), 412, "precondition-failed")


def test_who_is_the_subject_of_a_change_does_not_decide_on_it(approvals):
    """An approver of long standing neither, nor the client that gets more."""
    caller = _local(approvals, "subject")
    approvals.api.clock.advance(1)
    path, roles = "/operators/subject", [{"role": "approver"}, {"role": "auditor"}]
    filed = approvals.change("PATCH", path, {"roles": roles})
    query = "?break_glass=true&reason=x"
    done = approvals.change("PATCH", path + query, {"roles": roles}, path)
    (unconfirmed,) = done.json["approval"]["changes"]
    for change, decide in ((filed.json["id"], "approve"), (unconfirmed, "confirm")):
        refused = _decide(approvals, caller, change, decide)
        assert refused.status == 403
        assert "The change concerns you" in refused.body["detail"]
    path = "/clients/second"
    widened = approvals.change("PATCH", path, {"allowed_scopes": ["changes:approve", MONEY]})
    refused = approvals.decide(widened.json["id"], "approve")
    assert "The change concerns you" in require_problem(refused, 403, "refused")["detail"]
    assert approvals.decide(unconfirmed, "confirm").status_code == 200


def test_who_is_made_an_approver_at_the_time_of_a_change_does_not_decide_on_it(approvals):
    """Neither an operator with a role of that time, nor a client that was changed then."""
    operator = _local(approvals, "made")
    made = approvals.api.new_client()["id"]
    change = _file(approvals)
    client = Caller(name=made, kind="client", way="api", grants=operator.grants)
    for caller in (operator, client):
        refused = _approve(approvals, caller, change)
        assert refused.status == 403
        assert "after the change was requested" in refused.body["detail"]


@pytest.mark.parametrize("decision", ["approve", "break-glass"])
def test_a_disabled_operator_with_roles_is_enabled_by_two_people(approvals, decision):
    """The roles count since then; without roles, one person is enough."""
    name, clock = f"returned-{decision}", approvals.api.clock
    operator = _local(approvals, name)
    path = f"/operators/{name}"
    assert approvals.change("POST", f"{path}/disable", {}, path).status_code == 200
    clock.advance(1)
    money = _file(approvals)
    clock.advance(1)
    filed = approvals.change("POST", f"{path}/enable", {}, path)
    assert (filed.status_code, filed.json["acts"]) == (202, ["operator.change_role"])
    assert filed.json["diff"]["state"] == {"before": "disabled", "after": "enabled"}
    assert approvals.api.get(path).json["state"] == "disabled"
    by = "second" if decision == "approve" else "caller"
    done = approvals.decide(filed.json["id"], decision, by, reason="back")
    assert done.status_code == 200, done.text
    shown = approvals.api.get(path).json
    granted = datetime.fromisoformat(shown["roles"][0]["granted_at"])
    assert (shown["state"], granted) == ("enabled", approvals.api.services.clock())
    again = _caller(approvals, name, operator.operator_id)
    assert _approve(approvals, again, money).status == 403
    bare = f"/operators/bare-{decision}"
    assert approvals.api.send("POST", "/operators", json={"name": bare[11:]}).status_code == 201
    for verb in ("disable", "enable"):
        assert approvals.change("POST", f"{bare}/{verb}", {}, bare).status_code == 200
