"""The screen *Now*: are tokens issued, do keys stand well, and what waits for the operator."""

from datetime import datetime, timedelta
from typing import Any

from flask import Response

from authz_server.admin.console.desk import Desk, path_of
from authz_server.admin.console.pages.apis import DUE_WITHIN
from authz_server.admin.console.pages.changes import WAITING
from authz_server.admin.console.rendering import as_time
from authz_server.admin.console.views import View

#: A client without a token for this time is dormant.
DORMANT_AFTER = timedelta(days=90)
_COUNTED = 100
_ALARM_AGE = timedelta(days=1)
_SHOWN_ALARMS = 5
_BAR_HEIGHT = 48


def show(view: View) -> Response:
    """Show the screen."""
    desk = view.desk
    activity = desk.find("/activity", "audit:read")
    return view.page(
        "now.html",
        activity=activity,
        bars=_bars(activity) if activity else (),
        rings=_rings(desk),
        duties=_duties(view),
        alarms=_alarms(view),
    )


def _rings(desk: Desk) -> list[dict[str, Any]]:
    rings = desk.every("/rings", "keys:read")
    for ring in rings:
        ring["calendar"] = desk.get(path_of("/rings/{}/calendar", ring["name"]))
        keys = desk.get(path_of("/rings/{}/keys", ring["name"]), limit=500)["items"]
        ring["active"] = next((key for key in keys if key["signs"]), None)
    return rings


def _duties(view: View) -> list[tuple[str, int, bool, str]]:
    """Return what waits: its name, its number, whether there may be more, and its page."""
    desk, now = view.desk, view.now
    found = []
    if desk.may("changes:read"):
        waiting = [_count(desk, "/changes", "changes:read", state=each) for each in WAITING]
        found.append(("changes", sum(waiting), "/changes"))
    if desk.may("clients:read"):
        due = f"{now + DUE_WITHIN:%Y-%m-%dT%H:%M:%SZ}"
        ended = _count_clients(desk, secret_ends_before=due)
        found.append(("secrets", ended, f"/clients?secret_ends_before={due}"))
        dormant = f"{now - DORMANT_AFTER:%Y-%m-%dT%H:%M:%SZ}"
        unused = _count_clients(desk, unused_since=dormant)
        found.append(("dormant", unused, f"/clients?unused_since={dormant}"))
    if desk.may("resource-servers:read"):
        found.append(("api_secrets", _count_api_secrets(desk, now), "/apis"))
    if desk.may("scopes:read"):
        found.append(("stops", len(desk.every("/stops", "scopes:read")), "/apis#stops"))
    return [(name, min(number, _COUNTED), number > _COUNTED, page) for name, number, page in found]


def _count(desk: Desk, path: str, permission: str, **query: object) -> int:
    """Return the number of items, up to one more than is counted."""
    page = desk.find(path, permission, **query, limit=_COUNTED)
    if not page:
        return 0
    return len(page["items"]) + (1 if page["next"] else 0)


def _count_api_secrets(desk: Desk, now: datetime) -> int:
    """Return the number of secrets of APIs that end soon.

    The report also has those of another pepper, which end later or not at all.
    """
    path, within = "/reports/resource-server-secrets", int(DUE_WITHIN.total_seconds())
    due = desk.every(path, "resource-servers:read", within_seconds=within)
    ends = (each["ends_at"] for each in due)
    return sum(each is not None and as_time(each) <= now + DUE_WITHIN for each in ends)


def _count_clients(desk: Desk, **query: object) -> int:
    """Return the number of clients, which is counted in the database."""
    page = desk.find("/clients", "clients:read", **query, limit=1, total="true")
    return int(page["total"]) if page else 0


def _alarms(view: View) -> list[dict[str, Any]]:
    since = f"{view.now - _ALARM_AGE:%Y-%m-%dT%H:%M:%SZ}"
    page = view.desk.find(
        "/audit", "audit:read", action="key.alarm", since=since, limit=_SHOWN_ALARMS
    )
    return list(page["items"]) if page else []


def _bars(activity: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the bars of the picture: issued tokens, and refusals above them."""
    intervals = activity["intervals"]
    highest = max([each["issued"] + each["refused"] for each in intervals] or [0]) or 1
    bars = []
    for each in intervals:
        issued = round(each["issued"] / highest * _BAR_HEIGHT, 1)
        refused = round(each["refused"] / highest * _BAR_HEIGHT, 1)
        bars.append({**each, "height": issued, "refused_height": refused})
    return bars
