"""The screen of operators: who administers, with which roles, limits and passkeys."""

import html
import re
from urllib.parse import urlencode

import pytest

from authz_server.admin.console.act_bodies import read_roles, write_roles
from authz_server.operations.permissions import Limits
from support.operators import add_passkey

LISTS = ("resource_servers", "organisations")


def _operator(console, name: str) -> dict:
    return console.site.get(f"/operators/{name}").json


def test_an_operator_is_invited_changed_disabled_and_deleted(console):
    """The link is shown once; each step is planned, confirmed and recorded."""
    plan = console.page("/act/operator-create?name=ines&roles=approver")
    assert console.site.get("/operators/ines").status_code == 404
    created = console.send_form(plan)
    assert created.status_code == 200, created.text
    link = re.search(r'id="value"[^>]*value="([^"]+)"', created.text)
    assert link is not None
    assert link[1].startswith("https://admin.example/enrol")
    assert link[1] not in console.page("/operators/operator?name=ines")
    assert "This form was sent before." in console.send_form(plan).text

    form = console.page("/act/operator-edit?operator=ines")
    assert "approver</textarea>" in form
    roles = "auditor 'organisation=Relief fund'"
    query = urlencode({"operator": "ines", "roles": roles})
    plan = console.page(f"/act/operator-edit?{query}")
    assert console.send_form(plan).status_code == 303
    (role,) = _operator(console, "ines")["roles"]
    assert (role["role"], role["organisations"]) == ("auditor", ["Relief fund"])
    page = console.page("/operators/operator?name=ines")
    assert "Relief fund" in page
    assert "Roles changed" in page
    enrolled = console.confirm("/act/operator-enrol?operator=ines")
    assert "https://admin.example/enrol" in enrolled.text

    assert "/act/operator-log-out?operator=ines" in console.page("/operators/operator?name=ines")
    out = console.confirm("/act/operator-log-out?operator=ines")
    assert out.headers["Location"] == "/operators/operator?name=ines&done=operator-log-out"
    record = console.site.get("/audit?subject=ines&limit=1").json["items"][0]
    assert record["action"] == "operator.sessions_ended"
    assert console.confirm("/act/operator-disable?operator=ines").status_code == 303
    assert _operator(console, "ines")["state"] == "disabled"
    assert console.confirm("/act/operator-enable?operator=ines").status_code == 303
    assert console.confirm("/act/operator-delete?operator=ines").status_code == 303
    assert console.site.get("/operators/ines").status_code == 404


def test_the_passkey_of_a_lost_device_is_removed(console):
    """The others stay."""
    console.site.send("POST", "/operators", json={"name": "joao"})
    for name in ("Telephone", "Key ring"):
        add_passkey(console.site.services, "joao", name)
    page = console.page("/operators/operator?name=joao")
    found = re.search(
        r'href="(/act/passkey-remove\?[^"]+)">Remove<span class="unseen"> <bdi>Tel', page
    )
    assert found is not None
    done = console.confirm(html.unescape(found[1]))
    assert done.status_code == 303, done.text
    left = console.site.get("/operators/joao/passkeys").json["items"]
    assert [each["name"] for each in left] == ["Key ring"]
    assert console.get(html.unescape(found[1])).status_code == 404


def test_only_those_with_the_right_see_operators(console):
    """The screen concerns the whole server; who may not change operators has no link to do so."""
    with console.acting_as(console.operator("operators:read")):
        assert 'href="/operators"' in console.page("/")
        for path in ("/operators", "/operators/operator?name=grace"):
            assert "/act/" not in console.page(path)
    limited = console.operator(limits=Limits(organisations=frozenset({"Ministry"})))
    for caller in (console.operator("keys:read"), limited):
        with console.acting_as(caller):
            assert 'href="/operators"' not in console.page("/")
            for path in ("/operators", "/operators/operator?name=grace"):
                answer = console.get(path)
                assert answer.status_code == 403
                assert "grace" not in answer.text.replace("name=grace", "")
            assert console.get("/act/operator-disable?operator=grace").status_code in {403, 404}


@pytest.mark.parametrize(
    ("text", "roles"),
    [
        ("", []),
        ("auditor\n\n approver ", [("auditor", [], []), ("approver", [], [])]),
        (
            "api-owner resource_server=a resource_server='b c' organisation=T",
            [("api-owner", ["a", "b c"], ["T"])],
        ),
        ("auditor limit=x", [("auditor limit=x", [], [])]),
        ("'", [("'", [], [])]),
    ],
)
def test_roles_are_read_from_lines(text, roles):
    """Any other line becomes the name of a role, which the API refuses."""
    read = [{"resource_servers": [], "organisations": [], **each} for each in read_roles(text)]
    assert [tuple(each[name] for name in ("role", *LISTS)) for each in read] == roles


def test_roles_are_written_as_they_are_read():
    """So that a form shows the present roles, and keeps them."""
    roles = [
        {"role": "api-owner", "resource_servers": ["a", "b c"], "organisations": ["T's"]},
        {"role": "auditor", "resource_servers": [], "organisations": []},
    ]
    assert read_roles(write_roles(roles)) == roles
