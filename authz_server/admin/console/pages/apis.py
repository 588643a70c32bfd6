"""The screen *APIs and scopes*: who may call what, and the kill switch."""

from collections import Counter
from typing import Any

from flask import Response

from authz_server.admin.console.desk import path_of
from authz_server.admin.console.rendering import RISKS
from authz_server.admin.console.views import View
from authz_server.clients.registrations import ADMIN_IDENTIFIER

_PAGE = 40
#: The scopes on the page of an API, and the largest number of cells of its matrix.
_SCOPES, _CELLS = 30, 600
_READ, _WRITE = "resource-servers:read", "resource-servers:write"
#: The largest number of shown callbacks.
_CALLBACKS = 50


def show_list(view: View) -> Response:
    """Show the resource servers with their scopes, stops and programmes."""
    scopes = view.desk.every("/scopes", "scopes:read")
    page = view.desk.find(
        "/resource-servers",
        _READ,
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
        may_register=_may_register(view),
    )


def show(view: View) -> Response:
    """Show who may call one resource server, as a matrix of clients and scopes."""
    server_id = view.arguments.get("id", "")
    server = view.desk.get(path_of("/resource-servers/{}", server_id))
    part = view.arguments.get("scopes")
    scopes = view.desk.get("/scopes", resource_server=server_id, cursor=part, limit=_SCOPES)
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
        has_secrets=_reaches(view, server, _READ),
        changes=_reaches(view, server, _WRITE),
        rotates=_reaches(view, server, _WRITE, "secrets:write"),
        assigns=_reaches(view, server, "scopes:write"),
        may_register=_may_register(view) and server["identifier"] != ADMIN_IDENTIFIER,
        scopes=scopes["items"],
        further_scopes=scopes["next"],
        clients=page["items"] if page else [],
        following=page["next"] if page else None,
        stopped={(each["kind"], each["subject"]) for each in stops},
    )


def _reaches(view: View, server: dict[str, Any], *permissions: str) -> bool:
    """Return whether an API lies within the limits of one of the permissions.

    One without an organisation serves all: it lies within no limits by organisations.
    """
    limits = view.desk.caller.limits_for(*permissions)
    if limits is None:
        return False
    pairs = (
        (limits.resource_servers, server["id"]),
        (limits.organisations, server["organisation"]),
    )
    return all(admitted is None or value in admitted for admitted, value in pairs)


def _may_register(view: View) -> bool:
    """Return whether the operator registers and deletes APIs, which no one with limits does."""
    limits = view.desk.caller.limits_for(_WRITE)
    return limits is not None and not limits


def _callbacks(view: View) -> list[dict[str, Any]]:
    """Return the callbacks whose partner operation is not granted."""
    report = view.desk.find("/reports/owners", "clients:read", limit=_CALLBACKS)
    return list(report["callbacks_without_partner"]) if report else []
