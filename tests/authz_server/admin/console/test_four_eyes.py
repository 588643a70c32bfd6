"""Acts that need a second person, in the console: the plan says so, another operator decides."""

import re

import pytest

from support.admin_site import running_admin_site
from support.console_site import ConsoleSite


@pytest.fixture(scope="module")
def approving(module_database_url: str, tmp_path_factory):
    """A console where further secrets wait for an approval, and stops for a confirmation."""
    overrides = {"approvals": {"acts": ["client.add_credential", "stop.set"]}}
    directory = tmp_path_factory.mktemp("approving")
    with running_admin_site(directory, module_database_url, overrides) as site:
        site.new_client(id="ministry")
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
