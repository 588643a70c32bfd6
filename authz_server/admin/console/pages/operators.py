"""The screen *Operators*: who administers the server, with which roles and limits."""

from flask import Response

from authz_server.admin.console.act_bodies import write_roles
from authz_server.admin.console.desk import path_of
from authz_server.admin.console.views import View

_PAGE = 50
_RECORDS = 20


def show_list(view: View) -> Response:
    """Show a page of the operators, and what each role permits."""
    page = view.desk.get("/operators", cursor=view.arguments.get("cursor"), limit=_PAGE)
    return view.page(
        "operators.html",
        operators=[{**each, "lines": write_roles(each["roles"])} for each in page["items"]],
        following=page["next"],
        roles=view.desk.get("/roles", limit=500)["items"],
    )


def show(view: View) -> Response:
    """Show one operator with the passkeys and the latest records."""
    operator = view.desk.get(path_of("/operators/{}", view.arguments.get("name", "")))
    name = operator["name"]
    passkeys = view.desk.get(path_of("/operators/{}/passkeys", name), limit=500)
    # The last acts, and what others did to the operator.
    found = view.desk.find("/audit", "audit:read", subject=name, action="operator.", limit=_RECORDS)
    return view.page(
        "operator.html",
        operator=operator,
        passkeys=passkeys["items"],
        records=found["items"] if found else [],
        is_own=operator["id"] == view.desk.caller.operator_id,
    )
