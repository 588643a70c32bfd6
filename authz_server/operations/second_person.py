"""The second person of a change: neither its requester, nor its subject, nor made for it."""

from dataclasses import dataclass, replace

from sqlalchemy import select
from sqlalchemy.orm import Session

from authz_server.assembly import Services
from authz_server.audit.models import AuditRecord
from authz_server.audit.pending_changes import (
    BREAK_GLASS,
    MAXIMUM_SUBJECT_CHARACTERS,
    UNCONFIRMED,
    PendingChange,
)
from authz_server.clients.models import Client
from authz_server.clients.registration.models import Registration
from authz_server.database.operator_sessions import OF_PROVIDER, OperatorPasskey
from authz_server.database.operators import Operator, OperatorRole
from authz_server.errors import OperatorError
from authz_server.operations.changes import is_requester
from authz_server.operations.declarative.apply import OPERATION as APPLY
from authz_server.operations.operator_roles import limits_of_role
from authz_server.operations.permissions import Caller, make_grants
from authz_server.operations.reach_reading import lies_within

_APPROVE = "changes:approve"
_NEW_PASSKEY = ("operator.passkey_enrolled", "operator.passkey_added")
#: Before the id of an initial access token, as what granted a registration.
_BY_TOKEN = "registration:"  # noqa: S105 - the prefix of an actor
#: The kinds of persons whom a change makes; the command line is another one.
_MADE = frozenset({"client", "operator"})


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
    made newer ones for it. A change does not make its own decider either. One that a person carried
    out alone makes neither a decider nor a requester until it is confirmed.

    Args:
        services: the parts of the server.
        session: the transaction, which is not narrowed.
        change: the change.
        decider: who decides.

    Raises:
        NotPermittedError: the decider requested it, is its subject, could not approve it before, or
            is of a kind that the settings leave out.
        LogInAgainError: the decider's log-in is older than the change.
    """
    _require_kind(services, decider)
    if is_requester(change, decider):
        raise NotPermittedError("You requested this yourself: a second person decides on it.")
    person = _find_person(session, decider.kind, decider.name)
    if person.is_concerned(change):
        raise NotPermittedError("The change concerns you: another person decides on it.")
    _require_confirmed(session, change, person)
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


def _require_kind(services: Services, decider: Caller) -> None:
    """Refuse a kind of identity that the settings leave out: one person may have several."""
    kind: str = decider.kind
    if kind == "operator":
        kind = "provider" if decider.operator_id.startswith(OF_PROVIDER) else "local"
    if decider.kind in _MADE and kind not in services.settings.approvals.deciders:
        raise NotPermittedError(f"approvals.deciders does not have {kind!r}.")


@dataclass(frozen=True, slots=True)
class _Person:
    """A client or an operator as changes name it.

    Attributes:
        kind: ``client``, ``operator`` or ``command``.
        name: the id of the client, or the name of the operator.
        subjects: the subjects of changes of its registration, its roles and its credentials.
    """

    kind: str
    name: str
    subjects: frozenset[str]

    def is_concerned(self, change: PendingChange) -> bool:
        """Return whether a change is one of the roles, the registration or a credential."""
        applied = change.arguments.get(f"{self.kind}s", ()) if change.operation == APPLY else ()
        return change.subject in self.subjects or self.name in applied


def _find_person(session: Session, kind: str, name: str) -> _Person:
    own = "client" if kind == "client" else "operator"
    subjects = {f"{own}:{name}"[:MAXIMUM_SUBJECT_CHARACTERS]}
    granted = session.get(Registration, name) if kind == "client" else None
    if granted is not None and granted.granted_by.startswith(_BY_TOKEN):
        subjects.add(f"registration-token:{granted.granted_by.removeprefix(_BY_TOKEN)}")
    return _Person(kind, name, frozenset(subjects))


def _find_requester(session: Session, change: PendingChange) -> _Person:
    kind, _, key = change.requester.partition(":")
    row = session.get(Operator, key) if kind == "operator" else None
    return _find_person(session, kind, key if row is None else row.name)


def _require_confirmed(session: Session, change: PendingChange, decider: _Person) -> None:
    """Refuse two persons of whom one alone may have made the other, by breaking the glass.

    What the command line made counts, because it makes the first operators; and it decides.
    """
    if decider.kind not in _MADE:
        return
    requester = _find_requester(session, change)
    alone = select(PendingChange).where(
        PendingChange.state == UNCONFIRMED,
        PendingChange.kind == BREAK_GLASS,
        PendingChange.id != change.id,
    )
    for done in session.scalars(alone):
        of_requester = requester.kind in _MADE and requester.is_concerned(done)
        if of_requester or decider.is_concerned(done):
            whom = "the requester" if of_requester else "you"
            raise NotPermittedError(
                f"The change {done.id}, which concerns {whom}, was done without an approval:"
                " another person confirms it first."
            )


def _require_earlier_role(
    services: Services, session: Session, change: PendingChange, decider: Caller
) -> None:
    """Require that the roles from before the change permit the decision, within their limits."""
    earlier = select(OperatorRole).where(
        OperatorRole.operator_id == decider.operator_id,
        OperatorRole.granted_at < change.requested_at,
    )
    held = ((role.role, limits_of_role(role)) for role in session.scalars(earlier))
    before = replace(decider, grants=make_grants(services.settings, held))
    limits = before.limits_for(_APPROVE)
    if limits is None or not lies_within(session, change, limits):
        raise NotPermittedError(
            f"You gained {_APPROVE} for this after the change was requested: another person"
            " decides."
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
