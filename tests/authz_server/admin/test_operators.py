"""Operators by the admin API."""

from dataclasses import replace

import pytest

from support.admin_site import ALL_SCOPES, require_problem
from support.administrators import Administration
from support.operators import add_passkey

OFFICER = [{"role": "security-officer"}]


@pytest.fixture(scope="module")
def desk(site) -> Administration:
    """Two security officers, who act by the console."""
    for name in ("ada", "bob"):
        made = site.send("POST", "/operators", json={"name": name, "roles": OFFICER})
        assert made.status_code == 201, made.text
    return Administration(site, {})


@pytest.mark.usefixtures("desk")
def test_an_operator_is_created_shown_changed_and_deleted(site):
    """The link is in one answer alone; a dry run shows none."""
    body = {"name": "cem/1"}
    require_problem(site.send("POST", "/operators", json=body), 422, "invalid-value")
    body = {"name": "cem", "roles": [{"role": "auditor", "organisations": ["Own"]}]}
    planned = site.send("POST", "/operators?dry_run=true", json=body)
    assert planned.status_code == 200, planned.text
    assert "link" not in planned.json["enrolment"]
    headers = {"Idempotency-Key": "cem"}
    made = site.send("POST", "/operators", json=body, headers=headers)
    assert made.headers["Location"] == "/admin/v1/operators/cem"
    link = made.json["enrolment"]["link"]
    assert link.startswith("https://admin.example/enrol/")
    repeated = site.send("POST", "/operators", json=body, headers=headers)
    assert repeated.status_code == 200
    assert repeated.json["enrolment"] is None
    assert "enrolments" in repeated.json["enrolment_hint"]
    shown = site.get("/operators/cem")
    assert shown.headers["ETag"] == made.headers["ETag"]
    assert link not in shown.text + site.get("/operators").text + site.audit_path.read_text()
    assert shown.json["roles"][0]["organisations"] == ["Own"]
    renewed = site.send("POST", "/operators/cem/enrolments", json={})
    assert renewed.status_code == 201, renewed.text
    assert renewed.json["link"] not in {link, ""}
    changed = site.change("PATCH", "/operators/cem", {"roles": []})
    assert changed.json["permissions"] == []
    stale = site.send(
        "PATCH",
        "/operators/cem",
        json={"roles": OFFICER},
        headers={"If-Match": made.headers["ETag"]},
    )
    require_problem(stale, 412, "precondition-failed")
    disabled = site.change("POST", "/operators/cem/disable", {}, item="/operators/cem")
    assert disabled.json["state"] == "disabled"
    enabled = site.change("POST", "/operators/cem/enable", {}, item="/operators/cem")
    assert enabled.json["diff"] == {"state": {"before": "disabled", "after": "enabled"}}
    assert site.change("DELETE", "/operators/cem").status_code == 200
    require_problem(site.get("/operators/cem"), 404, "not-found")
    records = site.get("/audit?action=operator.&subject=cem").json["items"]
    assert {each["actor"] for each in records} == {"client:caller via api"}
    assert '"operator.changed"' in site.audit_path.read_text()


def test_the_last_security_officer_does_not_disable_herself(desk):
    """A sentence and 409; also to demote and to delete."""
    ada = desk.caller("security-officer", name="ada")
    assert desk.perform(ada, "POST", "/operators/bob/disable", body={}, if_match="*").status == 200
    for method, path, body in (
        ("POST", "/operators/ada/disable", {}),
        ("DELETE", "/operators/ada", None),
        ("PATCH", "/operators/ada", {"roles": []}),
    ):
        done = desk.perform(ada, method, path, body=body, if_match="*")
        assert done.status == 409, done.body
        assert "last enabled security officer" in done.body["detail"]
    assert desk.perform(ada, "POST", "/operators/bob/enable", body={}, if_match="*").status == 200


def test_an_operator_gives_any_role_but_to_herself(site, desk):
    """Another security officer changes hers."""
    ada = desk.caller("security-officer", name="ada")
    ada_id = site.get("/operators/ada").json["id"]
    ada = type(ada)(
        name="ada",
        kind="operator",
        way="console",
        grants=ada.grants,
        operator_id=ada_id,
        authenticated_at=ada.authenticated_at,
    )
    more = {"roles": [*OFFICER, {"role": "client-manager"}]}
    done = desk.perform(ada, "PATCH", "/operators/ada", body=more, if_match="*")
    assert (done.status, done.body["type"]) == (403, "urn:authz-server:problem:refused")
    done = desk.perform(ada, "PATCH", "/operators/bob", body=more, if_match="*")
    assert done.status == 200, done.body
    assert "clients:write" in done.body["permissions"]


def test_an_operator_does_not_remove_her_own_last_passkey(site, desk):
    """Another one does, as of a lost device."""
    add_passkey(site.services, "ada", "Laptop")
    caller = desk.caller("security-officer", name="ada")
    ada = replace(caller, operator_id=site.get("/operators/ada").json["id"])
    (passkey,) = site.get("/operators/ada/passkeys").json["items"]
    path = f"/operators/ada/passkeys/{passkey['id']}"
    done = desk.perform(ada, "DELETE", path, if_match="*")
    assert (done.status, done.body["type"]) == (409, "urn:authz-server:problem:conflict")
    bob = desk.caller("security-officer", name="bob")
    assert desk.perform(bob, "DELETE", path, if_match="*").status == 200


@pytest.mark.usefixtures("desk")
def test_a_client_gives_no_role_with_more_than_its_token_permits(site):
    """Neither to a new operator nor to another, nor by a new link of one, nor a disabled one's."""
    token = site.token("operators:read", "operators:write", "audit:read")
    headers = {"If-Match": "*"}
    disabled = site.send("POST", "/operators/bob/disable", token=token, headers=headers)
    assert disabled.status_code == 200, disabled.text
    for method, path, body in (
        ("POST", "/operators", {"name": "deputy", "roles": OFFICER}),
        ("PATCH", "/operators/bob", {"roles": [{"role": "client-manager"}]}),
        ("POST", "/operators/bob/enrolments", {}),
        ("POST", "/operators/bob/enable", {}),
    ):
        answer = site.send(method, path, json=body, token=token, headers=headers)
        detail = require_problem(answer, 403, "refused")["detail"]
        assert "may not do" in detail
    assert set(ALL_SCOPES) >= {"operators:read", "operators:write"}
    made = site.send("POST", "/operators", json={"name": "plain"}, token=token)
    assert made.status_code == 201


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"name": ""},
        {"name": "<script>"},
        {"name": "a\u202eb"},
        {"name": "0123456789abcdef"},
        {"name": "x", "roles": [{"role": "none"}]},
        {"name": "x", "roles": [{"role": "api-owner"}]},
        {"name": "x", "roles": [{"role": "auditor", "surprise": 1}]},
        {"name": "x", "roles": [{"role": "auditor"}] * 21},
        {"name": "x", "roles": "auditor"},
        {"name": "x", "enabled": False},
    ],
    ids=str,
)
def test_a_hostile_operator_is_refused(site, body):
    """Each with 422 and nothing stored."""
    require_problem(site.send("POST", "/operators", json=body), 422, "invalid-value")
    require_problem(site.get("/operators/x"), 404, "not-found")
