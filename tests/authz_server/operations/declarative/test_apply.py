import json
import time
from threading import Thread

import pytest
from sqlalchemy import select

from authz_server.audit.models import AuditRecord
from authz_server.clients.registration.models import Registration
from authz_server.database.change_feed import Change, Revision
from authz_server.errors import ConflictError, InvalidChangeError, NotFoundError
from authz_server.operations import clients, event_streams, resource_servers, scopes
from authz_server.operations.admin_api import register_admin_api
from authz_server.operations.client_search import ClientFilters, find_clients

WHOLE = """
catalogues = ["g2p-connect"]

[scopes."land/read"]
description = "Read parcels."
risk = "money"
aliases = ["land.read"]
callback_partner = "land/on-read"

[scopes."land/on-read"]
callback_partner = "land/read"

[resource_servers.mapper]
name = "Mapper"
identifier = "https://mapper.example"
scopes = ["mapper/*", "land.read"]
event_stream = { delivery = "push", endpoint_url = "https://mapper.example/e" }
properties = { allowed_networks = ["10.0.0.0/8"] }

[clients.ministry]
name = "وزارة المالية"
organisation = 'A "quoted" \\ name'
allowed_scopes = ["mapper/*", "land.read"]
default_scopes = ["mapper.link"]
allowed_resource_servers = ["mapper"]
token_lifetime_seconds = 300
expires_at = 2030-01-01T02:00:00+02:00

[clients."urn:x/y"]
name = "Y"
enabled = false
authentication_method = "private_key_jwt"
allowed_scopes = ["land/read"]

[clients."urn:x/y".properties]
allowed_networks = ["10.0.0.0/8"]
payment_windows = [{ from = "08:00", to = "17:00", time_zone = "Africa/Nairobi" }]
"""
CLIENT = '[clients.ministry]\nname = "Ministry"\nallowed_scopes = ["mapper/link"]\n'


def _acts(plan):
    return [(change.act, change.noun, change.id) for change in plan.changes]


def _fields(plan):
    return {field.path: (field.before, field.after) for field in plan.changes[0].fields}


def test_a_file_is_applied_once_and_the_second_time_changes_nothing(files, operator):
    """Every kind of entry is added, with records; an application without changes has none."""
    plan = files.apply(WHOLE)
    assert _acts(plan) == [
        ("add", "scope", "land/on-read"),
        ("add", "scope", "land/read"),
        ("add", "resource server", "mapper"),
        ("add", "client", "ministry"),
        ("add", "client", "urn:x/y"),
    ]
    assert plan.changes[3].money_scopes == ("land/read",)
    ministry = clients.get_client(operator.services, "ministry")
    assert ministry.default_scopes == ("mapper/link",)
    assert ministry.expires_at.isoformat() == "2030-01-01T00:00:00+00:00"
    assert clients.get_client(operator.services, "urn:x/y").state == "disabled"
    assert scopes.get_scope(operator.services, "land/read").callback_partner == "land/on-read"
    before = operator.records()
    assert before[-1][1] == "declaration.applied"
    assert files.apply(WHOLE, prune=True).changes == ()
    assert operator.records() == before


@pytest.mark.parametrize("form", ["toml", "json"])
def test_an_export_is_applied_without_a_change(files, form):
    """The round trip holds for every kind of entry, and for an empty server."""
    empty = files.export(form)
    assert files.apply(empty, f"empty.{form}", prune=True).changes == ()
    files.apply(WHOLE)
    text = files.export(form)
    assert files.apply(text, f"whole.{form}", prune=True).changes == ()
    assert files.export(form) == text
    removed = files.apply(empty, f"empty.{form}", prune=True)
    assert {act for act, _, _ in _acts(removed)} == {"remove"}
    assert files.export(form) == empty
    files.apply(text, f"whole.{form}")
    assert files.export(form) == text


def test_the_export_is_in_order_and_marks_money(files):
    """Entries and lists are sorted, so that a review sees what changed alone."""
    files.apply(WHOLE)
    lines = files.export().splitlines()
    assert '    "land/read",  # money' in lines
    assert lines.index("[clients.ministry]") < lines.index('[clients."urn:x/y"]')
    assert json.loads(files.export("json"))["catalogues"] == ["g2p-connect"]


def test_a_dry_run_shows_the_plan_and_changes_nothing(files, operator, tmp_path):
    """The plan is that of the application; neither rows, records nor secrets are left."""
    planned = files.apply(WHOLE, dry_run=True, secret_directory=tmp_path / "secrets")
    assert operator.records() == []
    assert not (tmp_path / "secrets").exists()
    assert find_clients(operator.services, ClientFilters()).clients == ()
    assert files.apply(WHOLE, secret_directory=tmp_path / "secrets") == planned


def test_a_change_has_the_old_and_the_new_value(files):
    """A member that is left out has its default again; the properties differ one by one."""
    files.apply(f"{CLIENT}organisation = 'State'\nproperties.allowed_networks = ['10.0.0.0/8']\n")
    properties = 'properties.jwks_uri = "https://keys.example/jwks"\n'
    plan = files.apply(CLIENT.replace('"mapper/link"', '"disburse/disburse"') + properties)
    assert _fields(plan) == {
        "organisation": ("State", ""),
        "allowed_scopes": (["mapper/link"], ["disburse/disburse"]),
        "properties.jwks_uri": (None, "https://keys.example/jwks"),
        "properties.allowed_networks": (["10.0.0.0/8"], None),
    }
    assert plan.changes[0].money_scopes == ("disburse/disburse",)
    assert plan.unowned_scopes == ("disburse/disburse",)


def test_a_file_without_a_state_does_not_enable_a_client(files, operator):
    """A client that was disabled in an emergency stays so until a file enables it."""
    files.apply(CLIENT)
    clients.set_enabled(
        operator.services, "ministry", kind="client", actor=operator.actor, enabled=False
    )
    assert files.apply(CLIENT).changes == ()
    assert _fields(files.apply(f"{CLIENT}enabled = true\n")) == {"enabled": (False, True)}
    assert clients.get_client(operator.services, "ministry").state == "enabled"


def test_every_record_names_the_source(files, operator):
    """The records of the changes have the digest of the files, and one has their paths."""
    plan = files.apply(CLIENT)
    with operator.services.transaction() as session:
        rows = session.scalars(
            select(AuditRecord).where(AuditRecord.actor == operator.actor).order_by(AuditRecord.id)
        ).all()
    assert [row.action for row in rows] == ["client.created", "declaration.applied"]
    assert {row.detail["declaration"] for row in rows} == {plan.digest}
    assert rows[-1].subject == plan.digest
    assert (rows[-1].detail["added"], rows[-1].detail["removed"]) == (1, 0)
    assert rows[-1].detail["files"][0].endswith("a.toml")


def test_every_record_of_an_entry_has_its_diff(files, operator):
    """As those of the single commands; the record of the whole counts the changes."""
    files.apply(WHOLE)
    files.apply(WHOLE.replace('name = "Mapper"', 'name = "M"').replace("= 300", "= 200"))
    with operator.services.transaction() as session:
        rows = session.scalars(select(AuditRecord).where(AuditRecord.actor == operator.actor))
        found = [(row.action, row.subject, row.detail.get("diff")) for row in rows]
    assert {action for action, _, diff in found if not diff} == {"declaration.applied"}
    owners = {"resource_server": {"before": None, "after": "mapper"}}
    assert ("scope.assigned", "land/read", owners) in found
    (changed,) = (diff for action, _, diff in found if action == "client.updated")
    assert changed == {"token_lifetime_seconds": {"before": 300, "after": 200}}


def test_other_processes_learn_of_each_change(files, operator):
    """Every changed client and scope is in the change feed, with revisions without a gap."""
    files.apply(WHOLE)
    with operator.services.transaction() as session:
        rows = session.execute(select(Change.revision, Change.kind, Change.subject)).all()
        latest = session.scalar(select(Revision.value))
    assert sorted(row.revision for row in rows) == list(range(1, latest + 1))
    changed = {(row.kind, row.subject) for row in rows}
    assert {("client", "ministry"), ("client", "mapper"), ("scope", "land/read")} <= changed


def test_pruning_is_limited_to_the_sections_of_the_files(files):
    """A file of clients removes clients, and neither resource servers nor scopes."""
    files.apply(WHOLE)
    assert _acts(files.apply("[clients]\n", prune=True)) == [
        ("remove", "client", "ministry"),
        ("remove", "client", "urn:x/y"),
    ]
    assert _acts(files.apply("[resource_servers]\n[scopes]\n", prune=True)) == [
        ("remove", "resource server", "mapper"),
        ("remove", "scope", "land/on-read"),
        ("remove", "scope", "land/read"),
    ]


def test_what_is_in_use_is_not_pruned(files):
    """A scope that a client may ask for and the only resource server of a client stay."""
    files.apply(WHOLE)
    with pytest.raises(ConflictError, match="land/read is not in the files, and the client"):
        files.apply("[scopes]\n", prune=True)
    with pytest.raises(ConflictError, match="held to the resource server 'mapper'"):
        files.apply("[resource_servers]\n", prune=True)


def test_the_admin_api_is_neither_exported_nor_pruned(files, operator):
    """A file cannot cut administrators off."""
    register_admin_api(operator.services, actor=operator.actor)
    assert "authz-server-admin" not in files.export()
    empty = "[clients]\n[resource_servers]\n[scopes]\n"
    assert files.apply(empty, prune=True).changes == ()


def test_dynamically_registered_clients_are_neither_exported_nor_pruned(files, operator):
    """They manage their registration themselves; a file cannot take their id either."""
    files.apply(CLIENT)
    registration = Registration(
        client_id="ministry",
        token_digest="",
        granted_by="",
        permitted_scopes=[],
        permitted_grant_types=[],
        registered_scopes=[],
        registered_grant_types=[],
        registered={},
        software_statement={},
        registered_at=operator.services.clock(),
    )
    with operator.services.transaction() as session:
        session.add(registration)
    assert "ministry" not in files.export()
    assert files.apply("[clients]\n", prune=True).changes == ()
    with pytest.raises(ConflictError, match=r'clients."ministry": The id .* is taken'):
        files.apply(CLIENT)


def test_every_field_of_a_scope_is_changed(files, operator):
    """Also of a scope of a catalogue, which the export then has; aliases replace each other."""
    own = '[scopes.own]\nrisk = "read"\naliases = ["mine"]\n'
    files.apply(own)
    text = """
catalogues = ["g2p-connect"]
[scopes.own]
description = "Changed."
risk = "money"
lifetime_cap_seconds = 60
aliases = ["ours"]
callback_partner = "mapper/link"
[scopes."mapper/link"]
description = "Link with care."
lifetime_cap_seconds = 120
aliases = ["mapper.link"]
callback_partner = "mapper/on-link"
"""
    plan = files.apply(text)
    assert [(change.act, change.id) for change in plan.changes] == [
        ("change", "mapper/link"),
        ("change", "own"),
    ]
    scope = scopes.get_scope(operator.services, "ours")
    assert (scope.name, scope.risk, scope.lifetime_cap_seconds) == ("own", "money", 60)
    with pytest.raises(NotFoundError):
        scopes.get_scope(operator.services, "mine")
    exported = files.export()
    assert 'description = "Link with care."' in exported
    assert files.apply(exported, prune=True).changes == ()
    restored = files.apply('catalogues = ["g2p-connect"]\n')
    assert [change.id for change in restored.changes] == ["mapper/link"]


def test_an_event_stream_is_begun_changed_kept_and_deleted(files, operator):
    """A file without the member leaves it as it is; false deletes it."""
    server = '[resource_servers.api]\nname = "API"\nidentifier = "https://api.example"\n'
    poll = {"delivery": "poll", "events": ["stopped"]}
    begun = files.apply(server + 'event_stream = { delivery = "poll", events = ["stopped"] }')
    assert _fields(begun)["event_stream"] == (None, poll)
    assert event_streams.get_stream(operator.services, "api").events == ("stopped",)
    assert files.apply(server).changes == ()
    changed = files.apply(server + 'event_stream = { delivery = "poll" }')
    assert _fields(changed) == {"event_stream": (poll, {"delivery": "poll"})}
    for wrong in ("true", '{ delivery = "pull" }', '{ delivery = "push" }'):
        with pytest.raises(InvalidChangeError, match=r'a\.toml:1: resource_servers\."api": '):
            files.apply(f"{server}event_stream = {wrong}")
    deleted = files.apply(server + "event_stream = false")
    assert _fields(deleted) == {"event_stream": ({"delivery": "poll"}, None)}
    assert files.apply(server + "event_stream = false").changes == ()
    assert event_streams.list_streams(operator.services) == ()


def test_a_scope_goes_from_one_declared_resource_server_to_another(files, operator):
    """The plan shows both; a scope that is listed by none has no owner."""
    server = (
        '[resource_servers.{0}]\nname = "S"\nidentifier = "https://{0}.example"\nscopes = {1}\n'
    )
    files.apply(server.format("one", ["mapper/link", "mapper/update"]) + server.format("two", []))
    plan = files.apply(server.format("one", []) + server.format("two", ["mapper/link"]))
    assert [(change.id, change.fields[0].path) for change in plan.changes] == [
        ("one", "scopes"),
        ("two", "scopes"),
    ]
    owners = [
        scopes.get_scope(operator.services, name).resource_server
        for name in ("mapper/link", "mapper/update")
    ]
    assert owners == ["two", None]


def test_a_scope_is_not_taken_from_a_resource_server_that_no_file_has(files, operator):
    """Its owner is somebody else's concern."""
    resource_servers.create_resource_server(
        operator.services,
        actor=operator.actor,
        id="other",
        name="Other",
        identifier="https://other.example",
        scopes=["mapper/link"],
    )
    text = '[resource_servers.one]\nname = "S"\nidentifier = "urn:x:y"\nscopes = ["mapper/link"]\n'
    with pytest.raises(ConflictError, match=r'resource_servers."one": scopes: mapper/link belongs'):
        files.apply(text)


@pytest.mark.parametrize(
    ("text", "kind", "message"),
    [
        (CLIENT.replace("mapper/link", "unknown"), InvalidChangeError, "no scope 'unknown'"),
        (CLIENT.replace("mapper/link", "unknown/*"), NotFoundError, "no scope under"),
        (CLIENT + "token_lifetime_seconds = 999999\n", InvalidChangeError, "token_lifetime"),
        (CLIENT + 'properties.colour = "red"\n', InvalidChangeError, "no such property"),
        (CLIENT + 'properties.allowed_networks = ["x"]\n', InvalidChangeError, "allowed_networks"),
        (CLIENT + 'allowed_resource_servers = ["x"]\n', InvalidChangeError, "no resource server"),
        (CLIENT.replace("ministry", '"a b"'), InvalidChangeError, "id: use 3 to 128"),
        (CLIENT.replace('"Ministry"', r'"\u202E"'), InvalidChangeError, "name: control"),
        ('[scopes."mapper.link"]\n', ConflictError, "already means the scope"),
        ('[scopes."a b"]\n', InvalidChangeError, "not a valid scope name"),
        ('[scopes.own]\nrisk = "none"\n', InvalidChangeError, "risk: use"),
        ('[scopes.own]\ncallback_partner = "x"\n', InvalidChangeError, "callback_partner"),
        ('[resource_servers.api]\nname = "A"\nidentifier = "x"\n', InvalidChangeError, "identif"),
        (
            '[resource_servers.api]\nname = "A"\nidentifier = "urn:a:b"\nsigning_ring = "x"\n',
            InvalidChangeError,
            "signing_ring",
        ),
    ],
)
def test_a_refusal_names_file_line_and_entry_and_undoes_everything(
    shared_files, shared_operator, text, kind, message
):
    """The rules are those of the other ways in; what came before in the file is not made."""
    first = '[clients.agency]\nname = "Agency"\nallowed_scopes = ["mapper/link"]\n'
    with pytest.raises(kind, match=message) as refusal:
        shared_files.apply(first + text)
    assert "a.toml:4: " in str(refusal.value)
    assert shared_operator.records() == []
    assert find_clients(shared_operator.services, ClientFilters()).clients == ()


def test_a_plan_that_was_agreed_to_is_not_applied_to_another_state(files, operator):
    """A change between the question and the answer ends the application."""
    planned = files.apply(CLIENT, dry_run=True)
    clients.create_client(
        operator.services,
        actor="operator:other",
        id="ministry",
        name="Other",
        allowed_scopes=["mapper/update"],
        with_secret=False,
    )
    with pytest.raises(ConflictError, match="have changed since the plan"):
        files.apply(CLIENT, expected=planned)
    assert clients.get_client(operator.services, "ministry").name == "Other"


def test_two_applications_at_once_make_one_change(files, operator):
    """One waits for the other and finds nothing to do."""
    path = files.write(WHOLE)
    plans = []
    threads = [Thread(target=lambda: plans.append(files.apply_files([path]))) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(len(plan.changes) for plan in plans) == [0, 5]
    applied = [action for _, action, _ in operator.records() if action == "declaration.applied"]
    assert len(applied) == 1


def test_many_clients_are_applied_in_seconds(files):
    """300 clients take about a second of processor time; on a busy machine it is more."""
    many = "".join(CLIENT.replace("ministry", f"client-{number}") for number in range(300))
    began = time.process_time()
    assert files.apply(many).count("add") == 300
    assert files.apply(many).changes == ()
    assert time.process_time() - began < 10
