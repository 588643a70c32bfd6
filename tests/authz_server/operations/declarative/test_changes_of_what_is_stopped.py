"""A stop ends by `stop lift` alone: no change of scopes, resource servers or clients ends it."""

from typing import Any

import pytest

from authz_server.errors import ConflictError
from authz_server.operations.programmes import define_programme, delete_programme
from authz_server.operations.resource_servers import create_resource_server
from authz_server.operations.scopes import assign_scopes
from authz_server.operations.stops import lift_stop, plan_stop, set_stop

SCOPE = '[scopes."land/read"]\n{}\n'
SERVERS = """
[resource_servers.one]
name = "One"
identifier = "https://one.example"
scopes = [{one}]
[resource_servers.two]
name = "Two"
identifier = "https://two.example"
scopes = [{two}]
[clients.payer]
name = "Payer"
allowed_scopes = []
"""
OWNED = SCOPE.format('aliases = ["land.read"]') + SERVERS.format(one='"land/read"', two="")
STOPS = (
    ("resource-server", "one"),
    ("scope", "land/read"),
    ("programme", "cash"),
    ("client", "payer"),
)


@pytest.mark.parametrize(("kind", "subject"), STOPS)
def test_a_stop_is_not_ended_by_a_change_of_what_it_stops(operator, files, kind, subject):
    services, by = operator.services, {"actor": operator.actor}
    files.apply(OWNED)
    define_programme(services, "cash", scopes=["land/read"], clients=[], **by)
    set_stop(services, plan_stop(services, kind, subject), reason="INC-1", **by)
    of_server, of_scope = kind == "resource-server", kind != "client"
    take: dict[str, Any] = {"take_over": True, **by}
    moved = SERVERS.format(one="", two='"land/read"')
    freed = SERVERS.format(one="", two="")
    three: dict[str, Any] = {
        "id": "three",
        "name": "3",
        "identifier": "urn:t:3",
        "scopes": ["land/read"],
    }
    attempts = (
        (of_server, lambda: assign_scopes(services, ["land.read"], "two", **take)),
        (of_server, lambda: assign_scopes(services, ["land/*"], None, **take)),
        (of_server, lambda: create_resource_server(services, **three, **take)),
        (of_server, lambda: files.apply(moved)),
        (of_server, lambda: files.apply(freed)),
        (of_server, lambda: files.apply("[resource_servers]\n", prune=True)),
        (of_scope, lambda: files.apply("[scopes]\n", prune=True)),
        (of_scope, lambda: files.apply(SCOPE.format(""))),
        (
            kind == "programme",
            lambda: define_programme(services, "cash", scopes=[], clients=["payer"], **by),
        ),
        (kind == "programme", lambda: delete_programme(services, "cash", **by)),
    )
    for is_refused, attempt in attempts:
        if is_refused:
            with pytest.raises(ConflictError, match="is stopped: lift the stop first"):
                attempt()
    # Others can get what another stop concerns: the stop stays with the scope.
    if kind == "scope":
        assign_scopes(services, ["land/read"], "two", **take)
    if kind == "client":
        files.apply("[clients]\n", prune=True)
        files.apply(OWNED)
        services.feed.poll()
        assert services.stops.find_of_client("payer") == "client payer"
    else:
        services.feed.poll()
        assert services.stops.find_of_scope(services.catalogue.find("land/read"))
    lift_stop(services, kind, subject, reason="over", **by)
    if of_server:
        files.apply(moved)
        files.apply("[resource_servers]\n[scopes]\n", prune=True)
