"""Declarative files of administrators with limits: each entry is held within them."""

import json
from dataclasses import replace
from typing import Any

import pytest

from authz_server.operations.clients import delete_client
from authz_server.operations.permissions import ROLES, Caller, Grant, Limits
from support.administrators import BY_ORGANISATION, BY_SERVER, MARK, Administration
from support.parties import ACTOR

PATH = "/declaration"
EVERY = (*ROLES, "client-manager")
#: The entries that lie within each limits alone.
OWN = {
    "server": (BY_SERVER, {"own-client"}, {"mine"}),
    "organisation": (BY_ORGANISATION, {"own-client", "borrower"}, {"mine"}),
}
SERVER = '[resource_servers.mine]\nname = "mine"\nidentifier = "urn:test:mine"\n'


def of_client(name: str, *scopes: str, organisation: str = "Own", **fields: object) -> str:
    members = {"name": name, "organisation": organisation, "allowed_scopes": scopes, **fields}
    lines = (f"{key} = {json.dumps(value)}" for key, value in members.items())
    return "\n".join((f"[clients.{name}]", *lines, ""))


def of_server(*scopes: str) -> str:
    """Return the own resource server as it is stored, with these scopes."""
    stream = '[resource_servers.mine.event_stream]\ndelivery = "poll"\n'
    return f'{SERVER}organisation = "Own"\nscopes = {json.dumps(scopes)}\n{stream}'


def apply(
    ours: Administration, caller: Caller, text: str, *, dry_run: bool = False, **members: Any
):
    body = {"files": [{"name": "a.toml", "text": text}], **members}
    query = {"dry_run": "true"} if dry_run else {}
    return ours.perform(caller, "POST", PATH, body=body, query=query)


def export(ours: Administration, caller: Caller) -> dict[str, Any]:
    done = ours.perform(caller, "GET", PATH, query={"format": "json"})
    assert done.status == 200, done.body
    exported: dict[str, Any] = json.loads(done.body["text"])
    return exported


@pytest.mark.parametrize("by", OWN)
def test_an_export_has_what_lies_within_the_limits_alone(ours, by):
    """Applied by the same caller, with --prune too, it changes nothing, and nothing of others."""
    limits, clients, servers = OWN[by]
    caller = ours.caller(*EVERY, limits=limits)
    exported = export(ours, caller)
    assert MARK not in json.dumps(exported)
    assert exported["clients"].keys() >= clients
    assert exported["resource_servers"].keys() == servers
    assert exported["scopes"].keys() == {"mine/read"}
    assert exported["catalogues"] == []
    assert "shared" not in exported["clients"]
    everything = export(ours, ours.caller(*EVERY))
    assert everything["clients"].keys() > exported["clients"].keys()
    text = ours.perform(caller, "GET", PATH).body["text"]
    done = apply(ours, caller, text, prune=True)
    assert (done.status, done.body["changes"]) == (200, []), done.body
    assert export(ours, ours.caller(*EVERY)) == everything


@pytest.mark.parametrize("by", OWN)
def test_an_entry_outside_the_limits_is_refused_by_name(ours, by):
    """Its place is named; nothing else of the files is done, and nothing of others is shown."""
    caller = ours.caller(*EVERY, limits=OWN[by][0])
    everything = export(ours, ours.caller(*EVERY))
    within = of_client("within", "mine/read")
    of_others = 'name = "x"\nidentifier = "urn:test:x"\n'
    for text, named, status in (
        (of_client("elsewhere", f"{MARK}/read", organisation=MARK), 'clients."elsewhere"', 422),
        (of_client(f"{MARK}-client", "mine/read"), f'clients."{MARK}-client"', 409),
        (f"[resource_servers.{MARK}-server]\n{of_others}", f"{MARK}-server", 409),
        (f"[resource_servers.new]\n{of_others}", 'resource_servers."new"', 403),
        ('[scopes."free/read"]\nrisk = "read"\n', 'scopes."free/read"', 403),
        (f'[scopes."{MARK}/read"]\nrisk = "read"\n', f'scopes."{MARK}/read"', None),
        (of_server("mine/read", f"{MARK}/read"), 'resource_servers."mine"', 422),
        (of_server(), "mine/read", 403),
        (of_client("own-client", "mine/read", permissions=["introspect:any"]), "own-client", 403),
    ):
        done = apply(ours, caller, text + within)
        assert done.status in ({status} if status else {403, 409}), (text, done.body)
        assert named in done.body["detail"], done.body
    left = 'organisation = "Other"' if by == "organisation" else "allowed_scopes = []"
    done = apply(
        ours,
        caller,
        of_client("own-client", "mine/read").replace(
            'organisation = "Own"' if by == "organisation" else 'allowed_scopes = ["mine/read"]',
            left,
        ),
    )
    assert done.status == 403, done.body
    assert 'clients."own-client"' in done.body["detail"]
    assert export(ours, ours.caller(*EVERY)) == everything


def test_a_client_that_is_seen_in_part_is_refused_whatever_the_file_has(ours):
    """Also if the file has its very fields: the answer would show those that are not seen."""
    caller = ours.caller(*EVERY, limits=BY_SERVER)
    stored = export(ours, ours.caller(*EVERY))["clients"]["shared"]
    same = of_client("shared", *stored["allowed_scopes"], organisation="Third")
    for text in (same, of_client("shared", "mine/read", organisation="Third")):
        done = apply(ours, caller, text, dry_run=True)
        assert done.status in {403, 422}
        assert 'clients."shared"' in done.body["detail"]
        assert f"{MARK}/read" not in done.body["detail"] or text is same
    seen = apply(ours, caller, of_client("shared", "mine/read", organisation="Third"))
    assert seen.body["type"].endswith(":refused")


@pytest.mark.parametrize("by", OWN)
def test_pruning_stays_within_the_limits(ours, by):
    """Clients of others stay, and so does one of which a part alone is seen."""
    limits, clients, _ = OWN[by]
    caller, everyone = ours.caller(*EVERY, limits=limits), ours.caller(*EVERY)
    before = export(ours, everyone)
    text = of_client("kept", "mine/read")
    planned = apply(ours, caller, text, dry_run=True, prune=True)
    assert planned.status == 200, planned.body
    removed = {each["id"] for each in planned.body["changes"] if each["act"] == "remove"}
    assert removed == set(export(ours, caller)["clients"])
    assert removed >= clients
    assert MARK not in json.dumps(planned.body)
    done = apply(ours, caller, of_client("pruned", "mine/read"))
    assert done.status == 200, done.body
    held = ours.perform(caller, "GET", PATH).body["text"].partition("[clients.pruned]")[0]
    rest = ours.perform(caller, "GET", PATH).body["text"].partition("[clients.pruned]")[2]
    following = rest.find("\n[clients.")
    done = apply(ours, caller, held + (rest[following:] if following >= 0 else ""), prune=True)
    assert [(each["act"], each["id"]) for each in done.body["changes"]] == [("remove", "pruned")]
    assert export(ours, everyone) == before


def test_an_owner_of_an_api_declares_its_scopes(ours):
    """With the role that changes no client: a scope is added to the own resource server alone."""
    caller = ours.caller("api-owner", limits=BY_SERVER)
    scope = '[scopes."mine/{0}"]\nrisk = "{1}"\n'
    kept = '[scopes."mine/read"]\naliases = ["mine.read"]\n'
    text = kept + scope.format("write", "money") + of_server("mine/read", "mine/write")
    done = apply(ours, caller, text)
    assert done.status == 200, done.body
    (added,) = done.body["changes"]
    assert (added["act"], added["id"]) == ("add", "mine/write")
    assert ours.perform(caller, "GET", "/scopes/mine%2Fwrite").body["resource_server"] == "mine"
    assert apply(ours, caller, text).body["changes"] == []
    changed = apply(ours, caller, text.replace('"money"', '"write"'))
    assert [each["act"] for each in changed.body["changes"]] == ["change"]
    lost = apply(ours, caller, kept + of_server("mine/read", "mine/write"), prune=True)
    assert [(each["act"], each["id"]) for each in lost.body["changes"]] == [
        ("remove", "mine/write")
    ]
    refused = apply(ours, caller, of_client("by-owner", "mine/read"))
    assert (refused.status, refused.body["scope"]) == (403, "clients:write")
    gone = apply(ours, caller, "[resource_servers]\n", prune=True)
    assert gone.status == 403
    assert 'resource_servers."mine"' in gone.body["detail"]
    used = apply(ours, caller, "[scopes]\n", prune=True)
    assert used.status == 409
    assert "mine/read" in used.body["detail"]
    assert MARK not in used.body["detail"]


def test_each_section_has_the_limits_of_its_own_permission(ours):
    """Clients of one organisation and scopes of one resource server, in one application."""
    manager = ours.caller("client-manager", limits=BY_ORGANISATION)
    owner = ours.caller("api-owner", limits=BY_SERVER)
    both = replace(manager, grants=(*manager.grants, *owner.grants))
    narrow = Limits(organisations=frozenset({"Nothing"}))
    neither = replace(
        both, grants=(*owner.grants, Grant(permissions=frozenset({"clients:write"}), limits=narrow))
    )
    text = of_server("mine/read") + of_client("by-both", "mine/read")
    done = apply(ours, both, text)
    assert [each["id"] for each in done.body["changes"]] == ["by-both"], done.body
    assert 'clients."by-both"' in apply(ours, neither, text).body["detail"]
    assert apply(ours, neither, of_server("mine/read")).body["changes"] == []
    delete_client(ours.site.services, "by-both", kind="client", actor=ACTOR)


def test_limits_of_one_section_cost_no_query_for_each_client(ours):
    """The clients of another section are read together, and what lies within limits once."""
    manager = ours.caller("client-manager")
    owner = ours.caller("api-owner", limits=BY_ORGANISATION)
    mixed = replace(manager, grants=(*manager.grants, *owner.grants))
    made = [f"many-{number}" for number in range(30)]
    text = "".join(of_client(name, "mine/read") for name in made)
    assert apply(ours, manager, text).status == 200
    stored = export(ours, ours.caller(*EVERY))
    kept = {"mine": stored["resource_servers"]["mine"]}
    text = json.dumps({"format": 1, "clients": stored["clients"], "resource_servers": kept})
    body = {"files": [{"name": "a.json", "text": text}], "prune": True}
    with ours.statements() as statements:
        done = ours.perform(mixed, "POST", PATH, body=body)
    assert (done.status, done.body["changes"]) == (200, []), done.body
    single = [each for each in statements if "WHERE client.id = " in each]
    assert len(single) < len(made)
    granted = [each for each in statements if each.startswith("SELECT client.allowed_scopes \n")]
    assert len(granted) == 1
    for name in made:
        delete_client(ours.site.services, name, kind="client", actor=ACTOR)
