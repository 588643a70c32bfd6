"""The screen *APIs and scopes*: who may call what, and the kill switch."""

from collections import Counter
from typing import Any

from flask import Response

from authz_server.admin.console.desk import path_of
from authz_server.admin.console.rendering import RISKS
from authz_server.admin.console.views import View

_CLIENTS = 50


def show_list(view: View) -> Response:
    """Show the resource servers with their scopes, stops and programmes."""
    scopes = view.desk.every("/scopes", "scopes:read")
    servers = view.desk.every("/resource-servers", "resource-servers:read")
    stops = view.desk.every("/stops", "scopes:read")
    known = {each["name"]: each["risk"] for each in scopes}
    for server in servers:
        counted = Counter(known[name] for name in server["scopes"] if name in known)
        server["risks"] = {name: counted[name] for name in reversed(RISKS) if counted[name]}
    return view.page(
        "apis.html",
        servers=servers,
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
    scopes = view.desk.every("/scopes", "scopes:read", resource_server=server_id)
    stops = view.desk.every("/stops", "scopes:read")
    page = view.desk.find(
        "/clients",
        "clients:read",
        resource_server=server_id,
        cursor=view.arguments.get("cursor"),
        limit=_CLIENTS,
    )
    return view.page(
        "api.html",
        server=server,
        scopes=scopes,
        clients=page["items"] if page else [],
        following=page["next"] if page else None,
        stopped={(each["kind"], each["subject"]) for each in stops},
    )


def _callbacks(view: View) -> list[dict[str, Any]]:
    """Return the callbacks whose partner operation is not granted."""
    report = view.desk.find("/reports/owners", "clients:read")
    return list(report["callbacks_without_partner"]) if report else []
