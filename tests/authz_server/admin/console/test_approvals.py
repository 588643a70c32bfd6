"""The screen of changes: an act that needs a second person waits, and is decided there."""

import pytest

from support.admin_site import running_admin_site
from support.console_site import ConsoleSite
from support.operators import add_operator


@pytest.fixture(scope="module")
def guarded(module_database_url: str, tmp_path_factory):
    """A console whose operators need a second person to lift a stop."""
    overrides = {"approvals": {"acts": ["stop.lift", "stop.set"]}}
    folder = tmp_path_factory.mktemp("guarded")
    with running_admin_site(folder, module_database_url, overrides) as site:
        add_operator(site.services, "ada", "security-officer")
        yield ConsoleSite(site)


def _change_id(console: ConsoleSite, state: str, client: str) -> str:
    """Return the id of the one change of a client in this state."""
    # A log-in that decides is later than the request.
    console.site.clock.advance(1)
    items = console.site.get(f"/changes?state={state}").json["items"]
    found = [each["id"] for each in items if client in each["subject"]]
    assert len(found) == 1, items
    return found[0]


def _stopped(console: ConsoleSite) -> set[str]:
    return {each["subject"] for each in console.site.get("/stops").json["items"]}


def test_a_second_person_decides_on_the_screen_of_changes(guarded):
    """Planned, requested, seen with its diff, and carried out by another operator alone."""
    guarded.site.new_client(id="leaked")
    done = guarded.confirm("/act/stop-set?kind=client&subject=leaked", reason="a leak")
    assert done.status_code == 303, done.text
    plan = guarded.page("/act/stop-lift?kind=client&subject=leaked")
    assert "This act needs a second person." in plan
    waits = guarded.send_form(plan, reason="mended")
    assert waits.status_code == 303
    assert waits.headers["Location"] == "/changes?done=waits"
    page = guarded.page("/changes?done=waits")
    assert "The change waits for a second person." in page
    change = _change_id(guarded, "pending", "leaked")
    assert f"/changes/change?id={change}" in page
    assert "leaked" in _stopped(guarded)
    own = guarded.page(f"/changes/change?id={change}")
    assert "another operator decides" in own
    assert "/act/change-approve" not in own
    assert guarded.get(f"/act/change-approve?id={change}").status_code == 403
    with guarded.acting_as(guarded.operator(name="grace")):
        assert "/act/change-approve" in guarded.page(f"/changes/change?id={change}")
        approved = guarded.confirm(f"/act/change-approve?id={change}", reason="seen")
        assert approved.status_code == 303, approved.text
        assert approved.headers["Location"] == "/changes?done=change-approve"
    assert "leaked" not in _stopped(guarded)
    assert "approved" in guarded.page("/changes?all=1")
    # The stop was set at once, and is listed until a second person confirms it.
    change = _change_id(guarded, "unconfirmed", "leaked")
    page = guarded.page("/changes")
    assert f"/changes/change?id={change}" in page
    assert "to be confirmed" in page
    with guarded.acting_as(guarded.operator(name="grace")):
        confirmed = guarded.confirm(f"/act/change-confirm?id={change}", reason="seen")
        assert confirmed.status_code == 303, confirmed.text
    assert f"/changes/change?id={change}" not in guarded.page("/changes")


def test_a_request_is_withdrawn_or_rejected(guarded):
    """By who requested it, or by a second person; nothing is carried out."""
    guarded.site.new_client(id="other")
    guarded.confirm("/act/stop-set?kind=client&subject=other", reason="a leak")
    path = "/act/stop-lift?kind=client&subject=other"
    guarded.confirm(path, reason="mended")
    change = _change_id(guarded, "pending", "other")
    withdrawn = guarded.confirm(f"/act/change-withdraw?id={change}", reason="not yet")
    assert withdrawn.status_code == 303, withdrawn.text
    guarded.confirm(path, reason="mended")
    change = _change_id(guarded, "pending", "other")
    with guarded.acting_as(guarded.operator(name="grace")):
        rejected = guarded.confirm(f"/act/change-reject?id={change}", reason="not mended")
        assert rejected.status_code == 303, rejected.text
    assert "other" in _stopped(guarded)


def test_an_act_that_waits_is_done_at_once_in_an_emergency(guarded):
    """In its plan or on the page of its change, with a reason; another operator confirms it."""
    site = guarded.site
    for name in ("glass-1", "glass-2"):
        site.new_client(id=name)
        guarded.confirm(f"/act/stop-set?kind=client&subject={name}", reason="a leak")
    stopped = _stopped(guarded)
    plan = guarded.page("/act/stop-lift?kind=client&subject=glass-1")
    assert "Do it at once" in plan
    asked = guarded.send_form(plan, break_glass="yes")
    assert "Enter a reason." in asked.text
    done = guarded.send_form(plan, break_glass="yes", reason="payday")
    assert done.headers["Location"] == "/clients/client?id=glass-1&done=stop-lift"
    assert stopped - _stopped(guarded) == {"glass-1"}

    guarded.confirm("/act/stop-lift?kind=client&subject=glass-2", reason="mended")
    change = _change_id(guarded, "pending", "glass-2")
    path = f"/act/change-break-glass?id={change}"
    assert path in guarded.page(f"/changes/change?id={change}")
    with guarded.acting_as(guarded.operator(name="grace")):
        assert path not in guarded.page(f"/changes/change?id={change}")
        assert guarded.get(path).status_code == 404
    with guarded.acting_as(guarded.operator("changes:read", "scopes:read")):
        refused = guarded.get(path)
        assert refused.status_code == 403
    done = guarded.confirm(path, reason="payday")
    assert done.status_code == 303, done.text
    shown = site.get(f"/changes/{change}").json
    assert (shown["state"], shown["kind"], shown["reason"]) == (
        "unconfirmed",
        "break_glass",
        "payday",
    )
    assert "glass-2" not in str(site.get("/stops").json)
    site.clock.advance(1)
    with guarded.acting_as(guarded.operator(name="grace")):
        confirmed = guarded.confirm(f"/act/change-confirm?id={change}", reason="right")
        assert confirmed.status_code == 303, confirmed.text


def test_to_do_it_at_once_asks_for_a_fresh_log_in(guarded):
    """By the button of the plan, and on the page of the change; the plan itself does not ask."""
    site = guarded.site
    site.new_client(id="glass-3")
    guarded.confirm("/act/stop-set?kind=client&subject=glass-3", reason="a leak")
    path = "/act/stop-lift?kind=client&subject=glass-3"
    guarded.confirm(path, reason="mended")
    change = _change_id(guarded, "pending", "glass-3")
    guarded.find_session, kept = (lambda _: guarded.caller), guarded.find_session
    try:
        with guarded.acting_as(guarded.operator()):
            site.clock.advance(600)
            site.forget_tokens()
            plan = guarded.page(path)
            answers = [
                guarded.send_form(plan, break_glass="yes", reason="payday"),
                guarded.get(f"/act/change-break-glass?id={change}"),
            ]
    finally:
        guarded.find_session = kept
    for answer in answers:
        assert answer.status_code == 303, answer.text
        assert answer.headers["Location"].startswith("/login?step_up=1&next=%2Fact%2F")
    assert site.get(f"/changes/{change}").json["state"] == "pending"


def test_the_settings_forbid_to_do_it_at_once(database_url, tmp_path):
    """The button is not there, and the API refuses."""
    overrides = {"approvals": {"acts": ["stop.lift"], "break_glass": False}}
    with running_admin_site(tmp_path, database_url, overrides) as site:
        console = ConsoleSite(site)
        assert "No change waits." in console.page("/changes")
        site.new_client(id="unbroken")
        console.confirm("/act/stop-set?kind=client&subject=unbroken", reason="a leak")
        plan = console.page("/act/stop-lift?kind=client&subject=unbroken")
        assert "Do it at once" not in plan
        assert console.send_form(plan, break_glass="yes", reason="payday").status_code == 403
        console.send_form(plan, reason="mended")
        change = site.get("/changes").json["items"][0]["id"]
        assert "break-glass" not in console.page(f"/changes/change?id={change}")
        assert console.get(f"/act/change-break-glass?id={change}").status_code == 403
