"""Which approvers with limits decide on declarative files, and what their requester sees."""

import pytest

from authz_server.operations.approved_acts import PERMISSIONS_OF
from authz_server.operations.permissions import UNLIMITED, Caller, Grant, Limits
from authz_server.operations.resource_servers import create_resource_server
from authz_server.operations.scopes import add_scope
from support.approval_site import MONEY
from support.parties import ACTOR

OF_X, BY_X = (Limits(organisations=frozenset({"X"})), Limits(resource_servers=frozenset({"rs-x"})))
BY_Y = Limits(resource_servers=frozenset({"rs-y"}))
READS = ("clients:read", "scopes:read", "resource-servers:read", "changes:read")
CLIENT = '[clients.of-x]\nname = "{}"\norganisation = "X"\nallowed_scopes = ["x/read"{}]\n'
SERVER = '[resource_servers.{0}]\nname = "S"\nidentifier = "urn:test:{0}"\n'
PAY = '[scopes."{}"]\nrisk = "{}"\n'


def _caller(name: str, limits: Limits, **others: Limits) -> Caller:
    """Return an operator that reads within limits, and writes each section within its own."""
    grants = [Grant(permissions=frozenset({*READS, "changes:approve"}), limits=limits)]
    grants += [
        Grant(permissions=frozenset({f"{section.replace('_', '-')}:write"}), limits=own)
        for section, own in others.items()
    ]
    return Caller(
        name=name, kind="operator", way="console", grants=tuple(grants), operator_id=f"id-of-{name}"
    )


@pytest.fixture(scope="module")
def concerned(approvals):
    """Resource servers of two organisations with scopes that pay, and a client of one of them."""
    services = approvals.api.services
    for each in ("x", "y"):
        create_resource_server(
            services,
            actor=ACTOR,
            id=f"rs-{each}",
            name=each,
            identifier=f"urn:test:rs-{each}",
            organisation=each.upper(),
        )
        for name, risk in (("read", "read"), ("pay", "money")):
            add_scope(
                services,
                actor=ACTOR,
                name=f"{each}/{name}",
                risk=risk,
                resource_server_id=f"rs-{each}",
            )
    add_scope(services, actor=ACTOR, name="roads/pay", risk="money")
    approvals.api.new_client(id="of-x", name="C", organisation="X", allowed_scopes=["x/read"])
    return approvals


#: The files, the limits of the sections, whether they are pruned, and whether an approver of
#: organisation X, and one of resource server rs-x, see the change.
RENAMED = CLIENT.format("Renamed", "")
EVERYWHERE = {"clients": OF_X, "scopes": UNLIMITED, "resource_servers": UNLIMITED}
FILES = {
    "a grant of its own": (CLIENT.format("C", ', "x/pay"'), EVERYWHERE, False, (True, True)),
    "a grant of what belongs to none": (
        CLIENT.format("C", f', "{MONEY}"'),
        EVERYWHERE,
        False,
        (True, False),
    ),
    "a scope of another": (
        RENAMED + PAY.format("y/pay", "read"),
        {"clients": OF_X, "scopes": BY_Y},
        False,
        (False, False),
    ),
    "a pruned scope of another": (
        RENAMED + PAY.format("y/read", "read"),
        {"clients": OF_X, "scopes": BY_Y},
        True,
        (False, False),
    ),
    "a scope that belongs to none": (
        RENAMED + PAY.format("roads/pay", "read"),
        EVERYWHERE,
        False,
        (False, False),
    ),
    "a scope that gets an owner": (
        CLIENT.format("C", ', "x/pay"')
        + SERVER.format("rs-x")
        + 'organisation = "X"\nscopes = ["x/read", "x/pay", "roads/pay"]\n',
        EVERYWHERE,
        False,
        (False, False),
    ),
    "a new resource server": (
        CLIENT.format("C", ', "x/pay"') + SERVER.format("rs-new") + 'organisation = "X"\n',
        EVERYWHERE,
        False,
        (False, False),
    ),
}


@pytest.mark.parametrize("case", FILES)
def test_an_approver_decides_on_files_that_lie_within_its_limits_alone(concerned, case):
    """The requester sees its change in any case, and withdraws it; its peer sees what it may."""
    text, sections, prune, seen = FILES[case]
    api = concerned.api.app.api
    requester = _caller("requester", OF_X, **sections)
    body = {"files": [{"name": "a.toml", "text": text}], "prune": prune}
    filed = api.perform(requester, "POST", "/declaration", body=body)
    assert filed.status == 202, filed.body
    assert "scope.grant_money" in filed.body["acts"]
    path = f"/changes/{filed.body['id']}"

    def finds(caller: Caller) -> bool:
        listed = api.perform(caller, "GET", "/changes", query={"state": "pending"}).body["items"]
        is_listed = filed.body["id"] in {each["id"] for each in listed}
        assert api.perform(caller, "GET", path).status == (200 if is_listed else 404)
        return is_listed

    approvers = tuple(finds(_caller("approver", limits)) for limits in (OF_X, BY_X))
    assert approvers == seen
    assert finds(_caller("officer", UNLIMITED))
    assert finds(requester)
    done = api.perform(requester, "POST", f"{path}/withdraw", body={}, if_match="*")
    assert (done.status, done.body["state"]) == (200, "withdrawn")
    assert api.perform(requester, "GET", path).body["state"] == "withdrawn"


def test_glass_is_not_broken_for_an_operation_without_a_permission(concerned, monkeypatch):
    """A later operation that PERMISSIONS_OF lacks is not carried out."""
    body = {"allowed_scopes": ["x/read", "x/pay"]}
    change = concerned.change("PATCH", "/clients/of-x", body, "/clients/of-x").json["id"]
    monkeypatch.delitem(PERMISSIONS_OF, "update_client")
    refused = concerned.decide(change, "break-glass", by="caller", reason="flood")
    assert refused.status_code == 503
    assert concerned.state(change) == "pending"
    assert concerned.decide(change, "withdraw", by="caller").status_code == 200
