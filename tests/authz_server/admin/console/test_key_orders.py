"""The orders on whole rings in the console: the move to another ring, and the end of old keys."""

import pytest

from support.admin_site import running_admin_site
from support.console_site import ConsoleSite
from support.operators import add_operator


@pytest.fixture(scope="module")
def ringed(module_database_url: str, tmp_path_factory):
    """A console with two rings, whose destruction of keys needs a second person."""
    overrides = {
        "keys": {"rings": {"rs256": {"algorithm": "RS256"}}},
        "approvals": {"acts": ["key.destroy"]},
    }
    directory = tmp_path_factory.mktemp("ringed")
    with running_admin_site(directory, module_database_url, overrides) as site:
        add_operator(site.services, "ada", "security-officer")
        yield ConsoleSite(site)


def test_a_ring_moves_to_another_one(ringed):
    """Its successor is asked for; one that cannot be is refused with the words of the API."""
    ring = "/act/ring-move?ring=es256"
    assert f'href="{ring}"' in ringed.page("/keys")
    asked = ringed.page(ring)
    assert "Ring that signs instead" in asked
    assert "This is a dry run" not in asked
    for wrong in ("absent", "es256"):
        assert ringed.get(f"{ring}&successor={wrong}").status_code == 409
    assert ringed.get(f"{ring}&successor=rs256&at=1990-01-01T00:00").status_code == 409
    page = ringed.page(f"{ring}&successor=rs256")
    assert "Ring succeeded by another one" in page
    assert ringed.site.get("/rings/es256").json["successor"] is None
    assert "Enter a reason." in ringed.send_form(page).text
    done = ringed.send_form(page, reason="a shorter signature")
    assert "The order is carried out." in done.text, done.text
    assert ringed.site.get("/rings/es256").json["successor"] == "rs256"
    shown = ringed.page("/keys")
    assert "Succeeded by" in shown
    assert f'href="{ring}"' not in shown


def test_old_keys_are_destroyed_with_a_second_person(ringed):
    """Offered where there are some; the plan names what the backend deletes."""
    site, ring = ringed.site, "/act/ring-destroy?ring=rs256"
    assert f'href="{ring}"' not in ringed.page("/keys")
    assert ringed.get(ring).status_code == 409
    rotated = site.change("POST", "/rings/rs256/rotate", {"reason": "x"}, item="/rings/rs256")
    assert rotated.status_code == 200, rotated.text
    keys = site.get("/rings/rs256/keys").json["items"]
    first = f"/rings/rs256/keys/{keys[0]['kid']}"
    revoked = site.change("POST", f"{first}/revoke", {"reason": "leaked"}, item=first)
    assert revoked.status_code == 200, revoked.text
    assert f'href="{ring}"' in ringed.page("/keys")
    with ringed.acting_as(ringed.operator("keys:read", "keys:rotate")):
        assert f'href="{ring}"' not in ringed.page("/keys")
        assert ringed.get(ring).status_code == 404
    page = ringed.page(ring)
    assert "are deleted permanently" in page
    assert "This act needs a second person." in page
    filed = ringed.send_form(page, reason="purge")
    assert filed.headers["Location"] == "/changes?done=waits", filed.text
    change = site.get("/changes").json["items"][0]
    assert change["operation"] == "keys.destroy"
    site.clock.advance(1)
    with ringed.acting_as(ringed.operator(name="grace")):
        assert "Destroy old private keys" in ringed.page("/changes")
        done = ringed.confirm(f"/act/change-approve?id={change['id']}", reason="agreed")
        assert done.status_code == 303, done.text
    assert site.get("/audit?action=key.destroyed").json["items"]
    # The first key stays revoked, and the last one is not below a key in use.
    assert f'href="{ring}"' not in ringed.page("/keys")
    last = f"/rings/rs256/keys/{site.get('/rings/rs256/keys').json['items'][-1]['kid']}"
    revoked = site.change("POST", f"{last}/revoke", {"reason": "leaked"}, item=last)
    assert revoked.status_code == 200, revoked.text
    assert f'href="{ring}"' not in ringed.page("/keys")
