"""The screen *Clients*: a search, and the page of one client."""

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from flask import Response

from authz_server.admin.console.desk import RefusedError, path_of
from authz_server.admin.console.views import View
from authz_server.admin.problems import TYPE_PREFIX

_PAGE = 40
#: The period of the report of least privilege, and the rows of each of its lists.
_REVIEWED_DAYS, _REVIEWED = 90, 25
_RECORDS = 20
_SHOWN_SCOPES = 60
_TOKEN_AGE = timedelta(days=1)
#: The refusals of what was entered as a filter, which is shown to be corrected.
_OF_FILTERS = frozenset({400, 404, 422})
_INVALID_VALUE = f"{TYPE_PREFIX}invalid-value"
#: The filters of the list, by the name of their parameter.
FILTERS = (
    "q",
    "organisation",
    "scope",
    "state",
    "unused_since",
    "secret_ends_before",
    "resource_server",
)


def show_list(view: View) -> Response:
    """Show a page of the clients that match the search."""
    filters = {name: view.arguments.get(name, "") for name in FILTERS}
    refusal: RefusedError | None = None
    page: dict[str, Any] = {"items": [], "next": None}
    try:
        page = view.desk.get(
            "/clients", **filters, cursor=view.arguments.get("cursor"), limit=_PAGE
        )
    except RefusedError as refused:
        if refused.answer.status not in _OF_FILTERS:
            raise
        refusal = refused
    for client in page["items"]:
        add_facts(client)
    return view.page(
        "clients.html",
        status=refusal.answer.status if refusal else 200,
        clients=page["items"],
        following=page["next"],
        filters=filters,
        risks=risks(view),
        # Also where there is no such scope: the address is that of the list.
        refusal={**refusal.answer.body, "type": _INVALID_VALUE} if refusal else None,
    )


def show(view: View) -> Response:
    """Show one client."""
    name = view.arguments.get("id", "")
    client = view.desk.get(path_of("/clients/{}", name))
    catalogue = {each["name"]: each for each in view.desk.every("/scopes", "scopes:read")}
    return view.page(
        "client.html",
        client=client,
        shown=_SHOWN_SCOPES,
        catalogue=catalogue,
        stops=_stops(view, client, catalogue),
        records=_records(view, name),
        tokens=_tokens(view, name),
        explanation=_explain(view, name),
    )


def show_registration(view: View) -> Response:
    """Show the initial access tokens by which clients register themselves, the newest first."""
    # One read that is refused if the operator may not see clients.
    view.desk.get("/registration-tokens", limit=1)
    tokens = view.desk.every("/registration-tokens", "clients:read")
    tokens.sort(key=lambda each: (each["works"], each["created_at"]), reverse=True)
    return view.page("registration.html", tokens=tokens[:_PAGE], further=len(tokens) - _PAGE)


def show_review(view: View) -> Response:
    """Show the permissions that clients do not use, and the secrets that are due."""
    report = view.desk.get(
        "/reports/least-privilege",
        days=_REVIEWED_DAYS,
        limit=_REVIEWED,
        cursor=view.arguments.get("cursor"),
    )
    apis = view.desk.every("/resource-servers", "resource-servers:read")
    return view.page(
        "review.html",
        report=report,
        apis={each["id"] for each in apis},
    )


def risks(view: View) -> dict[str, str]:
    """Return the risk of each scope by its name."""
    return {each["name"]: each["risk"] for each in view.desk.every("/scopes", "scopes:read")}


def add_facts(client: dict[str, Any]) -> None:
    """Add when the oldest of its secrets that works was added."""
    working = [each for each in client["secrets"] if each["works"]]
    client["oldest_secret_at"] = min((each["created_at"] for each in working), default=None)


def _stops(
    view: View, client: dict[str, Any], catalogue: Mapping[str, dict[str, Any]]
) -> list[dict[str, Any]]:
    """Return the stops in force that concern the client, its scopes or their APIs."""
    held = set(client["allowed_scopes"])
    servers = {catalogue[name]["resource_server"] for name in held if name in catalogue}
    return [
        stop
        for stop in view.desk.every("/stops", "scopes:read")
        if client["id"] in stop["clients"]
        or held.intersection(stop["scopes"])
        or (stop["kind"] == "resource-server" and stop["subject"] in servers)
    ]


def _records(view: View, client_id: str) -> list[dict[str, Any]]:
    page = view.desk.find("/audit", "audit:read", subject=client_id, limit=_RECORDS)
    return list(page["items"]) if page else []


def _tokens(view: View, client_id: str) -> dict[str, Any] | None:
    """Return the tokens that it obtained in the last 24 hours; None: they are not known here."""
    since = f"{view.now - _TOKEN_AGE:%Y-%m-%dT%H:%M:%SZ}"
    found: dict[str, Any] | None = view.desk.find(
        "/activity", "audit:read", client=client_id, since=since
    )
    return found


def _explain(view: View, client_id: str) -> dict[str, Any] | None:
    """Return the outcome that a request of the client would have, if the operator asks."""
    if "explain" not in view.arguments:
        return None
    given = {
        name: view.arguments.get(name, "").strip() for name in ("scope", "resource", "address")
    }
    body: dict[str, Any] = {"client_id": client_id}
    if given["scope"]:
        body["scope"] = given["scope"]
    if given["resource"]:
        body["resources"] = [given["resource"]]
    if given["address"]:
        body["address"] = given["address"]
    explained: dict[str, Any] = view.desk.send("POST", "/explanations/requests", body=body).body
    return explained
