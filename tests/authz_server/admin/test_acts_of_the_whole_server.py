"""Acts of the whole server: neither a request nor an approval does one within limits."""

from datetime import UTC, datetime
from types import SimpleNamespace

from authz_server.admin.routes import ROUTES
from authz_server.audit.pending_changes import PendingChange
from authz_server.operations.approved_acts import PERMISSIONS_OF
from authz_server.operations.permissions import Caller, Grant, LimitedCallerError, Limits
from authz_server.operations.requesters import find_limits
from authz_server.operations.scopes import IMPORT


def test_a_limited_requester_is_refused_what_its_request_would_be():
    """The approval and the route of the request know the same acts of the whole server."""
    paths = {
        "create_client": "/clients",
        "update_client": "/clients/{client_id}",
        "set_enabled": "/clients/{client_id}/enable",
        "add_secret": "/clients/{client_id}/secrets",
        "rotate_secret": "/clients/{client_id}/secrets/rotate",
        "lift_stop": "/stops/{kind}/{subject}/lift",
        "create_operator": "/operators",
        "update_operator": "/operators/{operator}",
        "renew_enrolment": "/operators/{operator}/enrolments",
        "set_operator_enabled": "/operators/{operator}/enable",
        "create_registration_token": "/registration-tokens",
        "update_scope": "/scopes/{scope}",
        "delete_scope": "/scopes/{scope}",
        IMPORT: "/scopes/imports",
        "keys.activate": "/rings/{ring}/keys/{kid}/activate",
        "keys.destroy": "/rings/{ring}/destroy",
    }
    services = SimpleNamespace(corrected_clock=lambda: datetime.now(UTC))
    assert paths.keys() == PERMISSIONS_OF.keys()
    limits = Limits(organisations=frozenset({"Treasury"}))
    grant = Grant(permissions=frozenset(PERMISSIONS_OF.values()), limits=limits)
    caller = Caller(name="x", kind="client", way="api", grants=(grant,))
    for operation, path in paths.items():
        route = next(each for each in ROUTES if each.path == path and each.kind != "read")
        assert route.permission == PERMISSIONS_OF[operation]
        try:
            found = find_limits(services, PendingChange(operation=operation), caller)
        except LimitedCallerError:
            found = None
        assert found == (None if route.limited == "refused" else limits), operation
