"""The screen of declarative files: download, plan, confirmation, and who may."""

import io
import json
import re
from dataclasses import replace

import pytest
from markupsafe import escape

from authz_server.admin.console.pages.files import MAXIMUM_BYTES, MAXIMUM_FILES
from authz_server.operations.permissions import Limits
from support.console_site import COOKIE, CSRF, ConsoleSite, read_form

READS = ("clients:read", "resource-servers:read", "scopes:read")


def of_client(name: str, *scopes: str, **fields: object) -> str:
    members = {"name": name, "allowed_scopes": scopes or ("mapper/link",), **fields}
    lines = (f"{key} = {json.dumps(value)}" for key, value in members.items())
    return "\n".join((f"[clients.{name}]", *lines, ""))


def plan(console: ConsoleSite, text: str, *, name: str = "", **fields: object):
    """Send the first form: with an uploaded file of this name, or with a pasted text."""
    given: dict[str, object] = {"csrf_token": CSRF, **fields}
    given |= {"file": (io.BytesIO(text.encode()), name)} if name else {"text": text}
    return console.client.post("/files", data=given, headers={"Cookie": f"session={COOKIE}"})


def confirm(console: ConsoleSite, page: str, **fields: str):
    """Send the form of a plan as a browser does, which ends lines with CR and LF."""
    action, given = read_form(page)
    sent = {name: value.replace("\n", "\r\n") for name, value in given.items()}
    return console.post(action, {**sent, **fields})


def test_a_download_is_planned_and_changes_nothing(console):
    """In both formats: the export of the API, as a file."""
    for form, kind in (("toml", "application/toml"), ("json", "application/json")):
        answer = console.get(f"/files/export?format={form}")
        assert answer.status_code == 200
        assert answer.content_type == f"{kind}; charset=utf-8"
        assert answer.headers["Content-Disposition"].startswith(
            'attachment; filename="registrations-'
        )
        planned = plan(console, answer.text, name=f"all.{form}", prune="yes")
        assert "there is nothing to change" in planned.text, planned.text
    assert "treasury" in answer.text
    assert console.get("/files/export?format=yaml").status_code == 404


@pytest.mark.parametrize("name", ["", "new.toml"], ids=["pasted", "uploaded"])
def test_a_plan_changes_nothing_and_its_confirmation_does(console, name):
    """Each entry with its values; the secret is shown once, and the record names the operator."""
    client = f"filed-{name[:3]}"
    text = of_client(client, "mapper/link", "disburse", authentication_method="client_secret_post")
    planned = plan(console, text, name=name, generate="yes")
    assert planned.status_code == 200, planned.text
    assert "This is a dry run" in planned.text
    assert "1 to add, 0 to change, 0 to remove." in planned.text
    assert "a secret is generated" in planned.text
    assert console.site.get(f"/clients/{client}").status_code == 404
    applied = confirm(console, planned.text)
    assert applied.status_code == 200, applied.text
    assert "The files are applied." in applied.text
    secret = re.search(r'id="secret-1"[^>]*value="([^"]+)"', applied.text)
    assert secret is not None
    again = confirm(console, planned.text)
    assert "cannot be read again" in again.text
    assert secret[1] not in again.text
    assert len(console.site.get(f"/clients/{client}").json["secrets"]) == 1
    record = console.site.get(f"/audit?subject={client}&limit=1").json["items"][0]
    assert record["actor"] == "operator:ada via console"
    changed = plan(console, text.replace('"disburse"', '"mapper/unlink"'), name=name)
    assert "<del" in changed.text
    assert "0 to add, 1 to change, 0 to remove." in changed.text
    console.site.change("DELETE", f"/clients/{client}")


def test_a_plan_that_does_not_hold_any_more_is_shown_again(console):
    """An application does exactly what its plan showed, or nothing."""
    planned = plan(console, of_client("late"))
    console.site.new_client(id="late")
    refused = confirm(console, planned.text)
    assert refused.status_code == 409
    assert "have changed since the plan" in refused.text
    assert "0 to add, 1 to change, 0 to remove." in refused.text
    console.site.change("DELETE", "/clients/late")


@pytest.mark.parametrize(
    ("fields", "status", "words"),
    [
        ({"text": ""}, 422, "Choose a file, or paste its text."),
        ({"text": "é" * (MAXIMUM_BYTES // 2) + "x"}, 422, "more than 400 kB"),
        ({"file": ("é".encode() * (MAXIMUM_BYTES // 2 + 1), "a")}, 422, "more than 400 kB"),
        ({"file": [(b"#", f"{n}.toml") for n in range(MAXIMUM_FILES + 1)]}, 422, "at most 20"),
        ({f"name-{n}": "a.toml" for n in range(MAXIMUM_FILES + 1)}, 422, "at most 20"),
        ({"file": (b"\xff\xfe\x00", "odd.toml")}, 422, "not UTF-8"),
        ({"text": "[clients"}, 422, "it is not TOML"),
        ({"text": "{"}, 422, "it is not JSON"),
        ({"text": of_client("odd", "no/such")}, 422, "the catalogue has no scope"),
        ({"file": (b"[clients]", "<script>alert(1)</script>")}, 200, "nothing to change"),
        ({"file": (b"[", "<script>alert(1)</script>")}, 422, "alert(1)"),
    ],
    ids=range(11),
)
def test_files_that_cannot_be_used_are_refused_on_the_page(console, fields, status, words):
    """With the words of the API; what was pasted stays in the form."""
    given = {
        name: [(io.BytesIO(content), file) for content, file in uploads]
        if isinstance(uploads := [each] if isinstance(each, tuple) else each, list)
        else each
        for name, each in fields.items()
    }
    headers = {"Cookie": f"session={COOKIE}"}
    answer = console.client.post(
        "/files",
        data={"csrf_token": CSRF, **given},
        headers=headers,
        content_type="multipart/form-data",
    )
    assert answer.status_code == status, answer.text
    assert words in answer.text
    assert "<script>alert" not in answer.text


def test_a_form_of_another_site_applies_nothing(console):
    planned = plan(console, of_client("foreign"))
    for token in ("", "odd"):
        assert confirm(console, planned.text, csrf_token=token).status_code == 403
        assert plan(console, of_client("foreign"), csrf_token=token).status_code == 403
    assert console.site.get("/clients/foreign").status_code == 404


def test_who_may_not_apply_files_downloads_them(console):
    """An auditor has no form; an operator with limits sees, and applies, what lies within them."""
    with console.acting_as(console.operator(*READS)):
        page = console.page("/files")
        assert "Download as TOML" in page
        assert 'action="/files"' not in page
        refused = plan(console, of_client("by-auditor"))
        assert refused.status_code == 403
        assert "treasury" in console.get("/files/export?format=toml").text
    with console.acting_as(console.operator("scopes:write")):
        assert 'href="/files"' in console.page("/")
        page = console.page("/files")
        assert 'action="/files"' in page
        assert "/files/export" not in page
    with console.acting_as(console.operator("keys:read")):
        assert 'href="/files"' not in console.page("/")
    limits = Limits(organisations=frozenset({"Ministry"}))
    console.site.new_client("Elsewhere", id="outside", organisation="Other")
    with console.acting_as(console.operator(*READS, "clients:write", limits=limits)):
        text = console.get("/files/export?format=toml").text
        assert "treasury" in text
        assert "outside" not in text
        within = plan(console, of_client("within", organisation="Ministry"))
        assert "1 to add" in within.text
        refused = plan(console, of_client("beyond", organisation="Other"))
        assert refused.status_code == 403
        assert "clients.&#34;beyond&#34;" in refused.text
    assert console.site.get("/clients/by-auditor").status_code == 404


def test_a_long_plan_is_shown_in_part(console):
    """Below 60 kB beside the texts of the files, which the form carries once."""
    text = "".join(of_client(f"many-{number:04}") for number in range(250))
    planned = plan(console, text)
    assert "250 to add, 0 to change, 0 to remove." in planned.text
    assert "Further entries: 190." in planned.text
    assert len(planned.data) < 60_000 + len(escape(text))


def test_programmes_and_roles_are_planned_and_applied(console):
    """Roles need a fresh log-in, as on the page of the operator."""
    text = '[programmes.school]\nclients = ["treasury"]\n[operators.hal]\nroles = ["auditor"]\n'
    with console.acting_as(replace(console.operator(), authenticated_at=None)):
        asked = plan(console, text)
    assert asked.status_code == 303
    assert asked.headers["Location"] == "/login?step_up=1&next=%2Ffiles"
    planned = plan(console, text)
    assert "2 to add, 0 to change, 0 to remove." in planned.text
    assert re.search(r"Programme\s+<code>.*school", planned.text)
    assert re.search(r"Operator\s+<code>.*hal", planned.text)
    assert "The files are applied." in confirm(console, planned.text).text
    assert console.site.get("/operators/hal").json["roles"][0]["role"] == "auditor"
    assert console.site.get("/programmes/school").json["clients"] == ["treasury"]
