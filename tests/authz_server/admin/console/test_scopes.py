"""The page of a scope: its facts, who may ask for it, and the acts on it."""

import re
from secrets import token_hex
from urllib.parse import quote

import pytest

from authz_server.operations.permissions import ROLES, Limits


@pytest.fixture
def scope(console) -> str:
    """A new scope of the API mapper."""
    name = f"land-{token_hex(3)}/read"
    body = {"name": name, "resource_server": "mapper", "aliases": [name.replace("/", ".")]}
    made = console.site.send("POST", "/scopes", json={**body, "lifetime_cap_seconds": 600})
    assert made.status_code == 201, made.text
    return name


def _stored(console, name: str) -> dict:
    return console.site.get(f"/scopes/{quote(name, safe='')}").json


def _owner(console, *ids: str):
    limits = Limits(resource_servers=frozenset(ids))
    return console.operator(*ROLES["api-owner"].permissions, limits=limits)


def test_the_page_of_a_scope_has_its_facts_and_its_clients(console, scope):
    """The page of its API links to it, and it to the clients; their number is no limit."""
    client = console.site.new_client("Surveyor", allowed_scopes=[scope])["id"]
    assert f'href="/apis/scope?name={quote(scope, safe="")}"' in console.page("/apis/api?id=mapper")
    page = console.page(f"/apis/scope?name={scope}")
    for text in (scope, scope.replace("/", "."), "600", f"/clients/client?id={client}"):
        assert text in page
    assert "Scope added" in page
    assert console.get("/apis/scope?name=absent/read").status_code == 404


def test_the_owner_of_an_api_changes_its_scope(console, scope):
    """The form shows what stands, the plan what would change."""
    path = f"/act/scope-edit?scope={scope}"
    with console.acting_as(_owner(console, "mapper")):
        assert f'href="/act/scope-edit?scope={quote(scope, safe="")}"' in console.page(
            f"/apis/scope?name={scope}"
        )
        form = console.page(path)
        assert '<option value="write" selected>' in form
        assert 'value="600"' in form
        entered = "&description=Parcels&risk=read&lifetime_cap_seconds=&aliases=&callback_partner="
        planned = console.page(path + entered)
        assert "<ins><bdi>Parcels</bdi></ins>" in planned
        assert _stored(console, scope)["risk"] == "write"
        done = console.send_form(planned)
        assert "done=scope-edit" in done.headers["Location"]
        assert "The scope is changed." in console.page(done.headers["Location"])
    changed = _stored(console, scope)
    assert (changed["description"], changed["risk"]) == ("Parcels", "read")
    assert (changed["lifetime_cap_seconds"], changed["aliases"]) == (None, [])


def test_a_scope_is_deleted_unless_a_client_may_ask_for_it(console, scope):
    """The refusal names the client."""
    client = console.site.new_client(allowed_scopes=[scope])["id"]
    refused = console.get(f"/act/scope-delete?scope={scope}")
    assert refused.status_code == 409
    assert client in refused.text
    assert console.site.change("DELETE", f"/clients/{client}").status_code == 200
    done = console.confirm(f"/act/scope-delete?scope={scope}")
    assert done.headers["Location"] == "/apis?done=scope-delete"
    assert console.get(f"/apis/scope?name={scope}").status_code == 404


def test_the_tokens_of_a_scope_are_revoked_with_a_reason(console, scope):
    """By those who revoke tokens."""
    path = f"/act/scope-revoke?scope={scope}"
    answer = console.confirm(path)
    assert "Enter a reason." in answer.text
    answer = console.confirm(path, reason="INC-3")
    assert answer.status_code == 303
    (record, *_) = console.site.get(f"/audit?subject=scope:{quote(scope)}").json["items"]
    assert record["action"] == "cut_off.recorded"


@pytest.mark.parametrize(
    ("permissions", "acts"),
    [
        ((), []),
        (("scopes:write",), ["scope-edit", "scope-assign", "scope-delete"]),
        (("tokens:revoke",), ["scope-revoke", "stop-set"]),
    ],
    ids=str,
)
def test_the_acts_on_a_scope_are_shown_to_those_who_may_do_them(console, scope, permissions, acts):
    with console.acting_as(console.operator("scopes:read", *permissions)):
        assert re.findall(r'"/act/([\w-]+)\?', console.page(f"/apis/scope?name={scope}")) == acts


def test_the_owner_of_another_api_changes_nothing(console, scope):
    """Neither on the page nor by its address."""
    made = console.site.send(
        "POST",
        "/resource-servers",
        json={"id": f"of-{token_hex(3)}", "name": "X", "identifier": f"urn:test:{token_hex(6)}"},
    )
    with console.acting_as(_owner(console, made.json["id"])):
        assert console.get(f"/apis/scope?name={scope}").status_code == 404
        for act in ("scope-edit", "scope-delete", "scope-assign"):
            assert console.get(f"/act/{act}?scope={scope}&risk=read").status_code == 404


def test_the_scopes_of_g2p_connect_are_imported(console):
    """Offered to those who write scopes without limits; repeated, it changes nothing."""
    assert 'href="/act/scope-import"' in console.page("/apis")
    with console.acting_as(_owner(console, "mapper")):
        assert "/act/scope-import" not in console.page("/apis")
    done = console.confirm("/act/scope-import")
    assert done.headers["Location"] == "/apis?done=scope-import"


def test_a_plan_names_a_risk_as_the_page_does(console, scope):
    """In the language of the page."""
    page = console.page(f"/act/scope-edit?scope={scope}&risk=money&lang=fr")
    assert "<del><bdi>écriture</bdi></del>" in page
    assert "<ins><bdi>argent</bdi></ins>" in page
