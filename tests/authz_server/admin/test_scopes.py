"""Single scopes: their facts are changed, and one that nothing names is deleted."""

from secrets import token_hex
from urllib.parse import quote

import pytest

from support.admin_site import require_problem
from support.administrators import BY_ORGANISATION, BY_SERVER


@pytest.fixture(scope="module")
def site(ours):
    """The site of the caller with limits."""
    return ours.site


def _path(name: str) -> str:
    return f"/scopes/{quote(name, safe='')}"


def _new_scope(site, **fields) -> str:
    """Return the name of a new scope."""
    name = f"land-{token_hex(3)}/read"
    made = site.send("POST", "/scopes", json={"name": name, **fields})
    assert made.status_code == 201, made.text
    assert made.headers["ETag"] == site.get(_path(name)).headers["ETag"]
    return name


def test_the_facts_of_a_scope_are_changed(site):
    """Those that are named; the others stay. A dry run answers the same."""
    aliases = [f"z{token_hex(3)}", f"a{token_hex(3)}"]
    name = _new_scope(site, risk="read", aliases=aliases)
    change = {"risk": "money", "lifetime_cap_seconds": 300, "callback_partner": "mapper/link"}
    planned = site.change("PATCH", f"{_path(name)}?dry_run=true", change, item=_path(name))
    assert site.get(_path(name)).json["risk"] == "read"
    done = site.change("PATCH", _path(name), change)
    assert done.status_code == 200, done.text
    assert planned.json["diff"] == done.json["diff"]
    assert done.json["diff"].keys() == change.keys()
    stored = site.get(_path(name))
    assert {each: stored.json[each] for each in change} == change
    assert stored.json["aliases"] == sorted(aliases)
    assert done.headers["ETag"] == stored.headers["ETag"]
    (record, *_) = site.get(f"/audit?subject={quote(name)}").json["items"]
    assert (record["action"], record["detail"]["diff"]) == ("scope.updated", done.json["diff"])
    removed = {"lifetime_cap_seconds": None, "callback_partner": None, "aliases": []}
    assert site.change("PATCH", _path(name), removed).status_code == 200
    assert site.get(_path(name)).json["aliases"] == []


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"risk": "low"}, "risk"),
        ({"lifetime_cap_seconds": 0}, "lifetime_cap_seconds"),
        ({"lifetime_cap_seconds": 2**31}, "lifetime_cap_seconds"),
        ({"description": "a\u202eb"}, "description"),
        ({"callback_partner": "absent/read"}, "callback_partner"),
        ({"resource_server": "mapper"}, "resource_server"),
        ({"name": "other"}, "name"),
    ],
    ids=str,
)
def test_what_breaks_a_rule_is_refused(site, change, field):
    """Also a member that another request changes."""
    name = _new_scope(site)
    before = site.get(_path(name)).json
    problem = require_problem(site.change("PATCH", _path(name), change), 422, "invalid-value")
    assert field in problem.get("field", problem["detail"])
    assert site.get(_path(name)).json == before


def test_a_spelling_is_changed_by_the_name_of_its_scope(site):
    """A request that names it by the spelling that it removes would have no item afterwards."""
    alias, taken = f"land.{token_hex(3)}", f"land.{token_hex(3)}"
    name = _new_scope(site, aliases=[alias])
    _new_scope(site, aliases=[taken])
    refused = site.change("PATCH", _path(alias), {"aliases": []})
    assert name in require_problem(refused, 422, "invalid-value")["detail"]
    refused = site.change("PATCH", _path(name), {"aliases": [taken]})
    require_problem(refused, 409, "conflict")
    assert site.change("PATCH", _path(alias), {"risk": "read"}).status_code == 200
    assert site.change("PATCH", _path(name), {"aliases": []}).status_code == 200
    assert site.get(_path(alias)).status_code == 404


def test_a_scope_that_nothing_names_is_deleted(site):
    """It leaves its programme; its name may be used again."""
    name = _new_scope(site)
    programme = {"name": f"p-{token_hex(3)}", "scopes": [name, "mapper/link"]}
    assert site.send("POST", "/programmes", json=programme).status_code == 200
    planned = site.change("DELETE", f"{_path(name)}?dry_run=true", item=_path(name))
    assert planned.json["diff"]["name"] == {"before": name, "after": None}
    assert site.change("DELETE", _path(name)).status_code == 200
    require_problem(site.get(_path(name)), 404, "not-found")
    assert site.get(f"/programmes/{programme['name']}").json["scopes"] == ["mapper/link"]
    (record, *_) = site.get(f"/audit?subject={quote(name)}").json["items"]
    assert record["action"] == "scope.deleted"
    assert site.send("POST", "/scopes", json={"name": name}).status_code == 201


def test_a_scope_in_use_is_kept(site):
    """Of a client, of a callback, of the admin API, and one that is stopped."""
    of_client, partner, stopped = (_new_scope(site) for _ in range(3))
    client = site.new_client(allowed_scopes=[of_client])["id"]
    caller = _new_scope(site, callback_partner=partner)
    stop = {"kind": "scope", "subject": stopped, "reason": "INC-1"}
    assert site.send("POST", "/stops", json=stop).status_code == 201
    for name, word in (
        (of_client, client),
        (partner, caller),
        ("keys:revoke", "admin API"),
        (stopped, "stop"),
    ):
        refused = require_problem(site.change("DELETE", _path(name)), 409, "conflict")
        assert word in refused["detail"], refused
        assert site.get(_path(name)).status_code == 200


@pytest.mark.parametrize("limits", [BY_SERVER, BY_ORGANISATION], ids=["server", "organisation"])
def test_a_limited_caller_changes_the_scopes_of_its_own_apis(ours, limits):
    """Those of others, and those that belong to none, are neither changed nor deleted."""
    caller = ours.caller("api-owner", "client-manager", limits=limits)
    name = f"mine/{token_hex(3)}"
    body = {"name": name, "resource_server": "mine"}
    assert ours.perform(caller, "POST", "/scopes", body=body).status == 201
    change = {"body": {"risk": "read"}, "if_match": "*"}
    done = ours.perform(caller, "PATCH", _path(name), **change)
    assert (done.status, done.body["risk"]) == (200, "read")
    seen = "lent/read" if limits == BY_ORGANISATION else "alien/read"
    for other, statuses in ((seen, {403, 404}), ("alien/read", {404}), ("mapper/link", {403, 404})):
        nothing = {"body": {}, "if_match": "*"}
        for method, options in (
            ("PATCH", change),
            ("PATCH", nothing),
            ("DELETE", {"if_match": "*"}),
        ):
            done = ours.perform(caller, method, _path(other), **options)
            assert done.status in statuses, (method, other, done.body)
    # A client of others has it: that is all that is said.
    ours.site.new_client("Alien", id=f"alien-{token_hex(3)}", allowed_scopes=[name, "alien/read"])
    kept = ours.perform(caller, "DELETE", _path(name), if_match="*")
    assert kept.status == 409
    assert ("alien" in kept.body["detail"]) == (limits == BY_SERVER)
    unused = f"mine/{token_hex(3)}"
    body = {"name": unused, "resource_server": "mine"}
    assert ours.perform(caller, "POST", "/scopes", body=body).status == 201
    assert ours.perform(caller, "DELETE", _path(unused), if_match="*").status == 200
