"""The screen *Changes*: what waits for a second person, what it changes, and the decision."""

from flask import Response

from authz_server.admin.console.desk import path_of
from authz_server.admin.console.diffs import changes_of
from authz_server.admin.console.views import View

_PAGE = 30
#: The states in which a second person decides.
WAITING = ("pending", "unconfirmed")


def show_list(view: View) -> Response:
    """Show the changes that wait, or all of them."""
    shows_all = view.arguments.get("all") == "1"
    chosen = view.arguments.get("state", "")
    states = ("",) if shows_all else (chosen,) if chosen in WAITING else WAITING
    cursor = view.arguments.get("cursor") if len(states) == 1 else None
    pages = {
        state: view.desk.get("/changes", state=state, cursor=cursor, limit=_PAGE)
        for state in states
    }
    return view.page(
        "changes.html",
        changes=[each for page in pages.values() for each in page["items"]],
        following={state: page["next"] for state, page in pages.items() if page["next"]},
        shows_all=shows_all,
    )


def show(view: View) -> Response:
    """Show one change with its diff."""
    change = view.desk.get(path_of("/changes/{}", view.arguments.get("id", "")))
    by_caller = (
        change["requested_by"].partition(" via ")[0] == view.desk.caller.actor.partition(" via ")[0]
    )
    return view.page(
        "change.html",
        change=change,
        differences=changes_of(change["diff"]),
        is_own=by_caller,
        waits=change["state"] in WAITING,
    )
