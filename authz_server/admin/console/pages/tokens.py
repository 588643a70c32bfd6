"""The screen *Tokens*: a token is explained, and not stored."""

from typing import Any

from flask import Response

from authz_server.admin.console.desk import RefusedError
from authz_server.admin.console.views import View
from authz_server.operations.permissions import UNLIMITED
from keys.errors import TokenRefusedError
from keys.jose.compact import parse_compact, parse_json_object


def show(view: View) -> Response:
    """Show the form, and the explanation of the token that was sent."""
    # The answer of a POST with the token is neither cached nor linked.
    token, caller = "", ""
    explained: dict[str, Any] | None = None
    refusal: RefusedError | None = None
    servers = view.desk.every("/resource-servers", "resource-servers:read")
    if view.method == "POST":
        view.require_own_form()
        token = "".join(view.form.get("token", "").split())
        caller = view.form.get("caller", "").strip() or _audience(token, servers)
        body = {"token": token, "caller": caller}
        try:
            explained = view.desk.send("POST", "/explanations/tokens", body=body).body
        except RefusedError as refused:
            refusal = refused
    return view.page(
        "tokens.html",
        servers=servers,
        token_caller=caller,
        revokes_all=view.desk.caller.limits_for("tokens:revoke") == UNLIMITED,
        explained=explained,
        refusal=refusal,
        status=200 if refusal is None else refusal.answer.status,
    )


def _audience(token: str, servers: list[dict[str, Any]]) -> str:
    """Return the resource server that the token names; the API judges the token itself."""
    try:
        claims = parse_json_object(parse_compact(token).payload)
    except TokenRefusedError:
        claims = {}
    named = claims.get("aud")
    audience = named if isinstance(named, list) else [named]
    found = [each["id"] for each in servers if each["identifier"] in audience]
    return str(found[0]) if found else (str(servers[0]["id"]) if servers else "")
