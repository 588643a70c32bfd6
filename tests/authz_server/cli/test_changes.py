"""Changes that need a second person, at the command line."""

import json

import pytest

from authz_server.assembly.operator import operator_services
from authz_server.operations.approvals import CONTROL, Control, file_change
from authz_server.operations.clients import update_client
from authz_server.operations.keys.context import find_logins, open_context
from authz_server.operations.keys.orders import apply_order
from authz_server.operations.one_transaction import run_together
from authz_server.settings import load_settings
from keys.lifecycle.orders import Activate
from support.settings_file import write_settings

MONEY = "disburse/disburse"
REQUESTER = "client:tool via api"
REQUESTER_SCOPES = ("clients:write", "secrets:write", "tokens:revoke", "keys:rotate")
ACTS = [
    "scope.grant_money",
    "client.add_credential",
    "stop.set",
    "stop.lift",
    "key.activate",
    "key.revoke",
]


@pytest.fixture
def approving(stocked, tmp_path):
    """The command line with a client, where acts need a second person."""
    write_settings(tmp_path, stocked.database_url, {"approvals": {"acts": ACTS}})
    stocked.must("client", "create", "ministry", "--name", "Ministry", "--scope", "mapper/link")
    stocked.must("admin", "init")
    scopes = [word for scope in REQUESTER_SCOPES for word in ("--scope", scope)]
    stocked.must("client", "create", "tool", "--name", "Tool", *scopes)
    return stocked


def _file_grant(cli) -> str:
    """File a grant of money as the admin API does; return the id of the change."""
    control = Control(requester="client:tool")

    def grant(services, session):
        session.info[CONTROL] = control
        update_client(services, "ministry", actor=REQUESTER, allowed_scopes=["mapper/link", MONEY])

    with operator_services(load_settings(cli.config)) as services:
        run_together(services, grant, dry_run=True)
        with services.transaction() as session:
            return file_change(services, session, control.find_waiting(), control).id


def _scopes(cli) -> list[str]:
    return cli.json("client", "show", "ministry")["allowed_scopes"]


def test_a_change_is_listed_shown_and_approved(approving):
    """The diff before and after; the record names the approver and the way."""
    change = _file_grant(approving)
    (listed,) = approving.json("changes", "list")
    assert (listed["id"], listed["state"], listed["requested_by"]) == (change, "pending", REQUESTER)
    assert "scope.grant_money" in approving.must("changes", "list")
    shown = approving.must("changes", "show", change)
    assert f'  + ["mapper/link", "{MONEY}"]' in shown.splitlines()
    assert _scopes(approving) == ["mapper/link"]
    done = approving.json("--actor", "ada", "changes", "approve", change, "--reason", "agreed")
    assert (done["state"], done["decided_by"]) == ("approved", "operator:ada via cli")
    assert _scopes(approving) == ["mapper/link", MONEY]
    assert "is approved" in approving.refused("changes", "approve", change)
    assert approving.json("changes", "list") == []
    listed_now = approving.run("changes", "list")
    assert (listed_now.stdout, listed_now.stderr) == ("", "There are none.\n")
    assert [each["id"] for each in approving.json("changes", "list", "--all")] == [change]
    records = approving.audit_records()
    assert ("operator:ada via cli", "change.approved", change) in records
    assert (REQUESTER, "client.updated", "ministry") in records


def test_a_change_is_rejected_or_withdrawn(approving):
    """Root withdraws for every requester; the record names who did."""
    for act, done in (("reject", "rejected"), ("withdraw", "withdrawn")):
        change = _file_grant(approving)
        assert f"is {done}" in approving.must("changes", act, change, "--reason", "no")
        assert approving.json("changes", "show", change)["decision_reason"] == "no"
        assert f"is {done}" in approving.refused("changes", "approve", change)
    assert _scopes(approving) == ["mapper/link"]
    assert "`authz-server changes list --all`" in approving.refused("changes", "show", "unknown")


def test_a_command_on_the_server_does_not_wait_and_needs_a_confirmation(approving, tmp_path):
    """An act of approvals.acts is done, and stored to be confirmed."""
    approving.must("client", "update", "ministry", "--scope", "mapper/link", "--scope", MONEY)
    approving.must("client", "secret", "add", "ministry")
    approving.must("stop", "client", "ministry", "--reason", "INC-17", "--yes")
    approving.must("stop", "lift", "client", "ministry", "--reason", "over")
    declared = tmp_path / "clients.toml"
    declared.write_text(
        f'[clients.payer]\nname = "Payer"\nallowed_scopes = ["{MONEY}"]\n', encoding="utf-8"
    )
    secrets = tmp_path / "secrets"
    secrets.mkdir(mode=0o700)
    approving.must("apply", declared, "--yes", "--secret-directory", secrets)
    assert MONEY in _scopes(approving)
    waiting = approving.json("changes", "list")
    assert {each["state"] for each in waiting} == {"unconfirmed"}
    assert {each["kind"] for each in waiting} == {"command"}
    assert sorted(each["acts"][0] for each in waiting) == [
        "client.add_credential",
        "scope.grant_money",
        "scope.grant_money",
        "stop.lift",
        "stop.set",
    ]
    change = waiting[0]["id"]
    assert "second person" in approving.refused("changes", "confirm", change)
    confirmed = approving.json("--actor", "ada", "changes", "confirm", change)
    assert (confirmed["state"], confirmed["decided_by"]) == ("confirmed", "operator:ada via cli")
    assert len(approving.json("changes", "list")) == len(waiting) - 1


def test_the_activation_of_a_key_is_approved(approving):
    """The backend is opened for it, and the key signs."""
    approving.must("keys", "init")
    approving.must("keys", "rotate", "es256", "--reason", "x")
    kid = next(each["kid"] for each in approving.json("keys", "list") if not each["signs"])
    settings = load_settings(approving.config)
    control = Control(requester="client:tool")
    order = Activate(kid, "planned", emergency=True)
    with open_context(settings, find_logins(settings, "order"), "order", actor=REQUESTER) as keys:
        assert not apply_order(keys, order, control=control).written
        with keys.services.transaction() as session:
            change = file_change(keys.services, session, control.find_waiting(), control).id
    assert "is approved" in approving.must("--actor", "ada", "changes", "approve", change)
    signing = [each["kid"] for each in approving.json("keys", "list") if each["signs"]]
    assert signing == [kid]
    approving.must("keys", "revoke", kid, "--reason", "leaked", "--yes")
    (revoked,) = approving.json("changes", "list")
    assert (revoked["acts"], revoked["kind"]) == (["key.revoke"], "command")
    shown = json.loads(approving.must("changes", "show", change, "--json"))
    assert (shown["operation"], shown["arguments"]["kid"]) == ("keys.activate", kid)
