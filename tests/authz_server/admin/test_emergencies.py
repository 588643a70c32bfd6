"""Acts that do not wait for a second person: emergencies, break_glass, and the default."""

import pytest

from authz_server.serving.client_metrics import sample_clients
from support.admin_site import require_problem
from support.approval_site import (
    MONEY,
    ApprovalSite,
    find_standby,
    request_act,
    running_approval_site,
)


@pytest.fixture
def client(approvals: ApprovalSite) -> str:
    """The path of a new client with a secret."""
    return f"/clients/{approvals.api.new_client()['id']}"


def test_an_emergency_is_done_at_once_and_confirmed_afterwards(approvals, client, caplog):
    """A revocation, a stop and a revoked key; until then a metric, a warning and the list."""
    api = approvals.api
    subject = client.removeprefix("/clients/")
    key = next(each for each in api.get("/rings/es256/keys").json["items"] if each["signs"])
    path = f"/rings/es256/keys/{key['kid']}"
    assert find_standby(approvals)
    revoked = approvals.change("POST", f"{path}/revoke", {"reason": "leaked"}, path)
    api.public.extensions["authz_server"].key_rings.refresh()
    approvals.forget_tokens()
    answers = [
        revoked,
        api.send("POST", "/revocations", json={"client": subject, "reason": "leaked"}),
        api.send("POST", "/stops", json={"kind": "client", "subject": subject, "reason": "INC"}),
        approvals.change("POST", f"{client}/disable", {"revoke_tokens": True}, client),
    ]
    acts = []
    for answer in answers:
        assert answer.status_code in {200, 201}, answer.text
        approval = answer.json["approval"]
        assert approval["state"] == "unconfirmed"
        acts += approval["acts"]
        (change,) = approval["changes"]
        stored = api.get(f"/changes/{change}").json
        assert (stored["kind"], stored["state"]) == ("emergency", "unconfirmed")
        assert _sampled(approvals, "authz_server_unconfirmed_emergencies") > 0
        require_problem(approvals.decide(change, "approve"), 409, "conflict")
        require_problem(approvals.decide(change, "confirm", "caller"), 403, "refused")
        with caplog.at_level("WARNING"):
            api.services.change_duties.warn_of_unconfirmed()
        assert change in caplog.text
        confirmed = approvals.decide(change, "confirm", reason="it was right")
        assert (confirmed.status_code, confirmed.json["state"]) == (200, "confirmed")
    assert acts == ["key.revoke", "token.revoke", "stop.set", "token.revoke"]
    assert api.get(path).json["state"] == "revoked"
    (record, *_) = approvals.records("action=change.confirmed")
    assert record["actor"] == "client:second via api"


def _sampled(approvals: ApprovalSite, name: str) -> float:
    services = approvals.api.services
    samples = sample_clients(services.database, services.clock())
    return next(each.value for each in samples if each.family.name == name)


def test_the_warning_of_an_unconfirmed_act_is_repeated(approvals, client, caplog):
    """Every ten minutes, once over all nodes."""
    approvals.api.send("POST", "/revocations", json={"client": client.removeprefix("/clients/")})
    duties = approvals.api.services.change_duties
    counts = []
    for seconds in (0, 1, 601):
        approvals.api.clock.advance(seconds)
        caplog.clear()
        duties.warn_of_unconfirmed()
        counts.append("is not confirmed" in caplog.text)
    assert counts == [True, False, True]


def test_break_glass_does_an_act_at_once_with_a_reason(approvals, client):
    """It is recorded, and needs a confirmation."""
    body = {"allowed_scopes": ["mapper/link", MONEY]}
    silent = approvals.change("PATCH", f"{client}?break_glass=true", body, client)
    assert require_problem(silent, 422, "invalid-value")["field"] == "reason"
    query = "?break_glass=true&reason=payday"
    done = approvals.change("PATCH", f"{client}{query}", body, client)
    assert done.status_code == 200, done.text
    assert done.json["approval"]["acts"] == ["scope.grant_money"]
    (change,) = done.json["approval"]["changes"]
    assert MONEY in approvals.api.get(client).json["allowed_scopes"]
    stored = approvals.api.get(f"/changes/{change}").json
    assert (stored["kind"], stored["reason"]) == ("break_glass", "payday")
    (record, *_) = approvals.records("action=change.carried_out")
    assert (record["subject"], record["detail"]["reason"]) == (change, "payday")
    assert approvals.decide(change, "confirm").status_code == 200


def test_a_key_of_what_waits_is_not_that_of_what_is_done_at_once(approvals):
    """Otherwise an emergency would be answered with a change that still waits."""
    body = {"id": "urgent", "name": "Urgent", "allowed_scopes": [MONEY]}
    headers = {"Idempotency-Key": "urgent"}
    waiting = approvals.api.send("POST", "/clients", json=body, headers=headers)
    assert waiting.status_code == 202, waiting.text
    glass = "/clients?break_glass=true&reason=now"
    refused = approvals.api.send("POST", glass, json=body, headers=headers)
    require_problem(refused, 422, "idempotency-key-reused")
    headers = {"Idempotency-Key": "at once"}
    done = approvals.api.send("POST", glass, json=body, headers=headers)
    assert done.status_code == 201, done.text
    assert approvals.api.send("POST", glass, json=body, headers=headers).status_code == 200


def test_settled_changes_are_deleted_after_their_retention(approvals, client):
    """Those that wait are kept."""
    settled = request_act(approvals, "scope.grant_money", client)[0].json["id"]
    approvals.decide(settled, "reject")
    unconfirmed = approvals.api.send("POST", "/revocations", json={"jti": "kept"})
    (kept,) = unconfirmed.json["approval"]["changes"]
    approvals.api.clock.advance(401 * 86_400)
    approvals.forget_tokens()
    approvals.api.services.purge.run()
    require_problem(approvals.api.get(f"/changes/{settled}"), 404, "not-found")
    assert approvals.state(kept) == "unconfirmed"


def test_without_the_setting_nothing_needs_a_second_person(database_url, tmp_path):
    """The default; break_glass can be off."""
    settings = {"acts": ["stop.lift"], "break_glass": False}
    with running_approval_site(tmp_path, database_url, settings) as approvals:
        body = {"name": "Payer", "allowed_scopes": [MONEY]}
        made = approvals.api.send("POST", "/clients", json=body)
        assert made.status_code == 201, made.text
        assert approvals.api.get("/changes").json["items"] == []
        assert _sampled(approvals, "authz_server_pending_changes") == 0
        path = f"/clients/{made.json['id']}"
        broken = approvals.change("PATCH", f"{path}?break_glass=true&reason=x", {}, path)
        require_problem(broken, 403, "refused")
