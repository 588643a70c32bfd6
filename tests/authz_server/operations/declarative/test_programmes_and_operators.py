"""Programmes and operators in declarative files, by the rules of their single acts."""

import pytest
from sqlalchemy import select

from authz_server.audit.models import AuditRecord
from authz_server.errors import ConflictError, InvalidChangeError, NotFoundError
from authz_server.operations.clients import delete_client, get_client
from authz_server.operations.declarative.plan import FieldChange, PlannedChange
from authz_server.operations.operator_roles import AssignedRole
from authz_server.operations.operators import create_operator, list_operators
from authz_server.operations.programmes import (
    ProgrammeView,
    define_programme,
    list_programmes,
)
from authz_server.operations.stops import plan_stop, set_stop

CLIENT = '[clients.payer]\nname = "P"\nallowed_scopes = ["mapper/link"]\n'
PROGRAMMES = f"""{CLIENT}
[programmes."cash 2026"]
scopes = ["mapper.link", "mapper.resolve"]
clients = ["payer"]
"""
OPERATORS = """
[resource_servers.land]
name = "Land"
identifier = "urn:t:land"
scopes = []
[operators.ada]
roles = ["security-officer"]
[operators.bob]
roles = ["approver", { role = "api-owner", resource_servers = ["land"] }]
"""
OWNER = {"role": "api-owner", "resource_servers": ["land"]}


def roles_of(operator) -> dict[str, tuple[str, list[str]]]:
    """Return the state and the names of the roles of each operator."""
    return {
        each.name: (each.state, [role.role for role in each.roles])
        for each in list_operators(operator.services)
    }


def test_programmes_are_defined_changed_and_pruned(operator, files):
    plan = files.apply(PROGRAMMES)
    assert plan.changes[-1] == PlannedChange(
        act="add",
        noun="programme",
        id="cash 2026",
        fields=(
            FieldChange(path="scopes", before=None, after=["mapper/link", "mapper/resolve"]),
            FieldChange(path="clients", before=None, after=["payer"]),
        ),
    )
    stored = ProgrammeView(
        name="cash 2026", scopes=("mapper/link", "mapper/resolve"), clients=("payer",)
    )
    assert list_programmes(operator.services) == (stored,)
    assert files.apply(PROGRAMMES).changes == ()
    exported = files.export()
    assert '[programmes."cash 2026"]' in exported
    assert files.apply(exported, prune=True).changes == ()
    with pytest.raises(InvalidChangeError, match=r'programmes\."cash 2026": Name at least one'):
        files.apply('[programmes."cash 2026"]\n')
    with pytest.raises(NotFoundError, match=r'programmes\."other"'):
        files.apply('[programmes.other]\nclients = ["unknown"]\n')
    by = {"actor": operator.actor}
    set_stop(
        operator.services, plan_stop(operator.services, "programme", "cash 2026"), reason="x", **by
    )
    for text, options in (
        ("[programmes]\n", {"prune": True}),
        (PROGRAMMES.replace('"payer"', ""), {}),
    ):
        with pytest.raises(ConflictError, match="is stopped: lift the stop first"):
            files.apply(text, **options)
    assert list_programmes(operator.services) == (stored,)


@pytest.mark.parametrize(
    "name", ["", " ", "cash ", " cash", "x" * 101, "x" + " " * 200, "a\nb"], ids=range(7)
)
def test_a_programme_that_a_form_cannot_name_is_refused(operator, name):
    """Such as one with a space at its end, which a form leaves out: it would name another one."""
    with pytest.raises(InvalidChangeError, match="without spaces at its ends"):
        define_programme(
            operator.services, name, scopes=["mapper/link"], clients=[], actor=operator.actor
        )


def test_a_programme_is_pruned_where_the_files_have_the_section(operator, files):
    files.apply(PROGRAMMES)
    assert files.apply(CLIENT, prune=True).changes == ()
    plan = files.apply("[programmes]\n", prune=True)
    assert plan.changes == (PlannedChange(act="remove", noun="programme", id="cash 2026"),)
    assert list_programmes(operator.services) == ()


def test_what_is_removed_leaves_its_programmes(operator, files):
    """So that the export of the server can be applied; an empty programme is deleted."""
    services, by = operator.services, {"actor": operator.actor}
    own = '[scopes."land/read"]\n'
    files.apply(CLIENT + own)
    both = {"scopes": ("land/read",), "clients": ("payer",)}
    for name, members in (
        ("both", both),
        ("scope", {**both, "clients": ()}),
        ("client", {**both, "scopes": ()}),
    ):
        define_programme(services, name, **members, **by)
    wanted = '[programmes.both]\nscopes = ["land/read"]\n[scopes]\n'
    with pytest.raises(
        ConflictError, match=r'a\.toml:1: programmes\."both": the scope land/read is'
    ):
        files.apply(wanted, prune=True)
    files.apply("[scopes]\n", prune=True)
    assert list_programmes(services) == (
        ProgrammeView(name="both", scopes=(), clients=("payer",)),
        ProgrammeView(name="client", scopes=(), clients=("payer",)),
    )
    assert files.apply(files.export(), prune=True).changes == ()
    define_programme(services, "both", scopes=["mapper/link"], clients=["payer"], **by)
    delete_client(services, "payer", kind="client", **by)
    left = ProgrammeView(name="both", scopes=("mapper/link",), clients=())
    assert list_programmes(services) == (left,)
    assert files.apply(files.export(), prune=True).changes == ()
    with services.database.reading() as session:
        query = select(AuditRecord).where(AuditRecord.action.startswith("scope.programme_"))
        records = session.scalars(query.order_by(AuditRecord.id)).all()[-2:]
    assert [(each.action, each.subject, each.actor, each.detail) for each in records] == [
        (
            "scope.programme_defined",
            "both",
            operator.actor,
            {
                "scopes": ["mapper/link"],
                "clients": [],
                "diff": {"clients": {"before": ["payer"], "after": []}},
            },
        ),
        (
            "scope.programme_deleted",
            "client",
            operator.actor,
            {
                "scopes": [],
                "clients": ["payer"],
                "diff": {"clients": {"before": ["payer"], "after": None}},
            },
        ),
    ]


def test_a_client_does_not_leave_a_stopped_programme(operator, files):
    services, by = operator.services, {"actor": operator.actor}
    files.apply(PROGRAMMES)
    set_stop(services, plan_stop(services, "programme", "cash 2026"), reason="x", **by)
    for act in (
        lambda: delete_client(services, "payer", kind="client", **by),
        lambda: files.apply("[clients]\n", prune=True),
    ):
        with pytest.raises(ConflictError, match="A programme with 'payer' is stopped: lift"):
            act()
    assert get_client(services, "payer").state == "enabled"
    assert list_programmes(services)[0].clients == ("payer",)


def test_operators_have_the_roles_and_limits_of_the_files(operator, files):
    plan = files.apply(OPERATORS)
    assert plan.changes[1:] == (
        PlannedChange(
            act="add",
            noun="operator",
            id="ada",
            fields=(FieldChange(path="roles", before=None, after=["security-officer"]),),
        ),
        PlannedChange(
            act="add",
            noun="operator",
            id="bob",
            fields=(FieldChange(path="roles", before=None, after=[OWNER, "approver"]),),
        ),
    )
    assert roles_of(operator) == {
        "ada": ("enabled", ["security-officer"]),
        "bob": ("enabled", ["api-owner", "approver"]),
    }
    assert files.apply(OPERATORS).changes == ()
    assert "operators" not in files.export()
    exported = files.export(operators=True)
    written = 'roles = [{ role = "api-owner", resource_servers = ["land"] }, "approver"]'
    assert written in exported
    assert files.apply(exported, prune=True).changes == ()
    assert files.apply(files.export("json", operators=True), "a.json", prune=True).changes == ()
    plan = files.apply('[operators.bob]\nenabled = false\nroles = ["auditor"]\n')
    assert plan.changes[0].fields == (
        FieldChange(path="roles", before=[OWNER, "approver"], after=["auditor"]),
        FieldChange(path="enabled", before=True, after=False),
    )
    # Without a state in the file, it stays.
    assert files.apply('[operators.bob]\nroles = ["auditor"]\n').changes == ()
    assert roles_of(operator)["bob"] == ("disabled", ["auditor"])


def test_the_last_security_officer_is_not_lost(operator, files):
    files.apply(OPERATORS)
    for text, options in (
        ("[operators]\n", {"prune": True}),
        ('[operators.bob]\nroles = ["approver"]\n', {"prune": True}),
        ("[operators.ada]\n", {}),
        ('[operators.ada]\nenabled = false\nroles = ["security-officer"]\n', {}),
    ):
        with pytest.raises(ConflictError, match=r'operators\."ada": ada is the last enabled'):
            files.apply(text, **options)
    assert roles_of(operator)["ada"] == ("enabled", ["security-officer"])
    # Her successor comes first, in the same files.
    files.apply('[operators.zoe]\nroles = ["security-officer"]\n', prune=True)
    assert roles_of(operator) == {"zoe": ("enabled", ["security-officer"])}


def test_wrong_operators_are_refused_with_their_place(operator, files):
    create_operator(
        operator.services,
        actor=operator.actor,
        name="ada",
        roles=[AssignedRole(role="security-officer")],
    )
    for text, word in (
        ('[operators.eve]\nroles = ["ruler"]\n', "there is no role 'ruler'"),
        ('[operators.eve]\nroles = ["auditor", "auditor"]\n', "is named twice"),
        ('[operators.eve]\nroles = ["api-owner"]\n', "needs the resource servers"),
        ('[operators."e v e"]\n', "name: use 1 to"),
        ('[operators."\u00e9"]\n[operators."e\u0301"]\n', "the name occurs twice, in two forms"),
        ("[operators.eve]\nname = 1\n", "unknown field `name`"),
        ('[operators.eve]\nroles = [{ role = "auditor", until = 1 }]\n', "unknown field `until`"),
    ):
        with pytest.raises(InvalidChangeError, match=r'a\.toml:[12]: operators\."e') as refused:
            files.apply(text)
        assert word in str(refused.value)
    assert roles_of(operator) == {"ada": ("enabled", ["security-officer"])}
