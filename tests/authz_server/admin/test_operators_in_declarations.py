"""Operators and programmes in files that others than the server's machine apply."""

from dataclasses import replace

import pytest

from authz_server.operations.permissions import Limits
from support.admin_site import require_problem
from support.administrators import Administration

PATH = "/declaration"
OFFICER = 'roles = ["security-officer"]\n'
ADA, BOB = f"[operators.ada]\n{OFFICER}", f"[operators.bob]\n{OFFICER}"


def body_of(text: str, **members) -> dict:
    return {"files": [{"name": "a.toml", "text": text}], **members}


@pytest.fixture(scope="module")
def desk(site) -> Administration:
    """Two security officers, who act by the console, and a programme."""
    site.new_client(id="payer")
    text = f'{ADA}{BOB}[programmes.cash]\nclients = ["payer"]\n'
    made = site.send("POST", PATH, json=body_of(text))
    assert made.status_code == 200, made.text
    assert [(each["act"], each["id"]) for each in made.json["changes"]] == [
        ("add", "cash"),
        ("add", "ada"),
        ("add", "bob"),
    ]
    return Administration(site, {})


def apply(desk, caller, text, **members):
    return desk.perform(caller, "POST", PATH, body=body_of(text, **members))


def test_nobody_changes_disables_or_removes_herself(desk, site):
    """By a file as by the single acts, though there is another security officer."""
    own_id = site.get("/operators/ada").json["id"]
    ada = replace(desk.caller("security-officer", name="ada"), operator_id=own_id)
    for text, members, act in (
        ("[operators.ada]\n", {}, "changes your roles"),
        (f"[operators.ada]\nenabled = false\n{OFFICER}", {}, "disables you"),
        (BOB, {"prune": True}, "deletes you"),
        ("[operators]\n", {"prune": True}, "deletes you"),
    ):
        refused = apply(desk, ada, text, **members)
        assert refused.status == 403, refused.body
        assert refused.body["detail"].endswith(f'operators."ada": Another operator {act}.')
    for method, path, body, act in (
        ("PATCH", "", {"roles": []}, "changes your roles"),
        ("POST", "/disable", {}, "disables you"),
        ("DELETE", "", None, "deletes you"),
    ):
        refused = desk.perform(ada, method, f"/operators/ada{path}", body=body, if_match="*")
        assert (refused.status, refused.body["detail"]) == (403, f"Another operator {act}.")
    assert site.get("/operators/ada").json["roles"][0]["role"] == "security-officer"
    assert site.get("/operators/ada").json["state"] == "enabled"


def test_a_section_needs_its_permission_without_limits(desk, site):
    """And a log-in of the last minutes, as the single acts do."""
    limited = desk.caller("client-manager", limits=Limits(organisations=frozenset({"Own"})))
    assert apply(desk, limited, ADA).status == 403
    old = desk.caller("security-officer", name="eve", logged_in_seconds_ago=600)
    refused = apply(desk, old, ADA)
    assert (refused.status, refused.body["type"].rpartition(":")[2]) == (
        401,
        "insufficient-user-authentication",
    )
    token = site.token("clients:write", "scopes:write")
    require_problem(
        site.send("POST", PATH, json=body_of(ADA), token=token), 403, "insufficient-scope"
    )
    changed = '[programmes.cash]\nscopes = ["mapper/link"]\n'
    planned = site.send("POST", f"{PATH}?dry_run=true", json=body_of(changed), token=token)
    assert planned.json["diff"]["programme cash"]["after"] == {
        "scopes": ["mapper/link"],
        "clients": [],
    }
    alone = site.token("operators:write")
    more = site.send("POST", PATH, json=body_of(f"[operators.eve]\n{OFFICER}"), token=alone)
    require_problem(more, 403, "refused")
    assert "permit what the caller may not do" in more.json["detail"]
    require_problem(site.get("/operators/eve"), 404, "not-found")
    off, on = (f"[operators.eve]\nenabled = {each}\n{OFFICER}" for each in ("false", "true"))
    assert site.send("POST", PATH, json=body_of(off)).status_code == 200
    require_problem(site.send("POST", PATH, json=body_of(on), token=alone), 403, "refused")
    assert site.get("/operators/eve").json["state"] == "disabled"


def test_an_export_has_operators_where_they_are_asked_for(site, desk):
    reading = ("clients:read", "resource-servers:read", "scopes:read")
    token = site.token(*reading)
    text = site.get(PATH, token=token).json["text"]
    assert "[programmes.cash]" in text
    assert "[operators" not in text
    asked = site.get(f"{PATH}?operators=true", token=token)
    require_problem(asked, 403, "insufficient-scope")
    full = site.get(f"{PATH}?operators=true", token=site.token(*reading, "operators:read"))
    assert ADA in full.json["text"]
    limited = desk.caller("auditor", limits=Limits(organisations=frozenset({"Own"})))
    seen = desk.perform(limited, "GET", PATH)
    assert (seen.status, "programmes" in seen.body["text"]) == (200, False)
    refused = desk.perform(limited, "GET", PATH, query={"operators": "true"})
    assert refused.status == 403
