"""Clients by the admin API."""

from support.admin_site import require_problem


def test_a_client_is_registered_shown_changed_and_deleted(site):
    """The secret is shown once; each answer has the tag of the item."""
    made = site.send(
        "POST",
        "/clients",
        json={"id": "district/7", "name": "District 7", "allowed_scopes": ["mapper.link"]},
    )
    assert made.status_code == 201, made.text
    assert made.headers["Location"] == "/admin/v1/clients/district%2F7"
    assert made.json["secret"]["value"]
    assert made.json["allowed_scopes"] == ["mapper/link"]
    assert made.json["diff"]["name"] == {"before": None, "after": "District 7"}
    shown = site.get("/clients/district%2F7")
    assert shown.status_code == 200
    assert made.json["secret"]["value"] not in shown.text
    assert shown.headers["ETag"] == made.headers["ETag"]
    changed = site.change("PATCH", "/clients/district%2F7", {"name": "District Seven"})
    assert changed.status_code == 200, changed.text
    assert changed.json["name"] == "District Seven"
    assert changed.json["diff"] == {"name": {"before": "District 7", "after": "District Seven"}}
    assert changed.headers["ETag"] == site.get("/clients/district%2F7").headers["ETag"]
    gone = site.change("DELETE", "/clients/district%2F7")
    assert gone.status_code == 200
    require_problem(site.get("/clients/district%2F7"), 404, "not-found")
    actors = {each["actor"] for each in site.get("/audit?subject=district/7").json["items"]}
    assert actors == {"client:caller via api"}


def test_a_caller_gives_no_scope_that_it_does_not_have(site):
    """Neither to a new client nor to another, nor by a secret of a client with more scopes."""
    token = site.token("clients:write", "secrets:write")
    new = {"name": "Deputy", "allowed_scopes": ["clients:write", "keys:revoke"]}
    answer = site.send("POST", "/clients", json=new, token=token)
    assert "keys:revoke" in require_problem(answer, 403, "refused")["detail"]
    fewer = {**new, "allowed_scopes": ["clients:write"]}
    made = site.send("POST", "/clients", json=fewer, token=token)
    assert made.status_code == 201
    path, anything = f"/clients/{made.json['id']}", {"If-Match": "*"}
    answer = site.send(
        "PATCH", path, json={"allowed_scopes": ["audit:read"]}, token=token, headers=anything
    )
    require_problem(answer, 403, "refused")
    for method, path, body in (
        ("PATCH", "/clients/caller", {"name": "Mine"}),
        ("POST", "/clients/caller/disable", {}),
        ("DELETE", "/clients/caller", None),
        ("POST", "/clients/caller/secrets", {}),
        ("POST", "/clients/caller/secrets/rotate", {"end_old_when_unused_seconds": 86_400}),
    ):
        options = {} if body is None else {"json": body}
        answer = site.send(method, path, token=token, headers=anything, **options)
        require_problem(answer, 403, "refused")
    assert site.get("/clients/caller").json["name"] == "caller"
