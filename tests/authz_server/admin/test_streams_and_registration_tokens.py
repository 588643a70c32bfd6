"""Event streams and initial access tokens over the API."""

import pytest

from authz_server.tokens.event_streams.models import UndeliveredEvent
from support.admin_site import require_problem

PATH = "/event-streams/mapper"
NEW = {"resource_server": "mapper", "delivery": "poll", "events": ["stopped"]}
UNTIL = "2040-01-01T00:00:00Z"


@pytest.fixture(scope="module")
def mapper(site) -> None:
    """A resource server."""
    body = {"id": "mapper", "name": "Mapper", "identifier": "https://mapper.example"}
    assert site.send("POST", "/resource-servers", json=body).status_code == 201


@pytest.mark.usefixtures("mapper")
def test_an_event_stream_is_begun_changed_and_deleted(site):
    """With its tag, a dry run, a repetition, and the diff in the records."""
    require_problem(site.get(PATH), 404, "not-found")
    assert site.send("POST", "/event-streams?dry_run=true", json=NEW).status_code == 200
    require_problem(site.get(PATH), 404, "not-found")
    headers = {"Idempotency-Key": "stream"}
    made = site.send("POST", "/event-streams", json=NEW, headers=headers)
    assert made.status_code == 201, made.text
    assert made.headers["Location"] == f"/admin/v1{PATH}"
    assert made.headers["ETag"] == site.get(PATH).headers["ETag"]
    assert site.send("POST", "/event-streams", json=NEW, headers=headers).status_code == 200
    require_problem(site.send("POST", "/event-streams", json=NEW), 409, "conflict")
    unknown = {**NEW, "resource_server": "nothing"}
    require_problem(site.send("POST", "/event-streams", json=unknown), 404, "not-found")
    assert [each["resource_server_id"] for each in site.get("/event-streams").json["items"]] == [
        "mapper"
    ]
    change = {"delivery": "push", "endpoint_url": "https://mapper.example/events"}
    require_problem(site.send("PATCH", PATH, json=change), 428, "precondition-required")
    changed = site.change("PATCH", PATH, change)
    assert changed.status_code == 200, changed.text
    assert (changed.json["delivery"], changed.json["events"]) == ("push", ["stopped"])
    assert changed.json["diff"]["delivery"] == {"before": "poll", "after": "push"}
    stale = {"If-Match": made.headers["ETag"]}
    require_problem(site.send("PATCH", PATH, json={}, headers=stale), 412, "precondition-failed")
    polled = site.change("PATCH", PATH, {"delivery": "poll", "events": []})
    assert (polled.json["endpoint_url"], polled.json["events"]) == ("", [])
    (record, *_) = site.get("/audit?subject=mapper&action=event_stream.set").json["items"]
    assert record["detail"]["diff"]["delivery"] == {"before": "push", "after": "poll"}
    assert record["actor"] == "client:caller via api"
    assert site.change("DELETE", PATH).status_code == 200
    require_problem(site.get(PATH), 404, "not-found")


@pytest.mark.usefixtures("mapper")
@pytest.mark.parametrize(
    "body",
    [
        {"delivery": "push"},
        {"delivery": "poll", "endpoint_url": "https://mapper.example/events"},
        {"delivery": "push", "endpoint_url": "ftp://mapper.example/events"},
        {"delivery": "push", "endpoint_url": "https://mapper.example/" + "a" * 2_048},
        {"delivery": "poll", "events": ["nothing"]},
        {"delivery": "carrier pigeon"},
    ],
    ids=str,
)
def test_a_malformed_event_stream_is_refused(site, body):
    answer = site.send("POST", "/event-streams", json={"resource_server": "mapper", **body})
    require_problem(answer, 422, "invalid-value")


@pytest.mark.usefixtures("mapper")
def test_undelivered_events_are_listed_and_delivered_again(site):
    """They are pending afterwards; the tag stays, since the stream has not been changed."""
    assert site.send("POST", "/event-streams", json=NEW).status_code == 201
    tag = site.get(PATH).headers["ETag"]
    with site.services.transaction() as session:
        for number in (1, 2):
            session.add(
                UndeliveredEvent(
                    resource_server_id="mapper",
                    record_id=number,
                    event="stopped",
                    subject=f"client:{number}",
                    error="401",
                    at=site.clock(),
                )
            )
    first = site.get(f"{PATH}/undelivered?limit=1").json
    second = site.get(f"{PATH}/undelivered?cursor={first['next']}").json
    found = [each["subject"] for each in first["items"] + second["items"]]
    assert found == ["client:1", "client:2"]
    answer = site.change("POST", f"{PATH}/retry", {}, item=PATH)
    assert answer.status_code == 200, answer.text
    assert (answer.json["undelivered"], answer.json["pending"]) == (0, 2)
    assert site.get(PATH).headers["ETag"] == tag
    site.change("DELETE", PATH)


def test_an_initial_access_token_is_shown_once_and_ends(site):
    """Its value registers a client, and is in no other answer and no record."""
    body = {"expires_at": UNTIL, "scopes": ["mapper/*"], "uses": 2, "description": "partner"}
    planned = site.send("POST", "/registration-tokens?dry_run=true", json=body)
    assert "value" not in planned.json
    headers = {"Idempotency-Key": "token"}
    made = site.send("POST", "/registration-tokens", json=body, headers=headers)
    assert made.status_code == 201, made.text
    value, path = made.json["value"], f"/registration-tokens/{made.json['id']}"
    again = site.send("POST", "/registration-tokens", json=body, headers=headers)
    assert (again.status_code, again.json["id"]) == (200, made.json["id"])
    assert "value" not in again.json
    listed = site.get("/registration-tokens").text + site.get(path).text
    assert value not in listed + site.get(f"/audit?subject={made.json['id']}").text
    assert "mapper/link" in made.json["scopes"]
    tag = site.get(path).headers["ETag"]
    assert _spend(site, value) == tuple(made.json["scopes"])
    assert site.get(path).headers["ETag"] == tag
    ended = site.change("DELETE", path)
    assert ended.status_code == 200, ended.text
    assert ended.json["works"] is False
    assert ended.json["diff"]["ends_at"]
    assert _spend(site, value) is None
    for wrong in ({"uses": 0}, {"uses": 10_001}, {"scopes": ["nothing"]}, {"expires_at": "x"}):
        answer = site.send("POST", "/registration-tokens", json={**body, **wrong})
        require_problem(answer, 422, "invalid-value")
    past = {**body, "expires_at": "2000-01-01T00:00:00Z"}
    require_problem(site.send("POST", "/registration-tokens", json=past), 422, "invalid-value")


def _spend(site, value: str) -> tuple[str, ...] | None:
    with site.services.transaction() as session:
        grantor = site.services.initial_tokens.spend(session, value)
    return None if grantor is None else grantor.scopes


def test_a_caller_gives_no_administrative_scope_that_it_lacks(site):
    """A client that registers itself has no limits."""
    body = {"expires_at": UNTIL, "scopes": ["keys:revoke"]}
    token = site.token("clients:write", "clients:read")
    answer = site.send("POST", "/registration-tokens", json=body, token=token)
    require_problem(answer, 403, "refused")
    assert site.send("POST", "/registration-tokens", json=body).status_code == 201
