"""Roles and limits on every route: the cases are generated from the table of routes."""

import json
import re
from contextlib import ExitStack
from dataclasses import replace

import pytest
from msgspec import structs

from authz_server.admin.routes import ROUTES, Route
from authz_server.operations.group_roles import GroupRoles
from authz_server.operations.permissions import (
    FRESH_PERMISSIONS,
    ROLES,
    UNLIMITED,
    Limits,
    roles_of,
)
from authz_server.settings.admin import SHIPPED_ROLES
from authz_server.settings.operators import GroupRole
from support.admin_site import ALL_SCOPES, running_admin_site
from support.administrators import (
    BY_ORGANISATION,
    BY_SERVER,
    MARK,
    Administration,
    make_administration,
)
from support.databases import copied_database

HELPDESK = {"helpdesk": {"permissions": ["clients:read", "secrets:write"]}}
LIMITS = {"unlimited": UNLIMITED, "by server": BY_SERVER, "by organisation": BY_ORGANISATION}
#: The parameters of paths: what belongs to others, and what does not exist.
_PARAMETERS = {
    "scope": (f"{MARK}%2Fread", "absent%2Fread"),
    "kind": ("scope", "scope"),
    "subject": (f"{MARK}%2Fread", "absent%2Fread"),
    "change_id": (MARK, "absent"),
    "resource_server": (f"{MARK}-server", "absent"),
}
#: Bodies that are complete, so that the item decides on the answer.
_BODIES = {
    "secrets/rotate": {"end_old_when_unused_seconds": 86_400},
    "assign": {"resource_server": None},
    "lift": {"reason": "over"},
}
#: A route of each method that asks for no recent log-in and is open to callers with limits.
_NOT_FRESH = {
    route.method: route
    for route in ROUTES
    if route.permission not in FRESH_PERMISSIONS and route.limited in {"part", "items"}
}.values()


@pytest.fixture(scope="module")
def rules(request, tmp_path_factory) -> Administration:
    """A site for rules that no database decides, with a role of its settings."""
    directory = tmp_path_factory.mktemp("roles")
    admin = {"enabled": True, "requests_per_minute": 1_000_000, "roles": HELPDESK}
    with ExitStack() as running:
        url = running.enter_context(copied_database(request, "sqlite", directory))
        site = running.enter_context(running_admin_site(directory, url, {"admin": admin}))
        yield make_administration(site)


def _path(route: Route, which: int, ours: Administration) -> str:
    """Return the path of a route to what belongs to others (0), or does not exist (1)."""
    kind = "server" if route.path.startswith("/resource-servers") else "client"
    others = f"{MARK}-{kind}"
    known = {
        **_PARAMETERS,
        "client_id": (others, "absent"),
        "secret_id": (ours.secret_ids[others], "absent"),
        "token_id": (ours.secret_ids["token"], "absent"),
    }
    return re.sub(r"\{(\w+)\}", lambda found: known[found[1]][which], route.path)


def _body(route: Route) -> object:
    if route.body is None:
        return None
    return next((body for end, body in _BODIES.items() if route.path.endswith(end)), {})


def _expected(route: Route, permissions: frozenset[str], limits: Limits, *, fresh: bool) -> str:
    """Return the name of the refusal that the rules of a route demand; empty for none."""
    needed = {*route.further} if route.one_of else {route.permission, *route.further}
    if not permissions.isdisjoint(route.instead):
        needed -= {route.permission}
    if not permissions.issuperset(needed - {""}) or (
        route.one_of and permissions.isdisjoint(route.one_of)
    ):
        return "insufficient-scope"
    if limits and route.limited not in {"open", "part", "items"}:
        return "refused"
    if route.permission in FRESH_PERMISSIONS and not fresh:
        return "insufficient-user-authentication"
    return ""


def test_every_route_says_what_callers_with_limits_get():
    """A route without a rule is refused to them, and fails here."""
    assert [each.path for each in ROUTES if each.limited is None] == []
    assert {each.path for each in ROUTES if each.limited == "open"} == {
        "/openapi.json",
        "/changes/{change_id}/break-glass",
        "/changes/{change_id}/withdraw",
    }


def test_roles_name_permissions_that_exist():
    """The shipped roles are the ones whose names the settings cannot take."""
    assert ROLES.keys() == SHIPPED_ROLES
    for role in ROLES.values():
        assert role.permissions <= set(ALL_SCOPES)
    assert not any(each.endswith(":write") for each in ROLES["auditor"].permissions)


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        (("x", "A"), ("y", "B"), ("", "")),
        (("xz", "A"), ("yz", "AB"), ("z", "A")),
        (("x", "A"), ("x", "B"), ("x", "AB")),
        (("x", "A"), ("xy", "AB"), ("xy", "AB")),
        (("x", "A"), ("x", None), ("x", None)),
        (("x", None), (None, "A"), ("x", "A")),
        (("x", None), ("y", None), ("xy", None)),
        (("x", "A"), (None, None), (None, None)),
    ],
    ids=str,
)
def test_two_groups_permit_nothing_that_neither_of_them_permits(rules, one, other, expected):
    """Limits of two roles are not mixed: x with A, and y with B, do not give x with B."""
    settings = rules.site.settings
    roles = {
        name: (GroupRole(role="client-manager", resource_servers=servers, organisations=names),)
        for name, servers, names in (
            (name, tuple(servers or ()), tuple(names or ()))
            for name, (servers, names) in (("g1", one), ("g2", other))
        )
    }
    openid = structs.replace(settings.admin.openid, roles=roles)
    admin = structs.replace(settings.admin, openid=openid)
    groups = GroupRoles(structs.replace(settings, admin=admin))
    servers, names = (None if each is None else frozenset(each) for each in expected)
    for order in (("g1", "g2"), ("g2", "g1")):
        person = replace(rules.caller(), grants=groups.grants(order))
        limits = person.limits_for("clients:write")
        assert limits == Limits(resource_servers=servers, organisations=names)


@pytest.mark.parametrize("limited", LIMITS)
@pytest.mark.parametrize("role", [*ROLES, *HELPDESK])
def test_a_role_permits_its_routes_and_no_others(rules, role, limited):
    """Role x limit x route x method: each answer is the one that the table demands. Case H87."""
    limits = LIMITS[limited]
    permissions = roles_of(rules.site.settings)[role].permissions
    for fresh in (True, False):
        # With limits and an old log-in, of those that ask for no recent one, one of each method.
        routes = [
            each
            for each in ROUTES
            if fresh or not limits or each.permission in FRESH_PERMISSIONS or each in _NOT_FRESH
        ]
        caller = rules.caller(role, limits=limits, logged_in_seconds_ago=0 if fresh else 301)
        for route in routes:
            path = re.sub(r"\{\w+\}", "missing", route.path)
            done = rules.perform(caller, route.method, path, body=_body(route), if_match="*")
            expected = _expected(route, permissions, limits, fresh=fresh)
            if expected:
                named = done.body["type"].rpartition(":")[2]
                assert named == expected, (route.method, route.path, done.body)
            else:
                assert done.status not in {401, 403}, (route.method, route.path, done.body)


@pytest.mark.parametrize("limits", [BY_SERVER, BY_ORGANISATION], ids=["server", "organisation"])
@pytest.mark.parametrize(
    "route",
    [each for each in ROUTES if "{" in each.path and each.limited == "part"],
    ids=lambda route: f"{route.method} {route.path}",
)
def test_what_belongs_to_others_is_answered_as_what_does_not_exist(ours, route, limits):
    """In text, and in the statements that take the time. Case H87."""
    caller = ours.caller(*ROLES, limits=limits)
    # What lies within the limits is read by the first request after a change, whatever it names.
    ours.perform(caller, route.method, _path(route, 1, ours), body=_body(route), if_match="*")
    answers, statements = [], []
    for which in (0, 1):
        path = _path(route, which, ours)
        with ours.statements() as seen:
            done = ours.perform(caller, route.method, path, body=_body(route), if_match="*")
        assert done.status == 404, done.body
        statements.append(len(seen))
        text = json.dumps({**done.body, "request_id": ""})
        for name in (*ours.secret_ids.values(), f"{MARK}-client", f"{MARK}-server", MARK):
            text = text.replace(name, "absent")
        answers.append(text)
    assert answers[0] == answers[1]
    assert statements[0] == statements[1]


@pytest.mark.parametrize("limits", [BY_SERVER, BY_ORGANISATION], ids=["server", "organisation"])
def test_no_answer_names_what_belongs_to_others(ours, limits):
    """Lists, items, reports and records; an unlimited caller is answered with it. Case H87."""
    caller = ours.caller(*ROLES, limits=limits)
    everything = ours.caller(*ROLES)
    items = ["/clients/own-client", "/clients/own-client/secrets", "/resource-servers/mine"]
    lists = [
        each.path
        for each in ROUTES
        if each.method == "GET" and each.limited == "part" and "{" not in each.path
    ]
    for path in (*items, *lists, "/clients/shared"):
        done = ours.perform(caller, "GET", path, query={"limit": 500} if path in lists else None)
        if path == "/clients/shared" and limits is BY_ORGANISATION:
            assert done.status == 404
            continue
        if done.status == 400:
            done = ours.perform(caller, "GET", path)
        assert done.status == 200, (path, done.body)
        assert MARK not in json.dumps(done.body), path
    for path in ("/clients", "/resource-servers", "/scopes", "/stops", "/audit"):
        assert MARK in json.dumps(ours.perform(everything, "GET", path).body), path
        mine = ours.perform(caller, "GET", path).body["items"]
        assert mine or path == "/stops", path
