"""Rules of every change and list: conditions, dry runs, repetitions, cursors, bodies."""

import json
import threading

import pytest
from sqlalchemy import func, select

from authz_server.admin.tags import tag_of
from authz_server.database.idempotency import IdempotentCreation
from support.admin_site import require_problem

NEW = {"name": "A client", "allowed_scopes": ["mapper/link"]}


@pytest.fixture
def client_path(site) -> str:
    """The path of a new client."""
    return f"/clients/{site.new_client()['id']}"


def _tag(site, path: str) -> str:
    return site.get(path).headers["ETag"]


def test_a_change_needs_the_tag_of_the_item(site, client_path):
    """428 without a condition, 412 after another change, with the present tag."""
    change = {"name": "Changed"}
    require_problem(site.send("PATCH", client_path, json=change), 428, "precondition-required")
    stale = {"If-Match": _tag(site, client_path)}
    assert site.send("PATCH", client_path, json=change, headers=stale).status_code == 200
    answer = site.send("PATCH", client_path, json={"name": "Again"}, headers=stale)
    require_problem(answer, 412, "precondition-failed")
    assert answer.headers["ETag"] == _tag(site, client_path)
    assert site.get(client_path).json["name"] == "Changed"
    require_problem(
        site.send("PATCH", client_path, json=change, headers={"If-Match": "abc"}),
        412,
        "precondition-failed",
    )


@pytest.mark.parametrize("weakened", ["W/{}", "{}", '"other", {}', "*", "W/{gzip}", "{gzip}"])
def test_a_tag_that_a_proxy_has_changed_matches(site, client_path, weakened):
    """A compressing proxy weakens a tag or appends its coding; * matches every item."""
    tag = _tag(site, client_path)
    condition = weakened.format(tag, gzip=f'{tag[:-1]}-gzip"')
    answer = site.send("POST", f"{client_path}/disable", headers={"If-Match": condition}, json={})
    assert answer.status_code == 200, answer.text


def test_a_secret_changes_the_tag_of_its_client(site, client_path):
    """An editor who has not seen the secret does not overwrite the client."""
    before = _tag(site, client_path)
    assert site.send("POST", f"{client_path}/secrets", json={}).status_code == 201
    assert _tag(site, client_path) != before


def test_a_use_of_a_secret_does_not_change_the_tag():
    """Otherwise a busy client could not be changed."""
    item = {"secrets": [{"id": "a", "last_used_at": 1, "works": True}]}
    used = {"secrets": [{"id": "a", "last_used_at": 2, "works": False}]}
    assert tag_of(item) == tag_of(used)
    assert tag_of(item) != tag_of({"secrets": []})


def test_of_two_editors_one_is_refused(site, client_path):
    """The check and the change are one transaction."""
    tag = _tag(site, client_path)
    statuses: list[int] = []
    start = threading.Barrier(2)

    def edit(name: str) -> None:
        start.wait()
        answer = site.send("PATCH", client_path, json={"name": name}, headers={"If-Match": tag})
        statuses.append(answer.status_code)

    site.token()
    editors = [threading.Thread(target=edit, args=(name,)) for name in ("One", "Two")]
    for each in editors:
        each.start()
    for each in editors:
        each.join()
    assert sorted(statuses) == [200, 412]


def test_a_dry_run_answers_the_same_and_changes_nothing(site, client_path):
    """Body and diff are those of the change; the secret of a creation is not made."""
    headers = {"If-Match": _tag(site, client_path)}
    change = {"organisation": "Ministry"}
    planned = site.send("PATCH", f"{client_path}?dry_run=true", json=change, headers=headers)
    assert planned.status_code == 200
    assert site.get(client_path).json["organisation"] == ""
    done = site.send("PATCH", client_path, json=change, headers=headers)
    assert planned.json["diff"] == done.json["diff"]
    assert planned.json["dry_run"] is True
    assert done.json["dry_run"] is False
    different = {"dry_run", "updated_at"}
    assert {name: each for name, each in planned.json.items() if name not in different} == {
        name: each for name, each in done.json.items() if name not in different
    }
    planned = site.send("POST", "/clients?dry_run=true", json={**NEW, "id": "not-made"})
    assert planned.status_code == 200
    assert "value" not in planned.json["secret"]
    require_problem(site.get("/clients/not-made"), 404, "not-found")
    records = site.get("/audit?subject=not-made").json["items"]
    assert records == []


def test_a_dry_run_is_checked_as_the_change(site, client_path):
    """Its condition, its values and its permission."""
    dry = f"{client_path}?dry_run=true"
    require_problem(site.send("PATCH", dry, json={"name": "X"}), 428, "precondition-required")
    answer = site.send("PATCH", dry, json={"name": ""}, headers={"If-Match": "*"})
    assert require_problem(answer, 422, "invalid-value")["field"] == "name"
    answer = site.send("PATCH", dry, json={}, token=site.token("clients:read"))
    require_problem(answer, 403, "insufficient-scope")


def test_a_repeated_creation_answers_the_same_item(site):
    """Without the secret, and with the way to add one."""
    headers = {"Idempotency-Key": "first-key"}
    first = site.send("POST", "/clients", json=NEW, headers=headers)
    assert first.status_code == 201
    again = site.send("POST", "/clients", json=NEW, headers=headers)
    assert again.status_code == 200
    assert again.json["id"] == first.json["id"]
    assert again.headers["Location"] == first.headers["Location"]
    assert again.json["secret"] is None
    assert f"/clients/{first.json['id']}/secrets" in again.json["secret_hint"]
    other = site.send("POST", "/clients", json={**NEW, "name": "Other"}, headers=headers)
    require_problem(other, 422, "idempotency-key-reused")
    new = site.send("POST", "/clients", json=NEW, headers={"Idempotency-Key": "second-key"})
    assert new.json["id"] != first.json["id"]
    secrets = f"/clients/{first.json['id']}/secrets"
    added = site.send("POST", secrets, json={}, headers=headers)
    repeated = site.send("POST", secrets, json={}, headers=headers)
    assert added.json["value"]
    assert repeated.json["id"] == added.json["id"]
    assert "value" not in repeated.json
    site.clock.advance(86_401)
    site.forget_tokens()
    late = site.send("POST", "/clients", json=NEW, headers=headers)
    assert late.json["id"] != first.json["id"]


def test_expired_keys_of_creations_are_deleted(site):
    """With the other expired rows, by the server."""

    def remembered() -> int:
        with site.services.database.reading() as session:
            return session.scalar(select(func.count()).select_from(IdempotentCreation))

    site.send("POST", "/clients", json=NEW, headers={"Idempotency-Key": "to expire"})
    assert remembered() > 0
    site.clock.advance(86_401)
    site.forget_tokens()
    site.services.purge.run()
    assert remembered() == 0


def test_a_failed_creation_leaves_its_key_unused(site):
    """The caller corrects the request and sends it again."""
    headers = {"Idempotency-Key": "corrected"}
    answer = site.send("POST", "/clients", json={**NEW, "name": ""}, headers=headers)
    require_problem(answer, 422, "invalid-value")
    assert site.send("POST", "/clients", json=NEW, headers=headers).status_code == 201


@pytest.mark.parametrize(
    "path",
    ["/clients", "/resource-servers", "/scopes", "/rings", "/audit", "/audit/search", "/settings"],
)
def test_pages_are_whole_and_in_order(site, path):
    """Every item is on exactly one page; the last page has no cursor."""
    whole = site.get(f"{path}?limit=500").json
    assert whole["next"] is None
    found, cursor = [], ""
    limit = max(1, len(whole["items"]) // 3)
    while cursor is not None:
        page = site.get(f"{path}?limit={limit}{cursor and f'&cursor={cursor}'}").json
        assert 0 < len(page["items"]) <= limit
        found += page["items"]
        cursor = page["next"]
    # The last use of a secret is written later, maybe between two pages.
    first, paged = (
        [each | {"secrets": None} for each in items] for items in (whole["items"], found)
    )
    assert paged == first


def test_a_cursor_is_signed_and_of_one_list(site):
    """Altered, cut, invented, or sent to another list or with other filters: 400. Case H94."""
    site.new_client()
    cursor = site.get("/clients?limit=1").json["next"]
    altered = ("A" if cursor[0] != "A" else "B") + cursor[1:]
    for wrong in (altered, cursor[:-2], cursor + "A", "", "x", "a" * 900, "%F0%9F%98%80"):
        answer = site.get(f"/clients?limit=1&cursor={wrong}")
        require_problem(answer, 400, "invalid-cursor")
    require_problem(site.get(f"/scopes?cursor={cursor}"), 400, "invalid-cursor")
    require_problem(site.get(f"/clients?q=a&cursor={cursor}"), 400, "invalid-cursor")
    assert site.get(f"/clients?limit=2&cursor={cursor}").status_code == 200


@pytest.mark.parametrize(
    "query",
    [
        "limit=0",
        "limit=501",
        "limit=-1",
        "limit=x",
        "limit=1&limit=2",
        "nothing=1",
        "state=broken",
        "q=%00",
        "q=%ff",
        "q=%",
        "&&",
        "q",
        "scope=a&organisation=b&" + "&".join(f"p{n}=1" for n in range(30)),
    ],
)
def test_a_malformed_query_is_refused(site, query):
    """Unknown, repeated, malformed and out of bounds."""
    require_problem(site.get(f"/clients?{query}"), 400, "invalid-request")


@pytest.mark.parametrize(
    "path",
    [
        "/changes?state=null",
        "/audit?since=NULL",
        "/clients?unused_since=null",
        "/reports/owners?limit=Null",
    ],
)
def test_the_text_null_is_no_absent_filter(site, path):
    """The list would be that of another question."""
    require_problem(site.get(path), 400, "invalid-request")


def test_what_is_named_null_is_found(site):
    """An organisation, a resource server, a scope and a client: a text is no absent value."""
    server = {"id": "null", "name": "Null", "identifier": "https://null.example"}
    assert site.send("POST", "/resource-servers", json=server).status_code == 201
    scope = {"name": "null", "description": "Null", "resource_server": "null"}
    assert site.send("POST", "/scopes", json=scope).status_code == 201
    site.new_client(id="Null", organisation="null", allowed_scopes=["null"])
    for filters in ("organisation=null", "resource_server=null", "scope=null", "q=null"):
        found = site.get(f"/clients?{filters}").json["items"]
        assert [each["id"] for each in found] == ["Null"], filters
    owned = site.get("/scopes?resource_server=null").json["items"]
    assert [each["name"] for each in owned] == ["null"]
    assert {each["subject"] for each in site.get("/audit?subject=null").json["items"]} == {"null"}
    assert site.get("/activity?client=Null").json["issued"] == 0
    assert site.get("/audit?client=Null").json["items"]


@pytest.mark.parametrize(
    ("body", "status", "name"),
    [
        (b"", 422, "invalid-value"),
        (b"{", 400, "invalid-request"),
        (b"[]", 400, "invalid-request"),
        (b'"text"', 400, "invalid-request"),
        (b'{"name": "a", "name": "b"}', 400, "invalid-request"),
        (b'{"name": "\xff"}', 400, "invalid-request"),
        (b'{"name": "\\ud800"}', 400, "invalid-request"),
        (b'{"name": "a\\u0000b", "allowed_scopes": []}', 400, "invalid-request"),
        (b'{"name": NaN}', 400, "invalid-request"),
        (b'{"a":' * 50 + b"1" + b"}" * 50, 400, "invalid-request"),
        (json.dumps({**NEW, "surprise": 1}).encode(), 422, "invalid-value"),
        (json.dumps({**NEW, "name": 1}).encode(), 422, "invalid-value"),
        (json.dumps({**NEW, "name": None}).encode(), 422, "invalid-value"),
        (json.dumps({**NEW, "allowed_scopes": "mapper/link"}).encode(), 422, "invalid-value"),
        (json.dumps({**NEW, "allowed_scopes": ["x"] * 10_000}).encode(), 422, "invalid-value"),
        (json.dumps({**NEW, "expires_at": "tomorrow"}).encode(), 422, "invalid-value"),
        (json.dumps({**NEW, "expires_at": "2040-01-01T00:00:00"}).encode(), 422, "invalid-value"),
        (json.dumps({**NEW, "token_lifetime_seconds": 10**30}).encode(), 400, "invalid-request"),
        (json.dumps({**NEW, "token_lifetime_seconds": 10**19}).encode(), 422, "invalid-value"),
        (json.dumps({**NEW, "token_lifetime_seconds": True}).encode(), 422, "invalid-value"),
        (json.dumps({**NEW, "properties": {"nothing": 1}}).encode(), 422, "invalid-value"),
        (json.dumps({**NEW, "id": "../x"}).encode(), 422, "invalid-value"),
        (b'{"name": "' + b"a" * 2_000_000 + b'"}', 413, "body-too-large"),
    ],
    ids=lambda value: repr(value)[:60],
)
def test_a_hostile_body_is_refused(site, body, status, name):
    """Malformed JSON is 400, a value that breaks a rule 422; none is a fault. Case H89."""
    answer = site.send("POST", "/clients", data=body, content_type="application/json")
    require_problem(answer, status, name)


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/clients", {**NEW, "expires_at": "0001-01-01T00:00:00+23:59"}),
        ("/clients", {**NEW, "starts_at": "9999-12-31T23:59:59-23:59"}),
        ("/clients/known/secrets", {"expires_at": "9999-12-31T23:59:59-23:59"}),
        ("/clients/known/secrets/rotate", {"end_old_when_unused_seconds": 10**18}),
        ("/clients/known/secrets/rotate", {"end_old_when_unused_seconds": -1}),
        ("/revocations", {"before": "9999-12-31T23:59:59-23:59"}),
        ("/scopes", {"name": "a/b", "lifetime_cap_seconds": 2**31}),
        ("/scopes", {"name": "a" * 1_000}),
        ("/resource-servers", {"name": "x", "identifier": "https://x.example/" + "a" * 1_000}),
    ],
    ids=lambda value: repr(value)[:60],
)
def test_values_out_of_range_are_refused(site, path, body):
    """No time, number or text reaches what cannot hold it."""
    if site.get("/clients/known").status_code == 404:
        site.new_client(id="known")
    require_problem(site.send("POST", path, json=body), 422, "invalid-value")


def test_a_change_may_be_a_merge_patch(site, client_path):
    """RFC 7396; a refusal of another type names the accepted ones (RFC 5789, 3.1)."""
    kinds = {"application/merge-patch+json": 200, "application/json-patch+json": 415}
    for kind, status in kinds.items():
        sent = {"If-Match": "*", "Content-Type": kind}
        answer = site.send("PATCH", client_path, data=b'{"name": "Merged"}', headers=sent)
        assert answer.status_code == status, answer.text
    assert answer.headers["Accept-Patch"] == "application/json, application/merge-patch+json"
    refused = site.send("POST", "/clients", data=b"{}", content_type="text/plain")
    assert "Accept-Patch" not in refused.headers


def test_a_far_activation_is_refused(site):
    """Nothing can be planned from the last day that there is."""
    key = next(each for each in site.get("/rings/es256/keys").json["items"] if not each["signs"])
    path = f"/rings/es256/keys/{key['kid']}"
    answer = site.change(
        "POST",
        f"{path}/activate",
        {"reason": "late", "at": "9999-12-31T23:59:59Z"},
        item=path,
    )
    problem = require_problem(answer, 409, "conflict")
    assert "more than 3650 days from now" in problem["detail"]
    assert site.get(path).json == key
    assert site.get("/rings/es256/status").status_code == 200


@pytest.mark.parametrize(
    "headers",
    [
        {"Content-Type": "application/x-www-form-urlencoded"},
        {"Content-Type": "text/plain"},
        {"Content-Type": "application/json; charset=latin-1"},
        {"Content-Type": "application/json", "Content-Encoding": "gzip"},
    ],
    ids=str,
)
def test_another_form_of_body_is_refused(site, headers):
    """Only JSON in UTF-8."""
    answer = site.send("POST", "/clients", data=json.dumps(NEW), headers=headers)
    require_problem(answer, 415, "unsupported-media-type")


def test_further_parameters_of_the_form_of_a_body_are_ignored(site):
    """RFC 9110, 5.6.6."""
    headers = {"Content-Type": "application/json; charset=utf-8; x=y;"}
    answer = site.send("POST", "/clients?dry_run=true", data=json.dumps(NEW), headers=headers)
    assert answer.status_code in {200, 201}, answer.text


@pytest.mark.parametrize(
    "name",
    ["<script>alert(1)</script>", "وزارة الشؤون الاجتماعية", "Ünïcode 'quoted\" \\ & %"],
)
def test_names_are_stored_and_answered_unchanged(site, name):
    """Escaping is for those that show a name, by the way in which they show it."""
    made = site.new_client(name)
    shown = site.get(f"/clients/{made['id']}")
    assert shown.json["name"] == name
    assert shown.headers["X-Content-Type-Options"] == "nosniff"
    assert shown.content_type == "application/json"


def test_an_override_of_the_direction_of_text_is_refused(site):
    """It would let a name show as another one."""
    answer = site.send("POST", "/clients", json={**NEW, "name": "good\u202eevil"})
    assert require_problem(answer, 422, "invalid-value")["field"] == "name"
