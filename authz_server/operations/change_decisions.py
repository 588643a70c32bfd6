"""Decide on changes that need a second person: approve, reject, withdraw and confirm them."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

from sqlalchemy.orm import Session

from authz_server.assembly import Services
from authz_server.audit.pending_changes import (
    BREAK_GLASS,
    PENDING,
    SERVER,
    UNCONFIRMED,
    PendingChange,
    lock_change,
    record,
    settle,
)
from authz_server.audit.records import CONTEXT, recorded_with
from authz_server.errors import ConflictError, NotFoundError, OperatorError
from authz_server.operations.approvals import (
    CONTROL,
    Approved,
    Control,
    StaleChangeError,
    require_reason,
)
from authz_server.operations.approved_acts import (
    ORDERS,
    PERMISSIONS_OF,
    carry_out,
    find_held,
    read_order,
    require_known,
)
from authz_server.operations.caller_power import (
    MorePowerError,
    require_no_more,
    require_no_more_of_roles,
    require_sections,
)
from authz_server.operations.changes import (
    ChangeView,
    describe_change,
    is_requester,
    require_change,
    require_own,
)
from authz_server.operations.declarative.apply import OPERATION as APPLY
from authz_server.operations.keys.context import KeyContext
from authz_server.operations.keys.orders import apply_order
from authz_server.operations.limited_services import OutsideLimitsError, narrow
from authz_server.operations.one_transaction import run_together
from authz_server.operations.permissions import (
    UNLIMITED,
    Caller,
    LimitedCallerError,
    Limits,
    PermissionMissingError,
    authorise,
    require_fresh,
)
from authz_server.operations.reach_reading import lies_within
from authz_server.operations.requesters import (
    RequesterRefusedError,
    find_limits,
    find_requester,
    require_lifted,
)
from authz_server.operations.second_person import NotPermittedError, require_second_person
from authz_server.settings import SettingsError
from keys.errors import KeysError

T = TypeVar("T")

_OUTSIDE = "It does not lie within the limits of the requester."
_GONE_OR_OUTSIDE = "It is gone, or does not lie within the limits of the requester."
#: Opens the context of an order for an actor.
OpenKeys = Callable[[str], AbstractContextManager[KeyContext]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """A decision on a change.

    Attributes:
        change_id: the id of the change.
        decider: who decides.
        reason: the recorded reason.
        dry_run: check, and undo everything.
    """

    change_id: str
    decider: Caller
    reason: str = ""
    dry_run: bool = False


def approve_change(services: Services, decision: Decision, open_keys: OpenKeys) -> ChangeView:
    """Approve a change, and carry it out in the same transaction.

    An order on keys has transactions of its own, which follow the approval. A change that
    cannot be carried out gets the state ``failed``.

    Args:
        services: the parts of the server.
        decision: the decision.
        open_keys: opens the context of an order for its actor.

    Raises:
        NotFoundError: there is none of that id.
        NotPermittedError: the decider requested it, is its subject, or could not approve when it
            was requested.
        LogInAgainError: the decider's log-in is older than the change.
        ConflictError: it is settled, its requester may not do it any more, or the groups of the
            requester are not known.
        StaleChangeError: what it rests on was changed meanwhile.
        OperatorError: the operation is refused.
        KeysError: the order is refused, or failed without a change.
    """

    def act(services: Services, session: Session) -> tuple[ChangeView, Control]:
        change = _lock(services, session, decision, PENDING)
        require_second_person(services, session, change, decision.decider)
        require_known(change)
        held = find_held(change)
        facts = {"change": change.id, "approved_by": decision.decider.actor}
        with _as_requester(services, session, change) as (requester, limits):
            if change.operation == APPLY:
                held["require_roles"] = partial(require_no_more_of_roles, services, requester)
            # Its record stands before those of the operation.
            decided = _settle(services, session, change, "approved", decision)
            with narrow(session, limits) as reach:
                require_lifted(session, change, reach)
                control = _run(services, session, change, held, facts)
            return decided, control

    return _decide_and_order(services, decision, act, open_keys)


def break_the_glass(services: Services, decision: Decision, open_keys: OpenKeys) -> ChangeView:
    """Carry out at once a change that the decider requested; a second person confirms it.

    Args:
        services: the parts of the server.
        decision: the decision, with its reason.
        open_keys: opens the context of an order for its actor.

    Raises:
        NotFoundError: there is none of that id that the decider requested.
        NotPermittedError: the settings do not permit it.
        PermissionMissingError: the decider does not have the permission of the act any more.
        LimitedCallerError: the decider has it for a part of the server alone.
        MorePowerError: the change gives administrative permissions that the decider does not have.
        OutsideLimitsError: what the change concerns lies outside the present limits.
        AuthenticationTooOldError: the log-in of the decider is too old.
        ConflictError: it is settled.
        StaleChangeError: what it rests on was changed meanwhile.
        OperatorError: the operation is refused.
        KeysError: the order is refused, or failed without a change.
    """
    if not services.settings.approvals.break_glass:
        raise NotPermittedError("break_glass is off in [approvals].")
    require_fresh(decision.decider, now=services.corrected_clock())
    require_reason(decision.reason, needed=True)

    def act(services: Services, session: Session) -> tuple[ChangeView, Control]:
        change = _lock(services, session, decision, PENDING, own=True)
        require_known(change)
        limits = _require_permission(services, session, change, decision.decider)
        require_no_more(services, session, change, decision.decider)
        held = find_held(change)
        if change.operation == APPLY:
            held["require_roles"] = partial(require_no_more_of_roles, services, decision.decider)
        change.kind, change.reason = BREAK_GLASS, decision.reason.strip()
        change.expires_at = None
        change.secret_record = None
        change.state = UNCONFIRMED
        actor, now = decision.decider.actor, services.corrected_clock()
        record(session, change, "carried_out", actor=actor, at=now, reason=change.reason)
        with narrow(session, limits) as reach:
            require_lifted(session, change, reach)
            control = _run(services, session, change, held, {"change": change.id})
            require_no_more(services, session, change, decision.decider)
        change.files = None
        return describe_change(change), control

    return _decide_and_order(services, decision, act, open_keys)


@contextmanager
def _as_requester(
    services: Services, session: Session, change: PendingChange
) -> Iterator[tuple[Caller, Limits]]:
    """Yield the requester of a change, and the limits; it fails if the requester lost the right."""
    limits = UNLIMITED
    try:
        requester = find_requester(services, session, change)
        limits = find_limits(services, change, requester)
        require_no_more(services, session, change, requester)
        yield requester, limits
        require_no_more(services, session, change, requester)
    except RequesterRefusedError as error:
        raise _FailedError(error) from error
    except _FailedError as failed:
        if not limits or not isinstance(failed.cause, NotFoundError | OutsideLimitsError):
            raise
        # Who has limits finds nothing outside them.
        gone = isinstance(failed.cause, NotFoundError)
        cause = f"{failed.cause} {_GONE_OR_OUTSIDE}" if gone else _OUTSIDE
        raise _FailedError(RequesterRefusedError(cause)) from failed
    except (LimitedCallerError, OutsideLimitsError) as error:
        raise _FailedError(RequesterRefusedError(_OUTSIDE)) from error
    except (PermissionMissingError, MorePowerError) as error:
        raise _FailedError(RequesterRefusedError(str(error))) from error


def _run(
    services: Services,
    session: Session,
    change: PendingChange,
    held: Mapping[str, object],
    facts: Mapping[str, str],
) -> Control:
    """Carry out a change in its transaction, unless it is an order; return its control."""
    control = Control(requester=change.requester, approved=Approved.of(change))
    if change.operation not in ORDERS:
        session.info[CONTROL] = control
        session.info[CONTEXT] = {**facts, "diff": change.diff}
        _carry_out(services, session, change, held)
    return control


def _require_permission(
    services: Services, session: Session, change: PendingChange, decider: Caller
) -> Limits:
    """Return the limits of the permission of the act, which the decider may have lost since."""
    if change.operation == APPLY:
        require_sections(services, change, decider)
        return UNLIMITED
    permission = PERMISSIONS_OF[change.operation]
    limits = authorise(decider, permission, now=services.corrected_clock())
    if not lies_within(session, change, limits):
        raise LimitedCallerError
    return limits


def _decide_and_order(
    services: Services,
    decision: Decision,
    act: Callable[[Services, Session], tuple[ChangeView, Control]],
    open_keys: OpenKeys,
) -> ChangeView:
    """Decide, and carry out the order of a change that is one."""
    try:
        change, control = _decide(services, decision, act)
        if change.operation in ORDERS:
            with open_keys(change.requested_by) as context:
                order = read_order(change.operation, change.arguments or {})
                approver = {"approved_by": decision.decider.actor}
                facts = {"change": change.id, **(approver if change.state == "approved" else {})}
                with recorded_with(facts):
                    apply_order(context, order, dry_run=decision.dry_run, control=control)
    except _FailedError as failed:
        _fail(services, decision, failed.cause)
        raise failed.cause from None
    except (KeysError, SettingsError, StaleChangeError) as error:
        # Of the settings: the keys cannot be opened here.
        _fail(services, decision, error)
        raise
    return change


def reject_change(services: Services, decision: Decision) -> ChangeView:
    """Reject a change.

    Raises:
        NotFoundError: there is none of that id.
        NotPermittedError: the decider requested it, and so withdraws it instead.
        ConflictError: it is settled.
    """

    def act(services: Services, session: Session) -> ChangeView:
        change = _lock(services, session, decision, PENDING)
        if is_requester(change, decision.decider):
            raise NotPermittedError("You requested the change yourself: withdraw it.")
        return _settle(services, session, change, "rejected", decision)

    return _decide(services, decision, act)


def withdraw_change(services: Services, decision: Decision) -> ChangeView:
    """Withdraw a change; the command line on the server can withdraw every change.

    Raises:
        NotFoundError: there is none of that id that the decider requested.
        ConflictError: it is settled.
    """

    def act(services: Services, session: Session) -> ChangeView:
        change = _lock(services, session, decision, PENDING, own=True)
        return _settle(services, session, change, "withdrawn", decision)

    return _decide(services, decision, act)


def confirm_change(services: Services, decision: Decision) -> ChangeView:
    """Confirm an act that was done without an approval.

    Raises:
        NotFoundError: there is none of that id.
        NotPermittedError: the decider did it, is its subject, or could not approve before it was
            done.
        LogInAgainError: the decider's log-in is older than the act.
        ConflictError: it does not wait for a confirmation.
    """

    def act(services: Services, session: Session) -> ChangeView:
        change = _lock(services, session, decision, UNCONFIRMED)
        require_second_person(services, session, change, decision.decider)
        return _settle(services, session, change, "confirmed", decision)

    return _decide(services, decision, act)


class _ExpiredError(Exception):
    """The time of the change has passed; its transaction is undone."""


class _FailedError(Exception):
    """The operation of an approved change was refused; its transaction is undone."""

    def __init__(self, cause: OperatorError) -> None:
        super().__init__(str(cause))
        self.cause = cause


def _lock(
    services: Services, session: Session, decision: Decision, expected: str, *, own: bool = False
) -> PendingChange:
    """Return the change, locked and in the expected state."""
    change_id = decision.change_id
    change = require_change(lock_change(session, change_id), change_id)
    if own:
        require_own(change, decision.decider)
    if change.state != expected:
        raise ConflictError(f"The change is {change.state}.")
    if change.expires_at is not None and change.expires_at <= services.corrected_clock():
        raise _ExpiredError
    return change


def _decide(services: Services, decision: Decision, act: Callable[[Services, Session], T]) -> T:
    require_reason(decision.reason)
    try:
        return run_together(services, act, dry_run=decision.dry_run)
    except _ExpiredError:
        pass
    with services.transaction() as session:
        change = lock_change(session, decision.change_id)
        if change is not None and change.state == PENDING:
            settle(session, change, "expired", actor=SERVER, at=services.corrected_clock())
    raise ConflictError("The change is expired.")


def _carry_out(
    services: Services, session: Session, change: PendingChange, held: Mapping[str, object]
) -> None:
    try:
        carry_out(services, session, change, held)
    except MorePowerError:
        # A second person may approve the change still.
        raise
    except OperatorError as error:
        raise _FailedError(error) from error


def _settle(
    services: Services, session: Session, change: PendingChange, state: str, decision: Decision
) -> ChangeView:
    decider, reason = decision.decider, decision.reason.strip()
    change.authenticated_at, change.groups = decider.authenticated_at, list(decider.groups)
    settle(
        session, change, state, actor=decider.actor, at=services.corrected_clock(), reason=reason
    )
    return describe_change(change)


def _fail(services: Services, decision: Decision, error: Exception) -> None:
    if decision.dry_run:
        return
    with services.transaction() as session:
        change = lock_change(session, decision.change_id)
        if change is not None and change.state in {PENDING, UNCONFIRMED, "approved"}:
            at, actor = services.corrected_clock(), decision.decider.actor
            settle(session, change, "failed", actor=actor, at=at, problem=str(error))
