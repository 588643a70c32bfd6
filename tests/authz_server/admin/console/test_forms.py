"""What operators enter: it outlives a log-in, and what is missing or odd is named."""

import re
from dataclasses import replace
from datetime import timedelta
from urllib.parse import parse_qs, quote, urlsplit

import pytest

from authz_server.admin.people.guards import local_path
from support.console_site import CSRF, read_form


@pytest.fixture
def client_id(console) -> str:
    """A new client."""
    return console.site.new_client(authentication_method="client_secret_post")["id"]


def _client(console, client_id: str) -> dict:
    return console.site.get(f"/clients/{client_id}").json


_ENTERED = pytest.mark.parametrize(
    ("act", "entered"),
    [
        ("secret-rotate", {"description": 'for "x" & <y>', "unused_days": "30"}),
        ("client-revoke", {"reason": "a <b> reason"}),
    ],
)


def _open_after_log_in(console, answer):
    """Follow the redirection to the log-in, and from there to the page that it names."""
    assert answer.status_code == 303
    address = urlsplit(answer.headers["Location"])
    assert address.path == "/login"
    (back,) = parse_qs(address.query)["next"]
    assert local_path(back) == back
    return console.page(back)


@_ENTERED
def test_what_was_entered_outlives_the_session(console, client_id, act, entered):
    """The log-in leads back to the plan with the fields and the reason; nothing was changed."""
    with console.acting_as(None):
        answer = console.post(f"/act/{act}", {"id": client_id, "csrf_token": CSRF, **entered})
    _, fields = read_form(_open_after_log_in(console, answer))
    assert {name: fields[name] for name in entered} == entered
    assert len(_client(console, client_id)["secrets"]) == 1


@_ENTERED
def test_what_was_entered_outlives_a_second_log_in(console, client_id, act, entered):
    """A form of the earlier session is refused with its plan, and works when it is sent again."""
    refused = console.post(f"/act/{act}", {"id": client_id, "csrf_token": "odd", **entered})
    assert refused.status_code == 403
    assert "The form did not come from a page of this session." in refused.text
    _, fields = read_form(refused.text)
    assert {name: fields[name] for name in entered} == entered
    assert console.send_form(refused.text).status_code in {200, 303}


def test_a_form_that_is_too_long_for_a_log_in_leads_back_to_its_act(console, client_id):
    """To the act of the same client, without what was entered."""
    form = {"id": client_id, "csrf_token": CSRF, "reason": "x" * 1_000}
    with console.acting_as(None):
        answer = console.post("/act/client-revoke", form)
    assert f"<bdi>{client_id}</bdi>" in _open_after_log_in(console, answer)


def test_the_reason_outlives_the_confirmation_of_a_log_in(console):
    """A sensitive act that asks for a log-in when it is confirmed leads back with its reason."""
    ring = console.site.get("/rings").json["items"][0]["name"]
    _, fields = read_form(console.page(f"/act/ring-freeze?ring={ring}"))
    at = console.site.clock() - timedelta(minutes=10)
    caller = replace(console.operator(), authenticated_at=at)
    console.find_session, kept = (lambda _: caller), console.find_session
    try:
        answer = console.post("/act/ring-freeze", fields | {"reason": "a pause"})
    finally:
        console.find_session = kept
    assert "step_up=1" in answer.headers["Location"]
    _, fields = read_form(_open_after_log_in(console, answer))
    assert fields["reason"] == "a pause"


def test_an_empty_form_says_what_to_fill_in(console, client_id):
    """Also where the browser did not: one that was not sent yet lacks nothing."""
    for act, words in (("client-create", "Fill in: Name, Scopes."), ("operator-create", "Roles.")):
        assert "Fill in" not in console.page(f"/act/{act}")
        page = console.page(f"/act/{act}?name=&allowed_scopes=&roles=")
        assert words in page
        assert 'id="plan"' not in page
    page = console.page(f"/act/client-edit?id={client_id}&name=x&allowed_scopes=")
    assert "Fill in: Scopes." in page
    assert re.search(r"<textarea[^>]* required", page)


def test_a_plan_without_a_change_says_so(console, client_id):
    """As after the back button, when the change was made."""
    path = f"/act/client-edit?id={client_id}&name=Mine&organisation=&allowed_scopes=mapper/link"
    assert "Nothing would change." not in console.page(path)
    assert console.confirm(path).status_code == 303
    assert "Nothing would change." in console.page(path)


def test_scopes_are_removed_with_the_default_ones(console):
    """A default scope that the client may no longer ask for would refuse the change."""
    client = console.site.new_client(
        allowed_scopes=["mapper/link", "mapper/unlink"], default_scopes=["mapper/unlink"]
    )
    path = f"/act/client-edit?id={client['id']}"
    assert ">\nmapper/unlink</textarea>" in console.page(path)
    entered = "&name=x&allowed_scopes=mapper/link&default_scopes="
    assert console.confirm(path + entered).status_code == 303
    assert _client(console, client["id"])["default_scopes"] == []


def test_a_plan_names_states_and_roles_as_other_pages_do(console):
    """In the language of the page, and a role as it is entered."""
    limited = quote("api-owner resource_server=mapper")
    page = console.page(f"/act/operator-create?name=zoe&roles={limited}&lang=fr")
    assert "<bdi>api-owner resource_server=mapper</bdi>" in page
    assert "<bdi>activé</bdi>" in page


@pytest.mark.parametrize(
    "path",
    [
        "/act/client-limits?id={client}",
        "/act/client-keys?id={client}",
        "/act/api-keys?id=mapper",
        "/act/scope-edit?scope=mapper/link",
        "/act/scope-assign?scope=mapper/link",
        "/act/stream-set?id=mapper",
    ],
)
def test_a_form_that_shows_what_stands_plans_what_is_entered(console, client_id, path):
    """Before it is sent it plans nothing: neither that an owner is taken away, nor a refusal."""
    answer = console.get(path.format(client=client_id))
    assert answer.status_code == 200
    assert 'id="plan"' not in answer.text
    assert 'role="alert"' not in answer.text


def test_a_link_from_elsewhere_reports_nothing_as_done(console, client_id):
    """An operator would believe it; what a form of the console leads to does report it."""
    path = f"/clients/client?id={client_id}&done=client-disable"
    for site, said in (("cross-site", False), ("none", False), ("same-origin", True)):
        page = console.page(path, **{"Sec-Fetch-Site": site})
        assert ("The client is disabled." in page) is said, site
