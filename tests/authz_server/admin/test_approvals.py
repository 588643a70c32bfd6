"""Acts that need a second person: filed, approved, rejected, withdrawn, expired, confirmed."""

import json

import pytest
from werkzeug.test import Client

from authz_server.admin.key_contexts import KeyContexts
from authz_server.clients.validation import DEFAULT_GRANT_TYPES
from authz_server.settings import SettingsError
from support.admin_site import require_problem
from support.approval_site import (
    MONEY,
    ApprovalSite,
    request_act,
    set_stop,
)


@pytest.fixture
def client(approvals: ApprovalSite) -> str:
    """The path of a new client with a secret."""
    return f"/clients/{approvals.api.new_client()['id']}"


WAITING = (
    "scope.grant_money",
    "client.add_credential",
    "client.change_keys",
    "operator.change_role",
    "stop.lift",
    "key.activate",
)


@pytest.mark.parametrize("act", WAITING)
def test_an_act_waits_for_another_person_who_approves_it(approvals, client, act):
    """Nothing happens before; the requester is refused; the record names both."""
    api = approvals.api
    answer, path = request_act(approvals, act, client)
    assert answer.status_code == 202, answer.text
    change = answer.json
    assert answer.headers["Location"] == f"/admin/v1/changes/{change['id']}"
    assert (change["state"], change["kind"], change["acts"]) == ("pending", "approval", [act])
    assert change["requested_by"] == "client:caller via api"
    assert change["diff"]
    before = api.get(path)
    stored = api.get(f"/changes/{change['id']}")
    assert stored.headers["ETag"] == answer.headers["ETag"]
    assert stored.json == {
        name: each for name, each in change.items() if name not in {"answer", "dry_run"}
    }
    assert change["id"] in _pending(approvals)
    own = approvals.decide(change["id"], "approve", "caller")
    require_problem(own, 403, "refused")
    planned = approvals.decide(change["id"], "approve", query="?dry_run=true")
    assert planned.status_code == 200, planned.text
    assert approvals.state(change["id"]) == "pending"
    assert api.get(path).json == before.json
    done = approvals.decide(change["id"], "approve", reason="looked at")
    assert done.status_code == 200, done.text
    assert (done.json["state"], done.json["decided_by"]) == ("approved", "client:second via api")
    after = api.get(path)
    assert after.status_code == 404 or after.json != before.json
    (record, *_) = approvals.records("action=change.approved&limit=1")
    assert record["subject"] == change["id"]
    assert record["detail"]["requested_by"] == "client:caller via api"
    assert record["detail"]["diff"] == change["diff"]
    named = [
        each["detail"].get("approved_by")
        for each in approvals.records("limit=20")
        if each["detail"].get("change") == change["id"] and not each["action"].startswith("change.")
    ]
    assert named
    assert set(named) == {"client:second via api"}
    again = approvals.decide(change["id"], "approve", "third")
    require_problem(again, 409, "conflict")


@pytest.mark.parametrize("act", WAITING)
def test_a_dry_run_says_that_an_act_would_wait(approvals, client, act):
    """And files nothing."""
    before = _pending(approvals)
    answer, _ = request_act(approvals, act, client, "?dry_run=true")
    assert answer.status_code == 200, answer.text
    assert answer.json["approval"] == {"acts": [act], "state": "pending", "changes": []}
    assert _pending(approvals) == before


def _pending(approvals: ApprovalSite) -> list[str]:
    found = approvals.api.get("/changes?state=pending&limit=500").json["items"]
    return [each["id"] for each in found]


def test_the_records_of_an_approved_act_name_the_change_and_the_approver(approvals, client):
    """Beside the requester, as whom it is done."""
    answer, _ = request_act(approvals, "scope.grant_money", client)
    change = answer.json["id"]
    assert approvals.decide(change, "approve").status_code == 200
    subject = client.removeprefix("/clients/")
    (record, *_) = approvals.records(f"subject={subject}&action=client.updated")
    assert record["actor"] == "client:caller via api"
    assert record["detail"]["change"] == change
    assert record["detail"]["approved_by"] == "client:second via api"
    events = [json.loads(line) for line in approvals.api.audit_path.read_text().splitlines()]
    found = [each for each in events if each.get("change") == change]
    assert [(each["event"], each["actor"]) for each in found] == [
        ("change.requested", "client:caller via api"),
        ("change.approved", "client:second via api"),
        ("client.changed", "client:caller via api"),
    ]
    assert found[0]["concerns"] == f"client:{subject}"
    assert found[2]["approved_by"] == "client:second via api"
    assert found[2]["diff"] == found[0]["diff"] == answer.json["diff"]


def test_the_list_of_changes_is_filtered_and_paged(approvals):
    """Newest first; a cursor continues its own list. Case H94."""
    for name in ("One", "Two", "Three"):
        body = {"name": name, "allowed_scopes": [MONEY]}
        assert approvals.api.send("POST", "/clients", json=body).status_code == 202
    query = "state=pending&actor=client:caller%20via%20api"
    whole = approvals.api.get(f"/changes?{query}&limit=500").json["items"]
    found, cursor = [], ""
    while cursor is not None:
        page = approvals.api.get(f"/changes?{query}&limit=2{cursor and f'&cursor={cursor}'}").json
        found += page["items"]
        cursor = page["next"]
    assert found == whole
    times = [each["requested_at"] for each in whole]
    assert times == sorted(times, reverse=True)
    assert approvals.api.get("/changes?actor=client:second%20via%20api").json["items"] == []
    for wrong in ("state=broken", "cursor=x", "limit=0"):
        assert approvals.api.get(f"/changes?{wrong}").status_code == 400


def test_a_record_of_an_act_without_an_approval_has_its_diff(approvals, client):
    """Each record of a call."""
    answer = approvals.change("PATCH", client, {"organisation": "Treasury"})
    assert answer.status_code == 200, answer.text
    assert "approval" not in answer.json
    subject = client.removeprefix("/clients/")
    (record, *_) = approvals.records(f"subject={subject}&action=client.updated")
    assert record["detail"]["diff"] == {"organisation": {"before": "", "after": "Treasury"}}


def test_a_secret_works_once_its_change_is_approved(approvals):
    """In the answer to the requester alone: not in the change, its list or a record. Case H88."""
    api = approvals.api
    body = {
        "id": "payer",
        "name": "Payer",
        "allowed_scopes": ["mapper/link", MONEY],
        "authentication_method": "client_secret_post",
        "grant_types": list(DEFAULT_GRANT_TYPES),
    }
    filed = api.send("POST", "/clients", json=body)
    assert filed.status_code == 202, filed.text
    secret = filed.json["answer"]["secret"]["value"]
    require_problem(api.get("/clients/payer"), 404, "not-found")
    assert approvals.decide(filed.json["id"], "approve").status_code == 200
    added = api.send("POST", "/clients/payer/secrets", json={"description": "further"})
    assert added.status_code == 202, added.text
    further = added.json["answer"]["value"]
    imported = {"imported_secret": "an-imported-secret-0123456789", "description": "imported"}
    rotated = api.send(
        "POST",
        "/clients/payer/secrets/rotate",
        json={**imported, "end_old_when_unused_seconds": 86_400},
    )
    assert rotated.status_code == 202, rotated.text
    for value in (secret, further, imported["imported_secret"]):
        assert value not in api.get("/changes").text
        assert value not in api.get("/audit").text
        with api.services.database.reading() as session:
            stored = session.connection().exec_driver_sql("SELECT * FROM pending_change").fetchall()
        assert value not in str(stored)
    api.public.extensions["authz_server"].feed.poll()
    assert _authenticates(approvals, secret)
    assert not _authenticates(approvals, further)
    assert approvals.decide(added.json["id"], "approve").status_code == 200
    # The rotation rested on a client without the further secret.
    require_problem(approvals.decide(rotated.json["id"], "approve"), 412, "precondition-failed")
    again = api.send(
        "POST",
        "/clients/payer/secrets/rotate",
        json={**imported, "end_old_when_unused_seconds": 86_400},
    )
    assert approvals.decide(again.json["id"], "approve").status_code == 200
    api.public.extensions["authz_server"].feed.poll()
    assert _authenticates(approvals, further)
    assert _authenticates(approvals, imported["imported_secret"])
    described = {each["description"]: each for each in api.get("/clients/payer").json["secrets"]}
    assert described["further"]["ends_when_unused_seconds"] == 86_400
    assert described["imported"]["imported"] is True


def _authenticates(approvals: ApprovalSite, secret: str) -> bool:
    answer = Client(approvals.api.public).post(
        "/oauth2/introspect",
        data={"client_id": "payer", "client_secret": secret, "token": "x"},
        environ_base={"REMOTE_ADDR": "127.0.0.1"},
    )
    return answer.status_code != 401


def test_a_credential_after_the_end_of_another_waits(approvals, client):
    """The only secret is ended, or the client is deleted and created again."""
    api = approvals.api
    (secret,) = api.get(client).json["secrets"]
    ended = approvals.change("DELETE", f"{client}/secrets/{secret['id']}")
    assert ended.status_code in {200, 204}, ended.text
    added = api.send("POST", f"{client}/secrets", json={})
    assert (added.status_code, added.json["acts"]) == (202, ["client.add_credential"])
    deleted = approvals.change("DELETE", client)
    assert deleted.status_code in {200, 204}, deleted.text
    body = {"id": client.removeprefix("/clients/"), "name": "Again", "allowed_scopes": []}
    again = api.send("POST", "/clients", json=body)
    assert again.status_code == 202, again.text
    assert again.json["acts"] == ["client.add_credential"]
    assert approvals.decide(again.json["id"], "approve").status_code == 200
    assert api.get(client).status_code == 200


DETAILS = "authorization_details_grants"
REQUIRED = "authorization_details_required"
GRANTS = [
    {
        "programmes": [name],
        "currency_code": "KES",
        "payer_fas": ["account:1@bank"],
        "payment_cap": "5.00",
        "batch_cap": "5.00",
        "count": 1,
    }
    for name in ("a", "b")
]
#: For scopes and properties of a client, changes of properties, each with its acts.
WIDER = [
    (
        ["clients:read"],
        {"admin_organisations": ["Treasury"]},
        [
            ({"admin_organisations": None}, ["operator.change_role"]),
            ({"admin_organisations": ["Treasury", "Health"]}, ["operator.change_role"]),
            ({"admin_resource_servers": ["mapper"]}, []),
        ],
    ),
    (
        [MONEY],
        {DETAILS: {"g2p_disbursement": GRANTS[:1]}},
        [
            ({REQUIRED: False}, ["scope.grant_money"]),
            ({DETAILS: None}, ["scope.grant_money"]),
            ({DETAILS: {"g2p_disbursement": GRANTS}}, ["scope.grant_money"]),
            ({"authorization_details_types": []}, []),
            ({"authorization_details_types": None}, ["scope.grant_money"]),
            ({DETAILS: {"g2p_disbursement": []}}, []),
        ],
    ),
    (["mapper/link"], {DETAILS: {"g2p_disbursement": GRANTS}}, [({REQUIRED: False}, [])]),
]


@pytest.mark.parametrize(("scopes", "properties", "changes"), WIDER)
def test_wider_limits_of_a_client_wait(approvals, scopes, properties, changes):
    """Limits of what it administers, and of what it pays; narrower ones do not wait."""
    body = {"name": "Limited", "allowed_scopes": scopes, "properties": properties}
    made = approvals.api.send("POST", "/clients?break_glass=true&reason=x", json=body)
    assert made.status_code == 201, made.text
    path = f"/clients/{made.json['id']}"
    for change, acts in changes:
        answer = approvals.change("PATCH", path, {"properties": change})
        assert answer.status_code == (202 if acts else 200), answer.text
        assert answer.json.get("acts", []) == acts


def test_a_repeated_creation_is_filed_once(approvals):
    """The second answer names the same change, without the secret."""
    body = {"name": "Repeated", "allowed_scopes": [MONEY]}
    headers = {"Idempotency-Key": "filed-once"}
    first = approvals.api.send("POST", "/clients", json=body, headers=headers)
    again = approvals.api.send("POST", "/clients", json=body, headers=headers)
    assert (first.status_code, again.status_code) == (202, 202)
    assert first.json["id"] == again.json["id"]
    assert first.json["answer"]["secret"]["value"]
    assert again.json["answer"] is None


@pytest.mark.parametrize("act", WAITING)
def test_a_change_that_rests_on_another_state_fails(approvals, client, act):
    """412, and the state failed; the act is not done."""
    answer, path = request_act(approvals, act, client)
    change = answer.json["id"]
    match act:
        case "stop.lift":
            query = "?break_glass=true&reason=x"
            lifted = approvals.change("POST", f"{path}/lift{query}", {"reason": "x"}, path)
            assert lifted.status_code == 200, lifted.text
            set_stop(approvals, client, "for another reason")
        case "key.activate":
            ring = "/rings/es256"
            approvals.change("POST", f"{ring}/freeze", {"reason": "x"}, ring)
            approvals.change("POST", f"{ring}/unfreeze", {"reason": "x"}, ring)
        case "client.add_credential":
            approvals.change("PATCH", client, {"allowed_scopes": []})
        case _:
            approvals.change("PATCH", client, {"name": "Renamed"})
    before = approvals.api.get(path).json
    stale = approvals.decide(change, "approve")
    require_problem(stale, 412, "precondition-failed")
    assert approvals.state(change) == "failed"
    assert approvals.api.get(f"/changes/{change}").json["problem"]
    assert approvals.api.get(path).json == before
    require_problem(approvals.decide(change, "approve"), 409, "conflict")


def test_an_order_whose_keys_cannot_be_opened_fails(approvals, client, monkeypatch):
    """A file of a Vault's login is missing, for example: nothing is done, and it is known."""
    answer, path = request_act(approvals, "key.activate", client)
    change, before = answer.json["id"], approvals.api.get(path).json

    def refuse(*_arguments, **_named):
        raise SettingsError("it is missing", file="secret-id")

    monkeypatch.setattr(KeyContexts, "open", refuse)
    refused = approvals.decide(change, "approve")
    require_problem(refused, 503, "unavailable")
    assert approvals.state(change) == "failed"
    assert "secret-id: it is missing" in approvals.api.get(f"/changes/{change}").json["problem"]
    assert approvals.api.get(path).json == before


def test_a_refused_operation_fails_the_change(approvals):
    """Its id was taken meanwhile."""
    body = {"id": "taken", "name": "Taken", "allowed_scopes": [MONEY]}
    filed = approvals.api.send("POST", "/clients", json=body)
    approvals.api.new_client(id="taken")
    require_problem(approvals.decide(filed.json["id"], "approve"), 409, "conflict")
    assert approvals.state(filed.json["id"]) == "failed"


def test_a_change_is_rejected_by_another_and_withdrawn_by_its_requester(approvals, client):
    """Not the other way round; the reason is kept."""
    change = request_act(approvals, "scope.grant_money", client)[0].json["id"]
    require_problem(approvals.decide(change, "reject", "caller"), 403, "refused")
    require_problem(approvals.decide(change, "withdraw", "second"), 404, "not-found")
    require_problem(approvals.decide(change, "confirm"), 409, "conflict")
    done = approvals.decide(change, "reject", reason="not agreed")
    assert (done.json["state"], done.json["decision_reason"]) == ("rejected", "not agreed")
    change = request_act(approvals, "scope.grant_money", client)[0].json["id"]
    without = approvals.api.token("clients:write")
    answer = approvals.api.send(
        "POST",
        f"/changes/{change}/withdraw",
        token=without,
        json={},
        headers={"If-Match": "*"},
    )
    assert answer.json["state"] == "withdrawn", answer.text
    require_problem(approvals.decide(change, "approve"), 409, "conflict")
    for state in ("rejected", "withdrawn"):
        (record, *_) = approvals.records(f"action=change.{state}")
        assert record["detail"]["concerns"] == f"client:{client.removeprefix('/clients/')}"


def test_an_approver_that_was_changed_afterwards_is_refused(approvals, client):
    """It may have gained the right for this change."""
    change = request_act(approvals, "scope.grant_money", client)[0].json["id"]
    approvals.api.clock.advance(1)
    changed = approvals.change("PATCH", "/clients/third", {"name": "Third"})
    assert changed.status_code == 200, changed.text
    refused = require_problem(approvals.decide(change, "approve", "third"), 403, "refused")
    assert "another one decides" in refused["detail"]
    assert approvals.decide(change, "approve", "second").status_code == 200


def test_a_change_expires(approvals, client):
    """By the server, or when somebody decides on it; the secret of a change goes too."""
    first = request_act(approvals, "client.add_credential", client)[0].json["id"]
    second = request_act(approvals, "client.add_credential", client)[0].json["id"]
    approvals.api.clock.advance(24 * 3_600)
    approvals.forget_tokens()
    require_problem(approvals.decide(first, "approve"), 409, "conflict")
    assert approvals.state(first) == "expired"
    approvals.api.services.change_duties.expire_changes()
    assert approvals.state(second) == "expired"
    assert {each["subject"] for each in approvals.records("action=change.expired")} >= {
        first,
        second,
    }
