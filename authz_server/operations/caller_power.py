"""Power over the server itself: a caller gives no more of it than the caller has.

The rule applies to a request, and again to a change that waited, when its requester carries it out.
"""

from collections.abc import Iterable

from sqlalchemy.orm import Session

from authz_server.assembly import Services
from authz_server.audit.pending_changes import PendingChange
from authz_server.clients.models import Client
from authz_server.clients.properties import read_properties
from authz_server.errors import OperatorError
from authz_server.operations.admin_api import ADMIN_SCOPES
from authz_server.operations.approved_acts import read_arguments
from authz_server.operations.client_views import ClientView
from authz_server.operations.declarative.approved import read_files
from authz_server.operations.declarative.limits import permissions_of
from authz_server.operations.declarative.limits import read_arguments as read_limits
from authz_server.operations.operators import find_operator
from authz_server.operations.permissions import (
    UNLIMITED,
    Caller,
    LimitedCallerError,
    Limits,
    authorise,
    limits_of,
    roles_of,
)

_ADMINISTRATIVE = frozenset(name for name, _, _ in ADMIN_SCOPES)


class MorePowerError(OperatorError):
    """The act gives administrative permissions that the caller does not have."""


def require_no_more_of_client(caller: Caller, client: Client | ClientView) -> None:
    """Refuse a client's administrative scopes that the caller lacks, or has within limits.

    Otherwise a caller that may change clients could give itself every permission, by another
    client or its secret.

    Args:
        caller: the caller.
        client: the client, before and after its change.

    Raises:
        MorePowerError: it has such a scope.
    """
    limits = limits_of(read_properties(client.properties))
    _require_scopes("client", caller, client.allowed_scopes, limits)


def require_no_more_of_token(caller: Caller, scopes: Iterable[str]) -> None:
    """Refuse an initial access token for administrative scopes that the caller lacks.

    A client that registers itself has no limits.

    Args:
        caller: the caller.
        scopes: the scopes of the token.

    Raises:
        MorePowerError: it has such a scope.
    """
    _require_scopes("token", caller, scopes, UNLIMITED)


def require_no_more_of_roles(services: Services, caller: Caller, names: Iterable[str]) -> None:
    """Refuse a client that would act by an operator with more permissions than its token has.

    Operators give any role, and never to themselves.

    Args:
        services: the parts of the server.
        caller: the caller.
        names: the roles of the operator.

    Raises:
        MorePowerError: the roles have more.
    """
    if caller.kind != "client":
        return
    known = roles_of(services.settings)
    wanted = (known[name].permissions for name in names if name in known)
    further = frozenset[str]().union(*wanted) - caller.permissions
    if further:
        listed = ", ".join(sorted(further))
        raise MorePowerError(f"The roles permit what the caller may not do: {listed}.")


def require_no_more(
    services: Services, session: Session, change: PendingChange, caller: Caller
) -> None:
    """Apply the rule to a change that waited, before it is carried out and afterwards.

    The roles that files give are checked while they are applied, as with the request, and the
    permissions of their sections by :func:`require_sections`.

    Args:
        services: the parts of the server.
        session: the transaction that carries it out.
        change: the change.
        caller: who carries it out, with the present permissions.

    Raises:
        MorePowerError: the change gives more than the caller has.
    """
    arguments = read_arguments(change.arguments)
    match change.operation:
        case "create_operator" | "update_operator":
            names = [each.role for each in arguments.get("roles", ())]
            require_no_more_of_roles(services, caller, names)
        case "renew_enrolment" | "set_operator_enabled":
            held = find_operator(session, arguments["operator"]).roles
            require_no_more_of_roles(services, caller, [each.role for each in held])
        case "create_registration_token":
            require_no_more_of_token(caller, arguments["scopes"])
        case "create_client":
            _require_of_stored(session, change.subject.removeprefix("client:"), caller)
        case "apply_declaration":
            for client_id in arguments["clients"]:
                _require_of_stored(session, client_id, caller)
        case _ if "client_id" in arguments:
            _require_of_stored(session, arguments["client_id"], caller)


def require_sections(services: Services, change: PendingChange, caller: Caller) -> None:
    """Require the permission of each section of files, within the limits of the request.

    Args:
        services: the parts of the server.
        change: an application of files that waits.
        caller: who requested it, with the present permissions.

    Raises:
        PermissionMissingError: the caller does not have the permission of a section.
        LimitedCallerError: the caller has it within narrower limits than those of the request.
        AuthenticationTooOldError: the log-in of the caller is too old.
    """
    requested = read_limits(change.arguments.get("limits", {}))
    for section, permission in permissions_of(read_files(change.files or ())).items():
        limits = authorise(caller, permission, now=services.corrected_clock())
        if not requested.get(section, UNLIMITED).is_within(limits):
            raise LimitedCallerError


def _require_of_stored(session: Session, client_id: str, caller: Caller) -> None:
    client = session.get(Client, client_id)
    if client is not None:
        require_no_more_of_client(caller, client)


def _require_scopes(noun: str, caller: Caller, scopes: Iterable[str], limits: Limits) -> None:
    further = [
        scope
        for scope in sorted(_ADMINISTRATIVE.intersection(scopes))
        if (own := caller.limits_for(scope)) is None or not limits.is_within(own)
    ]
    if further:
        listed = ", ".join(further)
        raise MorePowerError(f"The {noun} has scopes that the caller does not have: {listed}.")
