"""The screen *APIs and scopes*: who may call what, and the kill switch."""

from collections import Counter
from typing import Any

from flask import Response

from authz_server.admin.console.desk import path_of
from authz_server.admin.console.rendering import RISKS
from authz_server.admin.console.views import View

_PAGE = 40
#: The largest number of cells of a matrix.
_CELLS = 900
#: The largest number of shown callbacks.
_CALLBACKS = 50


def show_list(view: View) -> Response:
    """Show the resource servers with their scopes, stops and programmes."""
    scopes = view.desk.every("/scopes", "scopes:read")
    page = view.desk.find(
        "/resource-servers",
        "resource-servers:read",
        cursor=view.arguments.get("cursor"),
        limit=_PAGE,
    )
    servers = page["items"] if page else []
    stops = view.desk.every("/stops", "scopes:read")
    known = {each["name"]: each["risk"] for each in scopes}
    for server in servers:
        counted = Counter(known[name] for name in server["scopes"] if name in known)
        server["risks"] = {name: counted[name] for name in reversed(RISKS) if counted[name]}
    return view.page(
        "apis.html",
        servers=servers,
        following=page["next"] if page else None,
        without_owner=[each for each in scopes if each["resource_server"] is None],
        stops=stops,
        stopped={(each["kind"], each["subject"]) for each in stops},
        programmes=view.desk.every("/programmes", "scopes:read"),
        callbacks=_callbacks(view),
    )


def show(view: View) -> Response:
    """Show who may call one resource server, as a matrix of clients and scopes."""
    server_id = view.arguments.get("id", "")
    server = view.desk.get(path_of("/resource-servers/{}", server_id))
    part = view.arguments.get("scopes")
    scopes = view.desk.get("/scopes", resource_server=server_id, cursor=part, limit=_PAGE)
    stops = view.desk.every("/stops", "scopes:read")
    page = view.desk.find(
        "/clients",
        "clients:read",
        resource_server=server_id,
        cursor=view.arguments.get("cursor"),
        limit=min(max(_CELLS // (len(scopes["items"]) or 1), 1), _PAGE),
    )
    return view.page(
        "api.html",
        server=server,
        scopes=scopes["items"],
        further_scopes=scopes["next"],
        clients=page["items"] if page else [],
        following=page["next"] if page else None,
        stopped={(each["kind"], each["subject"]) for each in stops},
    )


def _callbacks(view: View) -> list[dict[str, Any]]:
    """Return the callbacks whose partner operation is not granted."""
    report = view.desk.find("/reports/owners", "clients:read", limit=_CALLBACKS)
    return list(report["callbacks_without_partner"]) if report else []
