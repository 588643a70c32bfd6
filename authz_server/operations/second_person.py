"""The second person of a change: neither its requester, nor its subject, nor made for it."""

from sqlalchemy import select
from sqlalchemy.orm import Session

from authz_server.assembly import Services
from authz_server.audit.models import AuditRecord
from authz_server.audit.pending_changes import MAXIMUM_SUBJECT_CHARACTERS, PendingChange
from authz_server.clients.models import Client
from authz_server.database.operator_sessions import OperatorPasskey
from authz_server.database.operators import Operator, OperatorRole
from authz_server.errors import OperatorError
from authz_server.operations.changes import is_requester
from authz_server.operations.declarative.apply import OPERATION as APPLY
from authz_server.operations.permissions import Caller, roles_of

_APPROVE = "changes:approve"
_NEW_PASSKEY = ("operator.passkey_enrolled", "operator.passkey_added")


class NotPermittedError(OperatorError):
    """This person may not decide on this change."""


class LogInAgainError(OperatorError):
    """The operator logged in before the change was filed, with the groups of that time."""

    def __init__(self) -> None:
        super().__init__(
            "Log in again: your roles come from groups, and you logged in before the change was"
            " requested."
        )


def require_second_person(
    services: Services, session: Session, change: PendingChange, decider: Caller
) -> None:
    """Require that the decider is a second person.

    A role, a client and a passkey count if they are older than the change: the requester may have
    made newer ones for it. A change does not make its own decider either.

    Args:
        services: the parts of the server.
        session: the transaction.
        change: the change.
        decider: who decides.

    Raises:
        NotPermittedError: the decider requested it, is its subject, or could not approve before.
        LogInAgainError: the decider's log-in is older than the change.
    """
    if is_requester(change, decider):
        raise NotPermittedError("You requested this yourself: a second person decides on it.")
    own = "client" if decider.kind == "client" else "operator"
    applied = change.arguments.get(f"{own}s", ()) if change.operation == APPLY else ()
    is_applied = decider.kind in {"client", "operator"} and decider.name in applied
    if is_applied or change.subject == f"{own}:{decider.name}"[:MAXIMUM_SUBJECT_CHARACTERS]:
        raise NotPermittedError("The change concerns you: another person decides on it.")
    if decider.kind == "client":
        row = session.get(Client, decider.name)
        if row is None or row.updated_at >= change.requested_at:
            raise NotPermittedError(
                "This client was changed after the change was requested: another one decides."
            )
    elif decider.kind == "operator" and session.get(Operator, decider.operator_id) is not None:
        _require_earlier_role(services, session, change, decider)
        _require_earlier_passkeys(session, change, decider)
    elif decider.kind == "operator":
        since = decider.authenticated_at
        if since is None or since <= change.requested_at:
            raise LogInAgainError


def _require_earlier_role(
    services: Services, session: Session, change: PendingChange, decider: Caller
) -> None:
    roles = roles_of(services.settings).values()
    earlier = select(OperatorRole.role).where(
        OperatorRole.operator_id == decider.operator_id,
        OperatorRole.role.in_([role.name for role in roles if _APPROVE in role.permissions]),
        OperatorRole.granted_at < change.requested_at,
    )
    if session.scalar(earlier.limit(1)) is None:
        raise NotPermittedError(
            f"You gained {_APPROVE} after the change was requested: another person decides."
        )


def _require_earlier_passkeys(session: Session, change: PendingChange, decider: Caller) -> None:
    """Refuse an operator with a passkey that the requester may have enrolled for this change."""
    held = select(OperatorPasskey.credential_id).where(
        OperatorPasskey.operator_id == decider.operator_id,
        OperatorPasskey.created_at >= change.requested_at,
    )
    # A passkey that was removed meanwhile may have opened the session.
    recorded = select(AuditRecord.id).where(
        AuditRecord.subject == decider.name,
        AuditRecord.action.in_(_NEW_PASSKEY),
        AuditRecord.at >= change.requested_at,
    )
    for query in (held, recorded):
        if session.scalar(query.limit(1)) is not None:
            raise NotPermittedError(
                "A passkey of yours is newer than the change: another person decides."
            )
