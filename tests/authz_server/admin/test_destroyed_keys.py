"""The destruction of private keys needs a second person, by the API and on the server."""

import pytest

from authz_server.admin.key_contexts import KeyContexts
from authz_server.operations.changes import ChangeFilters, list_changes
from authz_server.operations.keys.orders import apply_order
from keys.lifecycle.orders import Destroy
from support.admin_site import require_problem
from support.approval_site import find_standby
from support.parties import ACTOR

RING = "/rings/es256"


def revoke_active(approvals) -> None:
    """Revoke the key that signs, once another one stands by: it is below those in use then."""
    find_standby(approvals)
    keys = approvals.api.get(f"{RING}/keys").json["items"]
    kid = next(each["kid"] for each in keys if each["signs"])
    path = f"{RING}/keys/{kid}"
    done = approvals.change("POST", f"{path}/revoke", {"reason": "leaked"}, path)
    assert done.status_code == 200, done.text
    # The key had signed them.
    services = approvals.api.public.extensions["authz_server"]
    services.key_rings.refresh()
    services.feed.poll()
    approvals.forget_tokens()


def destroy(approvals, query: str = ""):
    return approvals.change("POST", f"{RING}/destroy{query}", {"reason": "purge"}, RING)


def destroyed(approvals) -> int:
    return len(approvals.records("action=key.destroyed&limit=500"))


@pytest.fixture
def purgeable(approvals):
    revoke_active(approvals)
    return approvals


def test_a_destruction_waits_and_is_approved(purgeable):
    """Nothing is deleted before; a dry run and the change name what would be."""
    before = destroyed(purgeable)
    planned = destroy(purgeable, "?dry_run=true").json
    assert planned["at_backend"][0]["act"] == "destroy"
    assert planned["approval"]["acts"] == ["key.destroy"]
    answer = destroy(purgeable)
    assert answer.status_code == 202, answer.text
    assert (answer.json["acts"], answer.json["subject"]) == (["key.destroy"], "ring:es256")
    assert destroyed(purgeable) == before
    own = purgeable.decide(answer.json["id"], "approve", by="caller")
    require_problem(own, 403, "refused")
    done = purgeable.decide(answer.json["id"], "approve")
    assert done.status_code == 200, done.text
    assert destroyed(purgeable) > before


def test_an_approved_destruction_of_a_changed_ring_fails(purgeable):
    """The ring was frozen meanwhile, and nothing is deleted."""
    change, before = destroy(purgeable).json["id"], destroyed(purgeable)
    for act in ("freeze", "unfreeze"):
        done = purgeable.change("POST", f"{RING}/{act}", {"reason": "x"}, RING)
        assert done.status_code == 200, done.text
    require_problem(purgeable.decide(change, "approve"), 412, "precondition-failed")
    assert purgeable.state(change) == "failed"
    assert destroyed(purgeable) == before


def test_glass_is_broken_for_a_destruction_that_waits(purgeable):
    """Its requester does so, and a second person confirms it."""
    change, before = destroy(purgeable).json["id"], destroyed(purgeable)
    done = purgeable.decide(change, "break-glass", by="caller", reason="audit")
    assert done.status_code == 200, done.text
    assert destroyed(purgeable) > before
    assert purgeable.decide(change, "confirm").status_code == 200


def test_the_command_on_the_server_is_to_be_confirmed(purgeable):
    services = purgeable.api.services
    context = KeyContexts(services).open(ACTOR, looking=False)
    assert apply_order(context, Destroy("es256", "purge")).written
    found = list_changes(services, ChangeFilters(states=("unconfirmed",)))
    assert ("key.destroy",) in {change.acts for change in found if change.kind == "command"}
