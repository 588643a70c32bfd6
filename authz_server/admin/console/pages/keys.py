"""The screen *Keys*: the calendar of each ring, its state, and the orders."""

from typing import Any

from flask import Response

from authz_server.admin.console.desk import RefusedError, path_of
from authz_server.admin.console.views import View

#: The newest keys of a ring are shown.
_KEYS = 12


def show(view: View) -> Response:
    """Show every ring."""
    return view.page("keys.html", rings=[_ring(view, ring) for ring in _rings(view)])


def _rings(view: View) -> list[dict[str, Any]]:
    # One read that is refused if the operator may not see keys.
    view.desk.get("/rings", limit=1)
    return view.desk.every("/rings", "keys:read")


def _ring(view: View, ring: dict[str, Any]) -> dict[str, Any]:
    name = ring["name"]
    try:
        status = view.desk.get(path_of("/rings/{}/status", name))
        keys, destroyable = status["keys"], status["destroyable"]
    except RefusedError:
        # A backend that cannot be opened must not hide the keys.
        status, destroyable = None, []
        keys = view.desk.get(path_of("/rings/{}/keys", name), limit=500)["items"]
    path = path_of("/rings/{}/calendar", name)
    calendar = view.desk.get(path, language=view.texts.language)
    return {
        **ring,
        "status": status,
        "calendar": calendar,
        "keys": keys[: -_KEYS - 1 : -1],
        # The order refuses without such a version, and where the backend deletes no keys.
        "destroyable": bool(destroyable),
    }
