"""Administrators with limits: filters, bodies, changes, cursors, and clients of the admin API."""

import json
from dataclasses import replace
from datetime import timedelta

import pytest
from sqlalchemy import delete, update

from authz_server.clients.models import Client, ClientSecret
from authz_server.operations.admin_api import ADMIN_SERVER
from authz_server.operations.permissions import ROLES, UNLIMITED, Grant
from authz_server.scopes.uses import ScopeUse
from support.administrators import BY_ORGANISATION, BY_SERVER, MARK
from support.parties import ACTOR


def test_filters_and_searches_find_nothing_of_others(ours):
    """Nor do they tell a name of others from one that does not exist."""
    caller = ours.caller(*ROLES, limits=BY_SERVER)
    for path, query in (
        ("/clients", {"q": MARK}),
        ("/clients", {"organisation": MARK}),
        ("/resource-servers", {"q": MARK}),
        ("/scopes", {"q": MARK}),
        ("/scopes", {"resource_server": f"{MARK}-server"}),
        ("/audit", {"subject": f"{MARK}-client"}),
        ("/audit", {"subject": "shared"}),
    ):
        assert ours.perform(caller, "GET", path, query=query).body["items"] == [], path
    for scope in (f"{MARK}/read", "nothing/read"):
        done = ours.perform(caller, "GET", "/clients", query={"scope": scope})
        assert done.status == 404


def test_a_client_with_scopes_of_others_is_shown_in_part_and_not_changed(ours):
    """The owner of a resource server sees who may call it, and what else they do not see."""
    caller = ours.caller(*ROLES, limits=BY_SERVER)
    shown = ours.perform(caller, "GET", "/clients/shared").body
    assert shown["allowed_scopes"] == ["mine/read"]
    assert shown["secrets"] == []
    for method, path, body in (
        ("PATCH", "", {"name": "Taken over"}),
        ("DELETE", "", None),
        ("POST", "/disable", {"revoke_tokens": True}),
        ("POST", "/secrets", {}),
        ("POST", "/secrets/rotate", {"end_old_when_unused_seconds": 86_400}),
        ("GET", "/secrets", None),
    ):
        done = ours.perform(caller, method, f"/clients/shared{path}", body=body, if_match="*")
        assert (done.status, done.body["type"].rpartition(":")[2]) == (403, "refused")
    for body in ({"kind": "client", "subject": "shared", "reason": "x"},):
        assert ours.perform(caller, "POST", "/stops", body=body).status == 403
    assert ours.perform(caller, "POST", "/revocations", body={"client": "shared"}).status == 403
    question = {"client_id": "shared", "scope": "mine/read"}
    assert ours.perform(caller, "POST", "/explanations/requests", body=question).status == 403


@pytest.mark.parametrize(
    ("path", "body", "member"),
    [
        ("/revocations", {"reason": "x"}, "client"),
        ("/revocations", {"reason": "x"}, "scope"),
        ("/stops", {"kind": "client", "reason": "x"}, "subject"),
        ("/stops", {"kind": "scope", "reason": "x"}, "subject"),
        ("/stops", {"kind": "resource-server", "reason": "x"}, "subject"),
        ("/explanations/requests", {"client_id": "own-client"}, "scope"),
        ("/explanations/requests", {}, "client_id"),
        ("/explanations/tokens", {"token": "x"}, "caller"),
        ("/scopes/assignments", {"scopes": ["mine/read"], "take_over": True}, "resource_server"),
        ("/scopes", {"name": "mine/new"}, "resource_server"),
    ],
    ids=str,
)
@pytest.mark.parametrize("limits", [BY_SERVER, BY_ORGANISATION], ids=["server", "organisation"])
def test_a_body_that_names_others_is_answered_as_one_that_names_nothing(
    ours, path, body, member, limits
):
    """Alike in status and in text."""
    caller = ours.caller(*ROLES, "security-officer", limits=limits)
    is_scope = member == "scope" or body.get("kind") == "scope"
    is_server = "server" in member or body.get("kind") == "resource-server"
    kind = "server" if is_server or member == "caller" else "client"
    others = f"{MARK}/read" if is_scope else f"{MARK}-{kind}"
    unknown = "absent/read" if is_scope else "absent"
    answers = []
    for name in (others, unknown):
        done = ours.perform(caller, "POST", path, body={**body, member: name})
        text = json.dumps({**done.body, "request_id": ""}).replace(name, "NAME")
        answers.append((done.status, text))
    assert answers[0] == answers[1]
    assert answers[0][0] in {200, 404, 422}


def test_a_client_of_an_organisation_is_changed_with_its_scopes_of_others(ours):
    """They are named, and their resource server is not."""
    caller = ours.caller(*ROLES, limits=BY_ORGANISATION)
    path = "/clients/borrower"
    done = ours.perform(caller, "PATCH", path, body={"name": "Borrower"}, if_match="*")
    assert (done.status, done.body["allowed_scopes"]) == (200, ["lent/read"])
    scope = ours.perform(caller, "GET", "/scopes/lent%2Fread").body
    assert (scope["name"], scope["resource_server"]) == ("lent/read", None)
    grants = (Grant(permissions=frozenset({"tokens:revoke"}), limits=BY_ORGANISATION),)
    security = replace(caller, grants=grants)
    for kind, subject, status in (("scope", "lent/read", 403), ("client", "borrower", 200)):
        body = {"kind": kind, "subject": subject, "reason": "x"}
        query = {"dry_run": "true"}
        done = ours.perform(security, "POST", "/stops", body=body, query=query)
        assert done.status == status, done.body
        assert MARK not in json.dumps(done.body)


def test_a_token_of_others_is_explained_and_revoked_as_a_foreign_one(ours):
    """Nothing tells that the server issued it."""
    site = ours.site
    site.secrets["reader"] = site.new_client(
        id=f"{MARK}-reader",
        organisation=MARK,
        allowed_scopes=["clients:read"],
        authentication_method="client_secret_post",
    )["secret"]["value"]
    site.secrets[f"{MARK}-reader"] = site.secrets.pop("reader")
    site.public.extensions["authz_server"].feed.poll()
    token = site.new_token("clients:read", client=f"{MARK}-reader")
    for limits in (BY_SERVER, BY_ORGANISATION):
        caller = ours.caller(*ROLES, limits=limits)
        explained, revoked = set(), set()
        for text in (token, "x", f"{token}x"):
            question = {"token": text, "caller": "mine"}
            done = ours.perform(caller, "POST", "/explanations/tokens", body=question)
            explained.add(json.dumps(done.body))
            done = ours.perform(caller, "POST", "/revocations", body={"token": text})
            revoked.add((done.status, done.body["detail"]))
        assert len(explained) == 1
        assert len(revoked) == 1
        for body in ({"jti": "a"}, {"key": "a"}, {"before": "2026-01-01T00:00:00Z"}):
            assert ours.perform(caller, "POST", "/revocations", body=body).status == 403
    assert site.get("/clients?limit=1", token=token).status_code == 200


def test_a_change_does_not_leave_the_limits(ours):
    """Neither by another organisation nor by scopes, permissions or identifiers."""
    caller = ours.caller(*ROLES, limits=BY_ORGANISATION)
    new = {"name": "New", "allowed_scopes": ["mine/read"]}
    made = ours.perform(caller, "POST", "/clients", body=new)
    assert made.status == 201, made.body
    assert made.body["organisation"] == "Own"
    path = f"/clients/{made.body['id']}"
    for method, at, body, status in (
        ("POST", "/clients", {**new, "organisation": MARK}, 403),
        ("POST", "/clients", {**new, "allowed_scopes": [f"{MARK}/read"]}, 422),
        ("PATCH", path, {"organisation": MARK}, 403),
        ("PATCH", path, {"allowed_scopes": [f"{MARK}/read"]}, 422),
        ("PATCH", path, {"allowed_resource_servers": [f"{MARK}-server"]}, 422),
        ("PATCH", path, {"permissions": ["introspect:any"]}, 403),
        ("PATCH", path, {"properties": {"token_exchange": {"audiences": [f"{MARK}-server"]}}}, 422),
        ("PATCH", "/resource-servers/mine", {"identifier": "urn:test:other"}, 403),
        ("PATCH", "/resource-servers/mine", {"organisation": MARK}, 403),
        ("PATCH", "/resource-servers/mine", {"permissions": ["introspect:any"]}, 403),
        ("POST", "/scopes", {"name": "free/read"}, 403),
        ("POST", "/scopes/mine%2Fread/assign", {"resource_server": None}, 403),
        ("POST", "/scopes/assignments", {"scopes": ["mine/*"], "resource_server": None}, 403),
        ("POST", "/clients", {**new, "id": f"{MARK}-client"}, 409),
    ):
        done = ours.perform(caller, method, at, body=body, if_match="*")
        assert done.status == status, (at, body, done.body)
    assert ours.perform(caller, "GET", path).body["organisation"] == "Own"
    done = ours.perform(caller, "PATCH", path, body={"name": "Newer"}, if_match="*")
    assert done.status == 200, done.body
    server = ours.caller(*ROLES, limits=BY_SERVER)
    for body, status in (
        ({**new, "allowed_scopes": []}, 403),
        ({**new, "allowed_scopes": ["mine/read"]}, 201),
    ):
        assert ours.perform(server, "POST", "/clients", body=body).status == status


def test_a_resource_server_without_an_organisation_serves_all_of_them(ours):
    """An administrator of one organisation grants its scopes, and does not change it."""
    everything = ours.caller(*ROLES)
    caller = ours.caller(*ROLES, "security-officer", limits=BY_ORGANISATION)
    site = ours.site
    body = {"id": "common", "name": "Common", "identifier": "urn:test:common"}
    assert site.send("POST", "/resource-servers", json=body).status_code == 201
    scope = {"name": "common/read", "resource_server": "common"}
    assert site.send("POST", "/scopes", json=scope).status_code == 201
    new = {"name": "User", "allowed_scopes": ["common/read"]}
    assert ours.perform(caller, "POST", "/clients", body=new).status == 201
    assert ours.perform(caller, "GET", "/resource-servers/common").status == 200
    for method, path, change in (
        ("PATCH", "/resource-servers/common", {"name": "Mine"}),
        ("POST", "/resource-servers/common/disable", {}),
        ("POST", "/resource-servers/common/secrets", {}),
        ("POST", "/scopes/common%2Fread/assign", {"resource_server": "mine", "take_over": True}),
        ("POST", "/stops", {"kind": "scope", "subject": "common/read", "reason": "x"}),
        ("POST", "/revocations", {"scope": "common/read"}),
    ):
        done = ours.perform(caller, method, path, body=change, if_match="*")
        assert done.status == 403, (path, done.body)
    assert ours.perform(everything, "GET", "/scopes/common%2Fread").body["resource_server"]


def test_nobody_gains_by_a_client_what_the_limits_withhold(ours):
    """A client with a scope of the admin API has limits, and within those of its maker."""
    caller = ours.caller(*ROLES, "client-manager", limits=BY_ORGANISATION)
    deputy = {"name": "Deputy", "allowed_scopes": ["clients:read"]}
    for properties, status in (
        ({}, 403),
        ({"admin_organisations": ["Own", MARK]}, 403),
        ({"admin_resource_servers": ["mine"]}, 403),
        ({"admin_organisations": ["Own"]}, 201),
    ):
        body = {**deputy, "properties": properties}
        done = ours.perform(caller, "POST", "/clients", body=body)
        assert done.status == status, (properties, done.body)
    path = f"/clients/{done.body['id']}"
    for change in ({"properties": {"admin_organisations": None}}, {"permissions": []}):
        done = ours.perform(caller, "PATCH", path, body=change, if_match="*")
        assert done.status == (403 if "properties" in change else 200), done.body
    # An unlimited client manager whose right to read records is limited.
    mixed = ours.caller("client-manager")
    limited = ours.caller("auditor", limits=BY_SERVER)
    both = type(mixed)(
        name="mia", kind="operator", way="api", grants=(*mixed.grants, *limited.grants)
    )
    body = {"name": "Records", "allowed_scopes": ["audit:read"]}
    assert ours.perform(both, "POST", "/clients", body=body).status == 403
    body["properties"] = {"admin_resource_servers": ["mine"]}
    assert ours.perform(both, "POST", "/clients", body=body).status == 201


def test_a_client_administers_within_the_limits_of_its_registration(ours):
    """By its own access token; a change of the limits counts at once."""
    site = ours.site
    site.secrets["tool"] = site.new_client(
        id="tool",
        allowed_scopes=["clients:read", "keys:read", "audit:read"],
        authentication_method="client_secret_post",
        properties={"admin_organisations": ["Own"]},
    )["secret"]["value"]
    site.public.extensions["authz_server"].feed.poll()
    token = site.new_token("clients:read", "keys:read", "audit:read", client="tool")
    answer = site.get("/clients?limit=500", token=token)
    assert {each["organisation"] for each in answer.json["items"]} == {"Own"}
    assert site.get(f"/clients/{MARK}-client", token=token).status_code == 404
    assert MARK not in site.get("/audit?limit=500", token=token).text
    assert site.get("/rings", token=token).status_code == 403
    site.change("PATCH", "/clients/tool", {"properties": {"admin_organisations": [MARK]}})
    assert site.get(f"/clients/{MARK}-client", token=token).status_code == 200
    assert site.get("/clients/own-client", token=token).status_code == 404


def test_a_cursor_of_one_caller_gives_nothing_to_another(ours):
    """It is bound to its caller: neither limits nor order are read from it. Case H94."""
    everything, limited = ours.caller(*ROLES), ours.caller(*ROLES, limits=BY_SERVER, name="bob")
    for path in ("/clients", "/scopes", "/audit"):
        cursor = ours.perform(everything, "GET", path, query={"limit": 1}).body["next"]
        query = {"limit": 1, "cursor": cursor}
        assert ours.perform(everything, "GET", path, query=query).status == 200
        done = ours.perform(limited, "GET", path, query=query)
        assert (done.status, done.body["type"].rpartition(":")[2]) == (400, "invalid-cursor")
    narrowed = ours.caller(*ROLES, limits=BY_SERVER)
    cursor = ours.perform(everything, "GET", "/clients", query={"limit": 1}).body["next"]
    done = ours.perform(narrowed, "GET", "/clients", query={"limit": 1, "cursor": cursor})
    assert MARK not in json.dumps(done.body)


def test_of_two_operators_who_edit_one_client_the_second_is_refused(ours):
    """412 with the present tag; the first change stands."""
    ada, bob = (ours.caller("client-manager", name=name) for name in ("ada", "bob"))
    tag = ours.perform(ada, "GET", "/clients/own-client").headers["ETag"]
    first = {"name": "By Ada"}
    done = ours.perform(ada, "PATCH", "/clients/own-client", body=first, if_match=tag)
    assert done.status == 200, done.body
    late = ours.perform(bob, "PATCH", "/clients/own-client", body={"name": "B"}, if_match=tag)
    assert late.status == 412
    assert late.headers["ETag"] == done.headers["ETag"]
    assert ours.perform(bob, "GET", "/clients/own-client").body["name"] == "By Ada"
    query = {"subject": "own-client", "limit": 1}
    record = ours.perform(ours.caller("auditor"), "GET", "/audit", query=query).body["items"][0]
    assert record["actor"] == "operator:ada via console"


def test_the_admin_api_keeps_its_scopes(ours):
    """No way of assigning takes them, under any spelling; its other scopes are not taken either."""
    caller = ours.caller(*ROLES)
    services = ours.site.services
    with services.transaction() as session:
        services.scopes.update_scope(session, "keys:revoke", actor=ACTOR, aliases=["keys.revoke"])
        services.scopes.add_scope(
            session, actor=ACTOR, name="keys:more/one", resource_server_id=ADMIN_SERVER
        )
    new = {"name": "New", "identifier": "urn:test:new", "take_over": True}
    for path, body in (
        ("/scopes/assignments", {"scopes": ["keys:revoke"], "resource_server": "mine"}),
        ("/scopes/assignments", {"scopes": ["keys.revoke"], "resource_server": "mine"}),
        ("/scopes/assignments", {"scopes": ["keys:more/*"], "resource_server": "mine"}),
        ("/scopes/assignments", {"scopes": ["keys:revoke"], "resource_server": None}),
        ("/scopes/keys%3Arevoke/assign", {"resource_server": "mine"}),
        ("/resource-servers", {**new, "scopes": ["keys.revoke"]}),
    ):
        taken = {**body, "take_over": True}
        done = ours.perform(caller, "POST", path, body=taken, if_match="*")
        assert done.status == 409, (path, body, done.body)
        assert "admin API" in done.body["detail"]
    kept = {"scopes": ["keys:revoke"], "resource_server": ADMIN_SERVER, "take_over": True}
    assert ours.perform(caller, "POST", "/scopes/assignments", body=kept).status == 200


def test_of_a_client_shown_in_part_no_secret_and_no_use_of_others_is_seen(ours):
    """In the list, by its filters and in the report of least privilege."""
    site = ours.site
    database, now = site.services.database, site.clock()
    fields = {"name": "Mixed", "allowed_scopes": ["mine/read", f"{MARK}/read"]}
    site.new_client(id="mixed", authentication_method="client_secret_post", **fields)
    site.new_client(id="unmixed", name="Unmixed", allowed_scopes=["mine/read"])
    soon, past = now + timedelta(days=2), now - timedelta(days=400)
    both = ("mixed", "unmixed")
    with database.transaction() as session:
        session.execute(update(Client).where(Client.id.in_(both)).values(created_at=past))
        secrets = update(ClientSecret).where(ClientSecret.client_id.in_(both))
        session.execute(secrets.values(created_at=past, expires_at=soon, last_used_at=past))
        for client, scope in (("mixed", f"{MARK}/read"), ("unmixed", "mine.read")):
            use = {"client_id": client, "scope": scope, "kind": "asked"}
            session.add(ScopeUse(**use, first_at=past, last_at=now))
    caller, everything = ours.caller(*ROLES, limits=BY_SERVER), ours.caller(*ROLES)

    def ids(by, **query):
        query = {"q": "mixed", **query}
        return [
            each["id"] for each in ours.perform(by, "GET", "/clients", query=query).body["items"]
        ]

    mixed, own = ours.perform(caller, "GET", "/clients", query={"q": "mixed"}).body["items"]
    assert (mixed["secret_ends_at"], mixed["last_used_at"]) == (None, None)
    assert own["secret_ends_at"]
    assert own["last_used_at"]
    ends = (now + timedelta(days=3)).isoformat()
    assert ids(everything, secret_ends_before=ends) == ["mixed", "unmixed"]
    assert ids(caller, secret_ends_before=ends) == ["unmixed"]
    since = (now - timedelta(days=1)).isoformat()
    assert ids(everything, unused_since=since) == []
    assert ids(caller, unused_since=since) == ["mixed"]
    for by, scopes, due in (
        (everything, ["mine/read"], {"mixed", "unmixed"}),
        (caller, ["mine/read"], {"unmixed"}),
    ):
        report = ours.perform(by, "GET", "/reports/least-privilege").body
        (unused,) = [each for each in report["unused_scopes"] if each["client_id"] == "mixed"]
        assert unused["never_asked"] == scopes
        assert {each["client_id"] for each in report["secrets_due"]} & {*both} == due
    with database.transaction() as session:
        session.execute(delete(ScopeUse))
    report = ours.perform(caller, "GET", "/reports/least-privilege").body
    assert MARK not in json.dumps(report)
    (dormant,) = [each for each in report["dormant_clients"] if each["client_id"] == "mixed"]
    assert (dormant["scopes"], dormant["last_used_at"]) == (1, None)


def test_the_records_of_an_earlier_client_of_the_same_id_are_not_seen(ours):
    """A caller who takes the id of a deleted client sees the records since then."""
    site = ours.site
    site.new_client(id="again", name="Former", organisation=MARK, allowed_scopes=[])
    site.change("DELETE", "/clients/again")
    site.clock.advance(60)
    for limits, roles in ((BY_SERVER, ROLES), (BY_ORGANISATION, ROLES)):
        caller = ours.caller(*roles, limits=limits)
        new = {"id": "again", "name": "New", "allowed_scopes": ["mine/read"]}
        done = ours.perform(caller, "POST", "/clients", body=new)
        assert done.status == 201, done.body
        query = {"subject": "again"}
        records = ours.perform(caller, "GET", "/audit", query=query).body["items"]
        assert {each["action"] for each in records} == {"client.created", "client.secret_added"}
        every = ours.perform(ours.caller(*ROLES), "GET", "/audit", query=query).body["items"]
        assert "client.deleted" in {each["action"] for each in every}
        site.change("DELETE", "/clients/again")
        site.clock.advance(60)


def test_of_a_resource_server_for_all_organisations_a_part_is_shown(ours):
    """Its secrets, properties and permissions are those of its own administrators."""
    site = ours.site
    body = {"id": "open", "name": "Open", "identifier": "urn:test:open"}
    given = {"permissions": ["introspect:any"], "properties": {"status_list": True}}
    assert site.send("POST", "/resource-servers", json={**body, **given}).status_code == 201
    for limits, is_shown in ((BY_ORGANISATION, False), (UNLIMITED, True)):
        caller = ours.caller(*ROLES, limits=limits)
        page = ours.perform(caller, "GET", "/resource-servers", query={"q": "urn:test:open"}).body
        shown = ours.perform(caller, "GET", "/resource-servers/open").body
        assert page["items"] == [shown]
        for member in ("secrets", "properties", "permissions"):
            assert bool(shown[member]) is is_shown, member
    caller = ours.caller(*ROLES, limits=BY_ORGANISATION)
    own = ours.perform(caller, "GET", "/resource-servers/mine").body
    assert own["secrets"]
