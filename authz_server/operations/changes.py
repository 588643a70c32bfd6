"""List and show changes that need a second person."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

import msgspec
from sqlalchemy import ColumnElement, Text, and_, case, cast, func, or_, select
from sqlalchemy.orm import InstrumentedAttribute, defer

from authz_server.assembly import Services
from authz_server.audit.pending_changes import PendingChange
from authz_server.errors import NotFoundError
from authz_server.operations.approvals import identity_of
from authz_server.operations.permissions import Caller

# Of the arguments and of the diff of each change: a page has up to 500 changes.
_MAXIMUM_LISTED_CHARACTERS = 16_384


@dataclass(frozen=True, slots=True, kw_only=True)
class ChangeView:
    """A change that needs a second person.

    Attributes:
        id: its id.
        state: ``pending``, ``approved``, ``rejected``, ``withdrawn``, ``expired`` or ``failed``; of
            an act that was done without an approval, ``unconfirmed`` or ``confirmed``.
        kind: ``approval``, or why it was done without one: ``emergency``, ``break_glass`` or
            ``command``.
        acts: the acts of ``[approvals]`` that it is.
        subject: the kind and the id of the object.
        operation: the operation.
        arguments: its arguments; of files, their names, digests and sizes. None in a list if they
            have more than 16,384 characters.
        diff: the changed members with their values before and after; None in a list likewise.
        reason: the reason of the request.
        requested_by: who requested it, and which way.
        expires_at: the time until which it can be approved; None: it does not wait for that.
        decided_by: who settled it, and which way.
        authenticated_at: the log-in of the operator who settled it.
        groups: the groups that gave that operator its roles.
        problem: why an approved change could not be carried out.
    """

    id: str
    state: str
    kind: str
    acts: tuple[str, ...]
    subject: str
    operation: str
    arguments: dict[str, Any] | None
    diff: Any
    reason: str
    requested_by: str
    requested_at: datetime
    expires_at: datetime | None
    decided_by: str | None
    decided_at: datetime | None
    decision_reason: str
    authenticated_at: datetime | None
    groups: tuple[str, ...]
    problem: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ChangeFilters:
    """The changes to list.

    Attributes:
        states: their states; empty: all.
        actor: the whole actor that requested them; None: any.
    """

    states: tuple[str, ...] = ()
    actor: str | None = None


def list_changes(
    services: Services,
    filters: ChangeFilters,
    *,
    after: tuple[str, str] | None = None,
    limit: int | None = None,
) -> tuple[ChangeView, ...]:
    """Return changes, newest first.

    Args:
        services: the parts of the server.
        filters: the changes to list.
        after: the time and the id of the last change of the page before.
        limit: the largest number of changes; None: all.
    """
    newest = (PendingChange.requested_at.desc(), PendingChange.id.desc())
    arguments, diff = _unless_long(PendingChange.arguments), _unless_long(PendingChange.diff)
    query = select(PendingChange, arguments, diff).order_by(*newest)
    query = query.options(defer(PendingChange.arguments), defer(PendingChange.diff))
    if filters.states:
        query = query.where(PendingChange.state.in_(filters.states))
    if filters.actor is not None:
        query = query.where(PendingChange.requested_by == filters.actor)
    if after is not None:
        at, last = datetime.fromisoformat(after[0]), after[1]
        same = and_(PendingChange.requested_at == at, PendingChange.id < last)
        query = query.where(or_(PendingChange.requested_at < at, same))
    with services.database.reading() as session:
        return tuple(
            _describe(change, _decoded(first), _decoded(second))
            for change, first, second in session.execute(query.limit(limit))
        )


def get_change(
    services: Services, change_id: str, *, requester: Caller | None = None
) -> ChangeView:
    """Return a change.

    Args:
        services: the parts of the server.
        change_id: its id.
        requester: who requested it; None: any caller.

    Raises:
        NotFoundError: there is none of that id.
    """
    with services.database.reading() as session:
        change = require_change(session.get(PendingChange, change_id), change_id)
        if requester is not None:
            require_own(change, requester)
        return describe_change(change)


def describe_change(change: PendingChange) -> ChangeView:
    """Return the view of a stored change."""
    return _describe(change, dict(change.arguments), change.diff)


def _unless_long(column: InstrumentedAttribute[Any]) -> ColumnElement[str | None]:
    """Return the text of a column of JSON; null if a list leaves it out."""
    written = cast(column, Text)
    return case((func.length(written) <= _MAXIMUM_LISTED_CHARACTERS, written), else_=None)


def _decoded(text: str | None) -> Any:  # noqa: ANN401 - any JSON
    return None if text is None else msgspec.json.decode(text)


def _describe(
    change: PendingChange,
    arguments: dict[str, Any] | None,
    diff: Any,  # noqa: ANN401 - any JSON
) -> ChangeView:
    return ChangeView(
        id=change.id,
        state=change.state,
        kind=change.kind,
        acts=tuple(change.acts),
        subject=change.subject,
        operation=change.operation,
        arguments=arguments,
        diff=diff,
        reason=change.reason,
        requested_by=change.requested_by,
        requested_at=change.requested_at,
        expires_at=change.expires_at,
        decided_by=change.decided_by,
        decided_at=change.decided_at,
        decision_reason=change.decision_reason,
        authenticated_at=change.authenticated_at,
        groups=tuple(change.groups),
        problem=change.problem,
    )


def require_change(change: PendingChange | None, change_id: str) -> PendingChange:
    """Return a change that was looked up; NotFoundError if there is none."""
    if change is None:
        raise _no_change(change_id)
    return change


def require_own(change: PendingChange, caller: Caller) -> None:
    """Require that the caller requested a change; the command line on the server has every one.

    Raises:
        NotFoundError: another caller did.
    """
    if caller.kind != "command" and not is_requester(change, caller):
        raise _no_change(change.id)


def _no_change(change_id: str) -> NotFoundError:
    return NotFoundError(
        f"There is no change {change_id!r}. `authz-server changes list --all` shows them."
    )


def is_requester(change: PendingChange, caller: Caller) -> bool:
    """Return whether the caller requested a change, by whichever way."""
    if "command" in {caller.kind, change.requester.partition(":")[0]}:
        # The command line knows a name alone.
        return identity_of(change.requested_by) == identity_of(caller.actor)
    return change.requester == caller.key
