"""Acts that need a second person: an operation notes them, and its caller decides what follows.

``[approvals]`` names the acts. The rule is that of the operation, so that every way in has it:

- A call of the admin API or the console runs the operation under a :class:`Control`. An act that
  waits for an approval is undone and filed as a pending change; an emergency, and an act with
  ``break_glass``, is stored with it as one to confirm.
- An approved change runs the operation again, under the control of what was approved.
- A command on the server has no control. Its acts are done, and stored as acts to confirm.
"""

import secrets as system_random
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any

import msgspec
from sqlalchemy.orm import Session

from authz_server.assembly import Services
from authz_server.audit.pending_changes import (
    BREAK_GLASS,
    MAXIMUM_REASON_CHARACTERS,
    MAXIMUM_SUBJECT_CHARACTERS,
    PENDING,
    UNCONFIRMED,
    PendingChange,
    count_waiting,
    record,
)
from authz_server.clients.secret_changes import PreparedSecret
from authz_server.errors import ConflictError, InvalidChangeError, OperatorError
from authz_server.settings.approvals import APPROVED_ACTS

#: The key of the control in ``session.info``.
CONTROL = "approval_control"
#: The number of changes of one requester that may wait.
MAXIMUM_WAITING = 200
#: The number of applications of declarative files among them: each holds its files.
MAXIMUM_WAITING_FILES = 10


class StaleChangeError(OperatorError):
    """The state on which an approved change rests was changed."""

    def __init__(self) -> None:
        super().__init__("What the change rests on was changed meanwhile: request it again.")


@dataclass(frozen=True, slots=True, kw_only=True)
class NotedAct:
    """An act of an operation that may need a second person.

    Attributes:
        acts: its names in ``[approvals]``.
        actor: the recorded actor.
        operation: the operation, a key of ``approved_acts.OPERATIONS``.
        arguments: its arguments, without a secret.
        subject: the kind and the id of the object.
        organisation: the organisation of the object; None: it concerns the whole server.
        resource_servers: the ids of the resource servers that it concerns.
        basis: the revision of the object before; empty: there was none.
        diff: the changed members with their values before and after.
        secret: the secret that it adds.
        files: the names and texts of the declarative files that it applies.
        reason: the reason, if the operation has one.
    """

    acts: tuple[str, ...]
    actor: str
    operation: str
    arguments: Mapping[str, Any]
    subject: str
    organisation: str | None = None
    resource_servers: tuple[str, ...] = ()
    basis: str = ""
    diff: Any = None
    secret: PreparedSecret | None = None
    files: tuple[Mapping[str, str], ...] = ()
    reason: str = ""

    @property
    def waits(self) -> bool:
        """Whether it is not an emergency alone."""
        return not APPROVED_ACTS.isdisjoint(self.acts)


@dataclass(frozen=True, slots=True)
class Approved:
    """The parts of an approved change that an operation is compared with.

    Attributes:
        acts: its acts.
        basis: the revision that it rests on.
        organisation: that of its object, as approvers with limits were found.
        resource_servers: those that it concerned, likewise.
    """

    acts: tuple[str, ...]
    basis: str
    organisation: str | None
    resource_servers: frozenset[str]

    @classmethod
    def of(cls, change: PendingChange) -> "Approved":
        """Return these parts of a stored change."""
        servers = frozenset(change.resource_servers)
        return cls(tuple(change.acts), change.basis, change.organisation, servers)

    def admits(self, act: NotedAct) -> bool:
        """Return whether an act is the one that was approved, of the same owners."""
        return (
            act.basis == self.basis
            and set(act.acts) <= set(self.acts)
            and act.organisation == self.organisation
            and self.resource_servers == frozenset(act.resource_servers)
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Control:
    """Decides on the acts of one call.

    Attributes:
        requester: the key of the caller.
        groups: the groups that gave the caller its roles; empty for others.
        break_glass: do at once what would wait.
        reason: the reason of the call.
        approved: the change that the call carries out; None: it carries out none.
        noted: the acts so far.
    """

    requester: str
    groups: tuple[str, ...] = ()
    break_glass: bool = False
    reason: str = ""
    approved: Approved | None = None
    noted: list[NotedAct] = field(default_factory=list)

    def note(self, act: NotedAct) -> None:
        """Note an act.

        Raises:
            StaleChangeError: it is not the act that was approved, or rests on another state.
        """
        if self.approved is None:
            self.noted.append(act)
        elif not self.approved.admits(act):
            raise StaleChangeError

    def holds_back(self, act: NotedAct) -> bool:
        """Return whether an act is to be filed instead of done."""
        return act.waits and not self.break_glass and self.approved is None

    def find_waiting(self) -> NotedAct | None:
        """Return the act to file instead of doing it.

        Raises:
            InvalidChangeError: there are several.
        """
        waiting = [act for act in self.noted if self.holds_back(act)]
        if len(waiting) > 1:
            raise InvalidChangeError("Several acts need an approval each: request them apart.")
        return waiting[0] if waiting else None


def find_required(services: Services, act: NotedAct) -> NotedAct | None:
    """Return an act with those of its names that ``[approvals]`` has; None if it has none."""
    required = tuple(name for name in act.acts if name in services.settings.approvals.acts)
    return replace(act, acts=required) if required else None


def note_act(services: Services, session: Session, act: NotedAct) -> None:
    """Note an act in the transaction of its operation.

    Args:
        services: the parts of the server.
        session: the transaction, after the changes of the operation.
        act: the act.

    Raises:
        StaleChangeError: an approved change cannot be carried out.
    """
    required = find_required(services, act)
    if required is None:
        return
    control: Control | None = session.info.get(CONTROL)
    if control is not None:
        control.note(required)
    else:
        store_done(services, session, required)


def store_done(
    services: Services, session: Session, act: NotedAct, control: Control | None = None
) -> PendingChange:
    """Store an act that is done without an approval, as one to confirm.

    Args:
        services: the parts of the server.
        session: the transaction.
        act: the act.
        control: that of the call; None: it is a command on the server.
    """
    if control is None:
        control = Control(requester=f"command:{identity_of(act.actor)}")
        kind = "command"
    else:
        kind = BREAK_GLASS if act.waits else "emergency"
    return _store(services, session, act, UNCONFIRMED, kind, control)


def file_change(
    services: Services, session: Session, act: NotedAct, control: Control
) -> PendingChange:
    """Store an act that waits for an approval.

    Args:
        services: the parts of the server.
        session: the transaction.
        act: the act.
        control: that of the call.

    Raises:
        ConflictError: too many changes of the requester wait.
    """
    _require_room(session, act, control)
    return _store(services, session, act, PENDING, "approval", control)


def _require_room(session: Session, act: NotedAct, control: Control) -> None:
    limits: list[tuple[int, str, tuple[str, ...]]] = [(MAXIMUM_WAITING, "changes", ())]
    if act.files:
        limits.append((MAXIMUM_WAITING_FILES, "applications of files", (act.operation,)))
    for limit, noun, operations in limits:
        if count_waiting(session, control.requester, operations) >= limit:
            raise ConflictError(
                f"{limit} {noun} of yours wait for an approval: withdraw some, or have them"
                " decided."
            )


def identity_of(actor: str) -> str:
    """Return a recorded actor without the way by which it came in."""
    return actor.partition(" via ")[0]


def require_reason(reason: str, *, needed: bool = False) -> str:
    """Return a reason without white space around it.

    Raises:
        InvalidChangeError: it is too long, not printable, or needed and missing.
    """
    text = reason.strip()
    if not text.isprintable() or len(text) > MAXIMUM_REASON_CHARACTERS or (needed and not text):
        least = 1 if needed else 0
        raise InvalidChangeError(
            f"reason: use {least} to {MAXIMUM_REASON_CHARACTERS} printable characters"
        )
    return text


def _store(  # noqa: PLR0913, PLR0917 - the facts of a row
    services: Services, session: Session, act: NotedAct, state: str, kind: str, control: Control
) -> PendingChange:
    now: datetime = services.corrected_clock()
    waits = state == PENDING
    hours = services.settings.approvals.lifetime_hours
    change = PendingChange(
        id=system_random.token_hex(8),
        state=state,
        kind=kind,
        acts=list(act.acts),
        subject=act.subject[:MAXIMUM_SUBJECT_CHARACTERS],
        organisation=act.organisation,
        resource_servers=list(act.resource_servers),
        operation=act.operation,
        arguments=_plain(act.arguments),
        diff=_plain(act.diff),
        basis=act.basis,
        secret_id=act.secret.id if waits and act.secret else None,
        secret_record=act.secret.record if waits and act.secret else None,
        files=list(act.files) if waits and act.files else None,
        reason=require_reason(control.reason or act.reason),
        requested_by=act.actor,
        requester=control.requester,
        requester_groups=list(control.groups),
        requested_at=now,
        expires_at=now + timedelta(hours=hours) if waits else None,
        decision_reason="",
        groups=[],
        problem="",
    )
    session.add(change)
    record(
        session,
        change,
        "requested" if waits else "carried_out",
        actor=act.actor,
        at=now,
        reason=change.reason,
    )
    return change


def _plain(value: object) -> Any:  # noqa: ANN401 - any JSON
    return msgspec.json.decode(msgspec.json.encode(value))
