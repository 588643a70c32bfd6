"""The screen *Changes*: what waits for a second person, what it changes, and the decision."""

from flask import Response

from authz_server.admin.console.desk import path_of
from authz_server.admin.console.diffs import changes_of
from authz_server.admin.console.views import View

_PAGE = 50
#: The states in which a second person decides.
WAITING = ("pending", "unconfirmed")


def show_list(view: View) -> Response:
    """Show the changes that wait, or all of them."""
    shows_all = view.arguments.get("all") == "1"
    cursor = view.arguments.get("cursor")
    if shows_all:
        page = view.desk.get("/changes", cursor=cursor, limit=_PAGE)
        found, following = page["items"], page["next"]
    else:
        pages = [view.desk.get("/changes", state=state, limit=_PAGE) for state in WAITING]
        found, following = [each for page in pages for each in page["items"]], None
    return view.page("changes.html", changes=found, following=following, shows_all=shows_all)


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
