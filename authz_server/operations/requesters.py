"""The requester of a change that waits, with the permissions that the requester has at present.

An approval is the second of two persons. If the first one was disabled or lost the permission
meanwhile, for example since the account was stolen, the approver would decide alone.
"""

from collections.abc import Iterable

from sqlalchemy.orm import Session

from authz_server.assembly import Services
from authz_server.audit.pending_changes import PendingChange
from authz_server.clients.models import Client
from authz_server.clients.properties import read_properties
from authz_server.database.operator_sessions import OF_PROVIDER
from authz_server.errors import ConflictError
from authz_server.operations.approved_acts import PERMISSIONS_OF
from authz_server.operations.caller_power import require_sections
from authz_server.operations.declarative.apply import OPERATION as APPLY
from authz_server.operations.group_roles import GroupRoles
from authz_server.operations.limited_services import OutsideLimitsError
from authz_server.operations.operators import find_grants
from authz_server.operations.permissions import (
    UNLIMITED,
    Caller,
    Grant,
    Limits,
    authorise,
    limits_of,
)
from authz_server.operations.reach import Reach
from authz_server.operations.scopes import IMPORT
from authz_server.settings.admin import PERMISSIONS
from authz_server.tokens.stops import find_stopped_clients

#: The permissions whose acts concern the whole server.
_OF_WHOLE_SERVER = frozenset({"operators:write", "keys:rotate", "keys:revoke"})


class RequesterRefusedError(ConflictError):
    """The requester of a change may not do it any more.

    Args:
        cause: a sentence with the reason.
    """

    def __init__(self, cause: str) -> None:
        super().__init__(f"The requester may not do this any more: request it again. {cause}")


def find_requester(services: Services, session: Session, change: PendingChange) -> Caller:
    """Return the requester of a change, as a caller who has just logged in.

    Args:
        services: the parts of the server.
        session: the transaction of the approval.
        change: the change.

    Raises:
        RequesterRefusedError: the client or the operator of the request may do nothing any more.
        ConflictError: the groups of a person of the provider are not known.
    """
    kind, _, key = change.requester.partition(":")
    if kind == "command":
        return Caller(name=key, kind="command", way="cli", grants=())
    if kind == "client":
        grant = _find_grant(services, session, change, key)
        return Caller(name=key, kind="client", way="api", grants=(grant,))
    if key.startswith(OF_PROVIDER):
        grants = _find_grants_of_groups(services, change)
    else:
        grants = find_grants(services, session, key)
    if not grants:
        raise RequesterRefusedError("The operator is disabled or deleted, or has no role.")
    return Caller(
        name=key,
        kind="operator",
        way="console",
        grants=grants,
        operator_id=key,
        # The log-in was checked with the request.
        authenticated_at=services.corrected_clock(),
    )


def find_limits(services: Services, change: PendingChange, requester: Caller) -> Limits:
    """Return the limits within which the requester may do the act of a change.

    An application of files keeps those of its request, which are among its arguments by section.

    Args:
        services: the parts of the server.
        change: the change.
        requester: who requested it, with the present permissions.

    Raises:
        PermissionMissingError: the requester does not have the permission of the act any more.
        LimitedCallerError: the requester has it for a smaller part of the server.
    """
    if change.operation == APPLY:
        require_sections(services, change, requester)
        return UNLIMITED
    permission = PERMISSIONS_OF[change.operation]
    whole_server = permission in _OF_WHOLE_SERVER or change.operation == IMPORT
    return authorise(
        requester, permission, now=services.corrected_clock(), whole_server=whole_server
    )


def require_lifted(session: Session, change: PendingChange, reach: Reach | None) -> None:
    """Require that a stop that is lifted lies within the limits of the requester.

    Other changes are checked when they are stored.

    Args:
        session: the transaction of the approval.
        change: the change.
        reach: what is within the limits; None: there are none.

    Raises:
        OutsideLimitsError: it does not.
    """
    if reach is not None and change.operation == "lift_stop":
        kind, subject = change.arguments["kind"], change.arguments["subject"]
        if not reach.owns(kind, subject, session):
            raise OutsideLimitsError(f"The {kind.replace('-', ' ')} {subject!r}")


def _find_grant(services: Services, session: Session, change: PendingChange, key: str) -> Grant:
    """Return what a client may do; RequesterRefusedError if that is nothing."""
    refused = RequesterRefusedError(f"The client {key!r} is disabled, stopped or past its end.")
    if key in find_stopped_clients(session):
        raise refused
    row = session.get(Client, key)
    if row is None:
        return _find_grant_of_document(services, key)
    if row.created_at > change.requested_at:
        raise _deleted(key)
    has_ended = row.expires_at is not None and row.expires_at <= services.corrected_clock()
    if has_ended or not row.enabled:
        raise refused
    return _make_grant(row.allowed_scopes, limits_of(read_properties(row.properties)))


def _find_grant_of_document(services: Services, key: str) -> Grant:
    """Return what a client may do that publishes its metadata: it has the scopes of its origin."""
    documents = services.client_documents
    published = None if documents is None else documents.find(key)
    if published is None:
        raise _deleted(key)
    return _make_grant(published.allowed_scopes, limits_of(published.properties))


def _deleted(key: str) -> RequesterRefusedError:
    return RequesterRefusedError(f"The client {key!r} was deleted.")


def _make_grant(scopes: Iterable[str], limits: Limits) -> Grant:
    return Grant(permissions=frozenset(PERMISSIONS).intersection(scopes), limits=limits)


def _find_grants_of_groups(services: Services, change: PendingChange) -> tuple[Grant, ...]:
    """Return the grants of a person of the provider by the groups of the latest log-in.

    A log-out by an operator ends them: the account may be disabled at the provider, which this
    server does not learn otherwise.
    """
    if change.requester_groups is None:
        raise ConflictError(
            "The groups of the requester are not known: the requester logs in, or requests it"
            " again."
        )
    grants = GroupRoles(services.settings).grants(change.requester_groups)
    if not grants:
        raise RequesterRefusedError(
            "An operator has ended the sessions of the requester, or the requester has no role."
        )
    return grants
