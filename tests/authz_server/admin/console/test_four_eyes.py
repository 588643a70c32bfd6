"""Acts that need a second person, in the console: the plan says so, another operator decides."""

import html
import re

import pytest

from authz_server.admin.console.pages import changes
from support.admin_site import running_admin_site
from support.console_site import CSRF, ConsoleSite
from support.operators import add_operator


@pytest.fixture(scope="module")
def approving(module_database_url: str, tmp_path_factory):
    """A console where further secrets wait for an approval, and stops for a confirmation."""
    overrides = {"approvals": {"acts": ["client.add_credential", "stop.set"]}}
    directory = tmp_path_factory.mktemp("approving")
    with running_admin_site(directory, module_database_url, overrides) as site:
        site.new_client(id="ministry")
        add_operator(site.services, "ada", "client-manager", "security-officer")
        yield ConsoleSite(site)


def _newest(console: ConsoleSite) -> dict:
    return console.site.get("/changes").json["items"][0]


def test_a_secret_waits_for_another_operator(approving):
    """Its requester sees it once, and no button to approve it; another one approves it."""
    site = approving.site
    page = approving.page("/act/secret-add?id=ministry&description=second")
    assert "This act needs a second person." in page
    shown = approving.send_form(page)
    assert shown.status_code == 200
    value = re.search(r'id="value"[^>]*value="([^"]+)"', shown.text)
    assert value is not None
    assert "This act needs a second person." in shown.text
    again = approving.send_form(page)
    assert again.status_code == 303
    assert value[1] not in approving.page(again.headers["Location"])
    change = _newest(approving)
    own = approving.page(f"/changes/change?id={change['id']}")
    assert "<h1>Add a secret " in own
    assert "Add a credential to a client" in own
    assert "Añadir un secreto" in approving.page("/changes?lang=es")
    assert "/act/change-withdraw" in own
    assert "/act/change-approve" not in own
    assert len(site.get("/clients/ministry").json["secrets"]) == 1
    site.clock.advance(1)
    with approving.acting_as(approving.operator(name="grace")):
        seen = approving.page(f"/changes/change?id={change['id']}")
        assert "/act/change-approve" in seen
        assert value[1] not in seen
        done = approving.confirm(f"/act/change-approve?id={change['id']}", reason="agreed")
        assert done.status_code == 303, done.text
    assert len(site.get("/clients/ministry").json["secrets"]) == 2
    assert _newest(approving)["decided_by"] == "operator:grace via console"


def test_an_application_of_files_waits_for_another_operator(approving):
    """As a whole; its secrets are shown to its requester at once."""
    approving.site.new_client(id="credited", authentication_method="client_secret_post")
    approving.site.change("DELETE", "/clients/credited")
    text = (
        '[clients.credited]\nname = "Again"\nallowed_scopes = ["mapper/link"]\n'
        'authentication_method = "client_secret_post"\n'
    )
    fields = {"csrf_token": CSRF, "text": text}
    waiting = approving.post("/files", fields)
    assert "This act needs a second person." in waiting.text
    filed = approving.send_form(waiting.text, reason="the second contract")
    assert filed.headers["Location"] == "/changes?done=waits"
    change = _newest(approving)
    assert (change["operation"], change["reason"]) == ("apply_declaration", "the second contract")
    assert "Apply declarative files" in approving.page("/changes")
    shown = approving.send_form(approving.post("/files", {**fields, "generate": "yes"}).text)
    assert 'id="secret-1"' in shown.text
    assert "This act needs a second person." in shown.text
    assert approving.site.get("/clients/credited").status_code == 404
    # The newest change of the next test is its own.
    approving.site.clock.advance(1)


def test_an_emergency_waits_for_its_confirmation_on_the_first_screen(approving):
    """It is done at once, and counted until another operator has confirmed it."""
    stopped = approving.confirm("/act/stop-set?kind=client&subject=ministry", reason="INC-17")
    assert stopped.status_code == 303, stopped.text
    change = _newest(approving)
    assert (change["state"], change["kind"]) == ("unconfirmed", "emergency")
    counted = re.compile(r"Changes that wait for a second person <strong>(\d+)</strong>")
    before = counted.search(approving.page("/"))
    approving.site.clock.advance(1)
    with approving.acting_as(approving.operator(name="grace")):
        assert "/act/change-confirm" in approving.page(f"/changes/change?id={change['id']}")
        done = approving.confirm(f"/act/change-confirm?id={change['id']}", reason="right")
        assert done.status_code == 303, done.text
    after = counted.search(approving.page("/"))
    assert before is not None
    assert after is not None
    assert int(before[1]) == int(after[1]) + 1


def test_what_waits_is_shown_as_on_other_pages(approving):
    """Its members have names, and its times and durations are not those of the interface."""
    page = approving.page("/act/secret-rotate?id=ministry&description=third&unused_days=30")
    assert approving.send_form(page).status_code == 200
    shown = approving.page(f"/changes/change?id={_newest(approving)['id']}&lang=fr")
    for words in ("Objet</", "Créé</", ">oui</bdi>", ">non</bdi>", "<dd>30 d</dd>"):
        assert words in shown, words
    assert not re.search(r"P30D|>[^<]*\d\d:\d\d:\d\d\.\d+Z", shown)


def test_every_change_that_waits_is_reached(approving, monkeypatch):
    """Page by page, of those that wait for an approval or for a confirmation."""
    monkeypatch.setattr(changes, "_PAGE", 1)
    for description in ("fourth", "fifth"):
        page = approving.page(f"/act/secret-add?id=ministry&description={description}")
        assert approving.send_form(page).status_code == 200
    found, pages = set(), ["/changes"]
    for address in pages:
        text = approving.page(address)
        found |= set(re.findall(r"/changes/change\?id=(\w+)", text))
        pages += map(
            html.unescape, re.findall(r'class="button" href="(/changes\?[^"]*cursor=[^"]+)"', text)
        )
    waiting = [
        each["id"]
        for state in changes.WAITING
        for each in approving.site.get(f"/changes?state={state}").json["items"]
    ]
    assert len(waiting) > 1
    assert set(waiting) <= found
