"""The screen *APIs and scopes*: who may call what, and the kill switch."""

from collections import Counter
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

from flask import Response

from authz_server.admin.console.desk import path_of
from authz_server.admin.console.rendering import RISKS, as_time
from authz_server.admin.console.views import View
from authz_server.clients.registrations import ADMIN_IDENTIFIER
from authz_server.operations.permissions import UNLIMITED

_PAGE = 40
#: The rows of each table on the page of all APIs, and the names of scopes without one.
_SERVERS, _STOPS, _PROGRAMMES, _UNOWNED = 20, 12, 10, 25
_DIGITS = 9
#: A secret that ends within this time is due.
DUE_WITHIN = timedelta(days=30)
_RECORDS = 20
#: The scopes on the page of an API, and the largest number of cells of its matrix.
_SCOPES, _CELLS = 30, 600
_READ, _WRITE = "resource-servers:read", "resource-servers:write"
#: The rows of callbacks, and the largest number of those that are read.
_CALLBACKS, _READ_CALLBACKS = 12, 500


def show_list(view: View) -> Response:
    """Show the resource servers with their scopes, stops and programmes."""
    scopes = view.desk.every("/scopes", "scopes:read")
    page = view.desk.find(
        "/resource-servers",
        _READ,
        cursor=view.arguments.get("cursor"),
        limit=_SERVERS,
    )
    servers = page["items"] if page else []
    stops = view.desk.every("/stops", "scopes:read")
    known = {each["name"]: each["risk"] for each in scopes}
    unowned = [each for each in scopes if each["resource_server"] is None]
    programmes = view.desk.every("/programmes", "scopes:read")
    due = view.now + DUE_WITHIN
    for server in servers:
        _add_facts(server, known, due)
    return view.page(
        "apis.html",
        servers=servers,
        following=page["next"] if page else None,
        without_owner=_part(view, "unowned", unowned, _UNOWNED),
        unowned_count=len(unowned),
        stops=_part(view, "stops", stops, _STOPS),
        stopped={(each["kind"], each["subject"]) for each in stops},
        programmes=_part(view, "programmes", programmes, _PROGRAMMES),
        callbacks=_part(view, "callbacks", _callbacks(view), _CALLBACKS),
        may_register=_may_register(view),
        may_import=view.desk.caller.limits_for("scopes:write") == UNLIMITED,
    )


def _part(view: View, name: str, items: list[Any], number: int) -> dict[str, Any]:
    """Return the rows of a table from the one in a parameter on, and where the next ones begin."""
    given = view.arguments.get(name, "")
    begin = int(given) if given.isascii() and given.isdigit() and len(given) < _DIGITS else 0
    end = begin + number
    return {"rows": items[begin:end], "next": end if end < len(items) else None}


def _add_facts(server: dict[str, Any], risks: Mapping[str, str], due: datetime) -> None:
    """Add the numbers of its scopes by risk, and the end of a secret that ends soon."""
    counted = Counter(risks[name] for name in server["scopes"] if name in risks)
    server["risks"] = {name: counted[name] for name in reversed(RISKS) if counted[name]}
    ends = [each["ends_at"] for each in server["secrets"] if each["works"] and each["ends_at"]]
    server["secret_ends_at"] = min((each for each in ends if as_time(each) <= due), default=None)


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
        stream=_stream(view, server),
        may_register=_may_register(view) and server["identifier"] != ADMIN_IDENTIFIER,
        scopes=scopes["items"],
        further_scopes=scopes["next"],
        clients=page["items"] if page else [],
        following=page["next"] if page else None,
        stopped={(each["kind"], each["subject"]) for each in stops},
    )


def show_scope(view: View) -> Response:
    """Show one scope: its facts, the clients that may ask for it, and its records."""
    scope = view.desk.get(path_of("/scopes/{}", view.arguments.get("name", "")))
    name = scope["name"]
    clients = view.desk.find(
        "/clients", "clients:read", scope=name, cursor=view.arguments.get("cursor"), limit=_PAGE
    )
    records = view.desk.find("/audit", "audit:read", subject=name, action="scope.", limit=_RECORDS)
    stops = view.desk.every("/stops", "scopes:read")
    programmes = view.desk.every("/programmes", "scopes:read")
    return view.page(
        "scope.html",
        scope=scope,
        changes=_reaches_scope(view, scope),
        clients=clients["items"] if clients else [],
        following=clients["next"] if clients else None,
        programmes=[each["name"] for each in programmes if name in each["scopes"]],
        records=records["items"] if records else [],
        stopped={(each["kind"], each["subject"]) for each in stops},
    )


def _reaches_scope(view: View, scope: dict[str, Any]) -> bool:
    """Return whether the operator changes a scope: within limits, one of an API within them."""
    limits = view.desk.caller.limits_for("scopes:write")
    if not limits:
        return limits is not None
    owner = scope["resource_server"]
    server = owner and view.desk.find(path_of("/resource-servers/{}", owner), _READ)
    return bool(server) and _reaches(view, server, "scopes:write")


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


def _stream(view: View, server: dict[str, Any]) -> dict[str, Any] | None:
    """Return the event stream of an API; None: it has none, or is not within the limits."""
    if not _reaches(view, server, _READ):
        return None
    found: dict[str, Any] | None = view.desk.find(path_of("/event-streams/{}", server["id"]), _READ)
    return found


def _may_register(view: View) -> bool:
    """Return whether the operator registers and deletes APIs, which no one with limits does."""
    limits = view.desk.caller.limits_for(_WRITE)
    return limits is not None and not limits


def _callbacks(view: View) -> list[dict[str, Any]]:
    """Return the callbacks whose partner operation is not granted."""
    report = view.desk.find("/reports/owners", "clients:read", limit=_READ_CALLBACKS)
    return list(report["callbacks_without_partner"]) if report else []
