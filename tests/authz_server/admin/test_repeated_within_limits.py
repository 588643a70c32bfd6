"""Acts of a caller with limits that are sent again with their key."""

import json

import pytest

from authz_server.operations.permissions import ROLES
from support.administrators import BY_SERVER, MARK

_WIDENED = "/clients/widened"
#: What a caller with limits repeats, and the status when the client has got a scope of others.
_OF_A_CLIENT = {
    "registration": ("/clients", {"id": "widened", "name": "W", "allowed_scopes": ["mine/read"]}),
    "secret": (f"{_WIDENED}/secrets", {}),
    "rotation": (f"{_WIDENED}/secrets/rotate", {"end_old_when_unused_seconds": 86_400}),
    "stop": ("/stops", {"kind": "client", "subject": "widened", "reason": "leaked"}),
    "revocation": ("/revocations", {"client": "widened"}),
}


@pytest.fixture
def widened(ours):
    """A client of a caller with limits, by acts with keys; others then give it a scope."""
    caller = ours.caller(*ROLES, limits=BY_SERVER)
    for name, (path, body) in _OF_A_CLIENT.items():
        done = ours.perform(caller, "POST", path, body=body, idempotency_key=f"widened {name}")
        assert done.status == 201, (name, done.body)
        again = ours.perform(caller, "POST", path, body=body, idempotency_key=f"widened {name}")
        assert again.status == 200, (name, again.body)
    everything = ours.caller(*ROLES)
    change = {
        "allowed_scopes": ["mine/read", f"{MARK}/read"],
        "properties": {"may_act": {"sub": f"{MARK}-client"}},
    }
    done = ours.perform(everything, "PATCH", _WIDENED, body=change, if_match="*")
    assert done.status == 200, done.body
    yield caller
    lift = {"reason": "over"}
    ours.perform(everything, "POST", "/stops/client/widened/lift", body=lift, if_match="*")
    ours.perform(everything, "DELETE", _WIDENED, if_match="*")


def test_a_repeated_act_answers_nothing_that_came_from_others_meanwhile(ours, widened):
    """A repeated act refuses and leaves out what the route of the item does."""
    refused = {"secret", "rotation", "stop"}
    for name, (path, body) in _OF_A_CLIENT.items():
        again = ours.perform(widened, "POST", path, body=body, idempotency_key=f"widened {name}")
        assert again.status == (403 if name in refused else 200), (name, again.body)
        assert MARK not in json.dumps(again.body), name
        if name == "registration":
            shown = ours.perform(widened, "GET", _WIDENED).body
            assert {field: again.body[field] for field in shown} == shown
