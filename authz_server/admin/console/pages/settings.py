"""The screen *Settings*: what the settings file sets, without secrets."""

from flask import Response

from authz_server.admin.console.views import View


def show(view: View) -> Response:
    """Show the settings that differ from the defaults, or all of them."""
    shows_all = view.arguments.get("all") == "1"
    # One read that is refused if the operator may not see them.
    view.desk.get("/settings", limit=1)
    changed = "false" if shows_all else "true"
    settings = view.desk.every("/settings", "settings:read", changed=changed)
    return view.page("settings.html", settings=settings, shows_all=shows_all)
