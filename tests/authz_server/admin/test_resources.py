"""Secrets, resource servers, scopes, key rings, revocations, records and settings by the API."""

from datetime import timedelta

import pytest

from support.admin_site import ALL_SCOPES, require_problem


def _search(site, query: str) -> list[str]:
    answer = site.get(f"/clients?{query}")
    assert answer.status_code == 200, answer.text
    return [each["id"] for each in answer.json["items"]]


def test_clients_are_found_by_text_and_by_field(site):
    """The text is a part of the id, the name or the organisation."""
    site.new_client("Payer of 100%", id="find-1", organisation="Treasury")
    site.new_client("Reader", id="find-2", organisation="treasury_2", allowed_scopes=[])
    site.change("POST", "/clients/find-2/disable", {}, item="/clients/find-2")
    assert _search(site, "q=FIND-") == ["find-1", "find-2"]
    assert _search(site, "q=tREASURY") == ["find-1", "find-2"]
    assert _search(site, "q=100%25") == ["find-1"]
    assert _search(site, "q=y_2") == ["find-2"]
    assert _search(site, "organisation=Treasury") == ["find-1"]
    assert _search(site, "q=find&state=disabled") == ["find-2"]
    assert _search(site, "q=find&state=enabled") == ["find-1"]
    assert _search(site, "q=find&scope=mapper.link") == ["find-1"]
    assert _search(site, "q=find&scope=mapper/unlink") == []
    assert _search(site, "q=find&authentication_method=client_secret_jwt") == []
    require_problem(site.get("/clients?scope=unknown"), 404, "not-found")


def test_the_dates_of_a_client_decide_its_state(site):
    """The filter and the member agree."""
    now = site.clock()
    past = (now - timedelta(days=1)).isoformat()
    future = (now + timedelta(days=1)).isoformat()
    site.new_client(id="dated-old", expires_at=past)
    site.new_client(id="dated-new", starts_at=future)
    for state, found in (("expired", "dated-old"), ("not yet", "dated-new")):
        assert _search(site, f"q=dated&state={state.replace(' ', '%20')}") == [found]
        assert site.get(f"/clients/{found}").json["state"] == state


@pytest.mark.parametrize("kind", ["clients", "resource-servers"])
def test_secrets_are_added_rotated_and_ended(site, kind):
    """A value is in one answer alone. Case H88."""
    item = f"/{kind}/with-secrets"
    body = {"id": "with-secrets", "name": "With secrets"}
    body |= {"allowed_scopes": []} if kind == "clients" else {"identifier": "urn:test:with-secrets"}
    if kind == "resource-servers":
        item, body["id"] = f"/{kind}/server-with-secrets", "server-with-secrets"
    assert site.send("POST", f"/{kind}", json=body).status_code == 201
    added = site.send("POST", f"{item}/secrets", json={"description": "second"})
    assert added.status_code == 201
    secret = added.headers["Location"].removeprefix("/admin/v1")
    assert site.get(secret).json["description"] == "second"
    rotated = site.send(
        "POST", f"{item}/secrets/rotate", json={"end_old_when_unused_seconds": 86_400}
    )
    assert rotated.status_code == 201, rotated.text
    assert len(rotated.json["old"]) == 2
    listed = site.get(f"{item}/secrets")
    assert len(listed.json["items"]) == 3
    for value in (added.json["value"], rotated.json["value"]):
        assert value not in listed.text + site.get(item).text + site.audit_path.read_text()
    ended = site.change("DELETE", secret)
    assert ended.status_code == 200, ended.text
    assert ended.json["diff"]["works"] == {"before": True, "after": False}
    require_problem(site.get(f"{item}/secrets/unknown"), 404, "not-found")
    unclear = site.send("POST", f"{item}/secrets/rotate", json={})
    require_problem(unclear, 422, "invalid-value")


def test_a_resource_server_is_managed(site):
    """Registered with scopes, changed, searched, deleted."""
    body = {
        "id": "land",
        "name": "Land registry",
        "identifier": "https://land.example",
        "scopes": ["registry/search"],
        "with_secret": False,
    }
    made = site.send("POST", "/resource-servers", json=body)
    assert made.status_code == 201, made.text
    assert made.json["scopes"] == ["registry/search"]
    assert made.json["secret"] is None
    found = site.get("/resource-servers?q=LAND").json["items"]
    assert [each["id"] for each in found] == ["land"]
    changed = site.change("PATCH", "/resource-servers/land", {"token_format": "reference"})
    assert changed.json["diff"] == {"token_format": {"before": "jwt", "after": "reference"}}
    taken = site.send("POST", "/resource-servers", json={**body, "id": "land-2"})
    require_problem(taken, 409, "conflict")
    assert site.change("DELETE", "/resource-servers/land").status_code == 200
    assert site.get("/scopes/registry%2Fsearch").json["resource_server"] is None


def test_scopes_are_added_and_assigned(site):
    """A name has a slash, which the path encodes."""
    site.send(
        "POST",
        "/resource-servers",
        json={"id": "owner", "name": "Owner", "identifier": "urn:test:owner"},
    )
    made = site.send("POST", "/scopes", json={"name": "parcel/read", "aliases": ["parcel.read"]})
    assert made.status_code == 201
    assert made.headers["Location"] == "/admin/v1/scopes/parcel%2Fread"
    assert site.get("/scopes/parcel.read").json["name"] == "parcel/read"
    given = site.change(
        "POST",
        "/scopes/parcel%2Fread/assign",
        {"resource_server": "owner"},
        item="/scopes/parcel%2Fread",
    )
    assert given.json["resource_server"] == "owner"
    several = {"scopes": ["disburse/*"], "resource_server": "owner"}
    planned = site.send("POST", "/scopes/assignments?dry_run=true", json=several)
    assert "disburse/disburse" in planned.json["changed"]
    owned = site.get("/scopes?resource_server=owner").json["items"]
    assert [each["name"] for each in owned] == ["parcel/read"]
    done = site.send("POST", "/scopes/assignments", json=several)
    assert done.json["changed"] == planned.json["changed"]
    imported = site.send("POST", "/scopes/imports", json={"catalogue": "g2p-connect"})
    assert imported.json["added"] == []
    assert site.get("/scopes?q=PARCEL.").json["items"][0]["name"] == "parcel/read"
    assert {each["risk"] for each in site.get("/scopes?risk=money").json["items"]} == {"money"}


def test_rings_and_keys_take_orders(site):
    """The tag of a ring changes with each; a dry run changes none."""
    assert [each["name"] for each in site.get("/rings").json["items"]] == ["es256"]
    frozen = site.change("POST", "/rings/es256/freeze", {"reason": "audit"}, item="/rings/es256")
    assert frozen.status_code == 200, frozen.text
    assert site.get("/rings/es256").json["frozen"] is True
    again = site.change("POST", "/rings/es256/freeze", {"reason": "x"}, item="/rings/es256")
    require_problem(again, 409, "conflict")
    tag = site.get("/rings/es256").headers["ETag"]
    thawed = site.send(
        "POST", "/rings/es256/unfreeze", json={"reason": "done"}, headers={"If-Match": tag}
    )
    assert thawed.status_code == 200
    stale = site.send(
        "POST", "/rings/es256/rotate", json={"reason": "x"}, headers={"If-Match": tag}
    )
    require_problem(stale, 412, "precondition-failed")
    keys = site.get("/rings/es256/keys").json["items"]
    assert all("private" not in str(each) for each in keys)
    signing = next(each for each in keys if each["signs"])
    path = f"/rings/es256/keys/{signing['kid']}"
    assert site.get(path).json == signing
    planned = site.send(
        "POST",
        f"{path}/revoke?dry_run=true",
        json={"reason": "drill"},
        headers={"If-Match": "*"},
    )
    assert planned.status_code == 200, planned.text
    assert planned.json["dry_run"] is True
    assert planned.json["diff"] == planned.json["changes"]
    assert site.get(path).json == signing
    tainted = site.change("POST", f"{path}/taint", {"reason": "suspected"}, item=path)
    assert tainted.status_code == 200, tainted.text
    assert site.get(path).json["state"] == "tainted"
    # The token of the caller was signed by this key.
    site.public.extensions["authz_server"].key_rings.refresh()
    site.forget_tokens()
    revoked = site.change("POST", f"{path}/revoke", {"reason": "leaked"}, item=path)
    assert revoked.status_code == 200, revoked.text
    assert site.get(path).json["state"] == "revoked"
    standby = next(each for each in site.get("/rings/es256/keys").json["items"] if each["signs"])
    assert standby["kid"] != signing["kid"]
    actors = {each["actor"] for each in site.get("/audit?action=key.revoked").json["items"]}
    assert actors == {"client:caller via api"}
    require_problem(site.get("/rings/none"), 404, "not-found")
    require_problem(site.get("/rings/es256/keys/none"), 404, "not-found")
    early = site.change(
        "POST",
        f"/rings/es256/keys/{standby['kid']}/activate",
        {"reason": "x"},
        item="/rings/es256",
    )
    require_problem(early, 412, "precondition-failed")


def test_tokens_are_revoked_in_every_way(site):
    """One token, or those of a client, a scope, a key, or up to a time."""
    site.new_client(id="leaky")
    for body, kind in (
        ({"jti": "abc"}, "token"),
        ({"client": "leaky", "reason": "leaked"}, "client"),
        ({"scope": "mapper.unlink"}, "scope"),
        ({"before": (site.clock() - timedelta(days=30)).isoformat()}, "all"),
    ):
        planned = site.send("POST", "/revocations?dry_run=true", json=body)
        done = site.send("POST", "/revocations", json=body)
        assert (planned.status_code, done.status_code) == (200, 201), done.text
        assert planned.json["kind"] == done.json["kind"] == kind
    records = site.get("/audit?action=cut_off.recorded&limit=3").json["items"]
    assert [each["subject"] for each in records] == ["all:", "scope:mapper/unlink", "client:leaky"]
    for body in (
        {},
        {"client": "a", "scope": "b"},
        {"jti": "a", "before": "2020-01-01T00:00:00Z"},
        {"before": (site.clock() + timedelta(days=30)).isoformat()},
        {"client": ""},
        {"client": "leaky", "reason": "a\nb"},
    ):
        require_problem(site.send("POST", "/revocations", json=body), 422, "invalid-value")
    for body in ({"client": "unknown"}, {"token": "unknown"}, {"scope": "unknown"}):
        require_problem(site.send("POST", "/revocations", json=body), 404, "not-found")


def test_a_stop_is_planned_set_and_lifted(site):
    """The dry run answers the extent; the path of the stop names its kind and subject."""
    site.new_client(id="stoppable", allowed_scopes=["mapper/resolve"])
    before = site.get("/stops").json["items"]
    body = {"kind": "scope", "subject": "mapper.resolve", "reason": "leaked"}
    planned = site.send("POST", "/stops?dry_run=true", json=body)
    assert planned.status_code == 200, planned.text
    assert "stoppable" in planned.json["clients"]
    assert site.get("/stops").json["items"] == before
    assert site.send("POST", "/stops", json=body).status_code == 201
    require_problem(site.send("POST", "/stops", json=body), 409, "conflict")
    path = "/stops/scope/mapper%2Fresolve"
    assert site.get(path).json["actor"] == "client:caller via api"
    lifted = site.change("POST", f"{path}/lift", {"reason": "rotated"}, item=path)
    assert lifted.status_code == 200, lifted.text
    require_problem(site.get(path), 404, "not-found")
    programme = {"name": "cash", "scopes": ["mapper.resolve"], "clients": ["stoppable"]}
    defined = site.send("POST", "/programmes", json=programme)
    assert defined.status_code == 200, defined.text
    assert site.get("/programmes").json["items"][0]["scopes"] == ["mapper/resolve"]
    shown = site.get("/programmes/cash")
    assert shown.json["clients"] == ["stoppable"]
    assert shown.headers["ETag"] == defined.headers["ETag"]
    # Of two editors, the second one is refused.
    seen = {"If-Match": defined.headers["ETag"]}
    fewer = {"name": "cash", "scopes": ["mapper.resolve"]}
    replaced = site.send("POST", "/programmes", json=fewer, headers=seen)
    assert replaced.json["diff"] == {"clients": {"before": ["stoppable"], "after": []}}
    stale = site.send("POST", "/programmes", json=programme, headers=seen)
    require_problem(stale, 412, "precondition-failed")
    new = site.send("POST", "/programmes", json={**programme, "name": "new"}, headers=seen)
    require_problem(new, 412, "precondition-failed")
    assert site.send("POST", "/programmes", json=programme).status_code == 200
    require_problem(site.get("/programmes/new"), 404, "not-found")
    stop = {"kind": "programme", "subject": "cash", "reason": "x"}
    assert site.send("POST", "/stops", json=stop).status_code == 201
    require_problem(site.change("DELETE", "/programmes/cash"), 409, "conflict")
    path = "/stops/programme/cash"
    assert site.change("POST", f"{path}/lift", {"reason": "over"}, item=path).status_code == 200
    require_problem(site.send("DELETE", "/programmes/cash"), 428, "precondition-required")
    stale = site.send("DELETE", "/programmes/cash", headers={"If-Match": replaced.headers["ETag"]})
    require_problem(stale, 412, "precondition-failed")
    deleted = site.change("DELETE", "/programmes/cash")
    assert deleted.json["diff"]["scopes"] == {"before": ["mapper/resolve"], "after": None}
    require_problem(site.get("/programmes/cash"), 404, "not-found")
    (record,) = site.get("/audit?action=scope.programme_deleted").json["items"]
    assert (record["subject"], record["actor"]) == ("cash", "client:caller via api")
    unknown = {"kind": "programme", "subject": "other", "reason": "x"}
    require_problem(site.send("POST", "/stops", json=unknown), 404, "not-found")


def test_requests_and_tokens_are_explained(site):
    """With the cause that a record would have; an explained token is neither stored nor revoked."""
    site.new_client(id="explained")
    body = {"client_id": "explained", "scope": "mapper/unlink"}
    refused = site.send("POST", "/explanations/requests", json=body)
    assert refused.status_code == 200, refused.text
    assert refused.json["granted"] is False
    assert refused.json["cause"] == "scope_not_granted"
    own = {"client_id": "caller", "scope": "clients:read", "address": "192.0.2.1"}
    assert site.send("POST", "/explanations/requests", json=own).json["granted"] is True
    question = {"token": site.token(), "caller": "authz-server-admin"}
    found = site.send("POST", "/explanations/tokens", json=question)
    assert found.json["active"] is True
    assert found.json["claims"]["client_id"] == "caller"
    unknown = site.send("POST", "/explanations/tokens", json={**question, "token": "x"})
    assert unknown.json["active"] is False
    for wrong in ({**own, "address": "here"}, {**own, "method": "none"}, {"client_id": ""}):
        answer = site.send("POST", "/explanations/requests", json=wrong)
        require_problem(answer, 422, "invalid-value")
    nobody = site.send("POST", "/explanations/tokens", json={**question, "caller": "unknown"})
    require_problem(nobody, 404, "not-found")


def test_records_are_filtered(site):
    """By actor, action, subject and time, newest first."""
    site.new_client(id="recorded")
    items = site.get("/audit?subject=recorded").json["items"]
    assert [each["action"] for each in items] == ["client.secret_added", "client.created"]
    assert site.get("/audit?subject=recorded&action=client.").json["items"] == items
    assert site.get("/audit?subject=recorded&action=scope.").json["items"] == []
    assert site.get("/audit?subject=recorded&actor=operator:x").json["items"] == []
    at = items[0]["at"]
    assert site.get(f"/audit?subject=recorded&until={at}").json["items"] == []
    assert site.get(f"/audit?subject=recorded&since={at}").json["items"] == items
    require_problem(site.get("/audit?since=2020-01-01"), 400, "invalid-request")


def test_settings_are_shown_without_secrets(site):
    """A secret is shown as set."""
    answer = site.get("/settings?limit=500")
    values = {each["key"]: each["value"] for each in answer.json["items"]}
    assert values["clients.secret_pepper"] == "(set)"
    assert values["admin.enabled"] is True
    assert site.settings.clients.secret_pepper.reveal().decode() not in answer.text
    changed = site.get("/settings?changed=true&limit=500").json["items"]
    assert 0 < len(changed) < len(values)
    assert all(not each["default"] for each in changed)


def test_every_change_names_the_caller_and_the_way(site):
    """Records tell changes by the API from those by the command line."""
    site.new_client(id="acted-on")
    records = site.get("/audit?subject=acted-on").json["items"]
    assert {each["actor"] for each in records} == {"client:caller via api"}
    assert site.get("/clients/caller").json["allowed_scopes"] == [*ALL_SCOPES]


def test_a_scope_is_not_taken_from_a_stopped_resource_server(site):
    """Nor is the server deleted: its tokens would be active again without `stop.lift`."""
    for name, scopes in (("stopped-api", ["mapper/unlink"]), ("other-api", [])):
        body = {"id": name, "name": name, "identifier": f"urn:test:{name}", "scopes": scopes}
        assert site.send("POST", "/resource-servers", json=body).status_code == 201
    stop = {"kind": "resource-server", "subject": "stopped-api", "reason": "INC-1"}
    assert site.send("POST", "/stops", json=stop).status_code == 201
    scope, server = "/scopes/mapper%2Funlink", "/resource-servers/stopped-api"
    taken = {"resource_server": "other-api", "take_over": True}
    for answer in (
        site.change("POST", f"{scope}/assign", taken, item=scope),
        site.change("DELETE", server, item=server),
    ):
        require_problem(answer, 409, "conflict")
        assert "is stopped: lift the stop first" in answer.json["detail"]
    assert site.get(scope).json["resource_server"] == "stopped-api"
