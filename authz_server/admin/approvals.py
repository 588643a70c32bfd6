"""Acts of the admin API that need a second person: file them, or store them as ones to confirm."""

from dataclasses import dataclass, replace
from http import HTTPStatus
from typing import Any, Literal

import msgspec
from sqlalchemy.orm import Session

from authz_server.admin.calls import Call
from authz_server.admin.problems import Problem
from authz_server.admin.tags import tag_of
from authz_server.endpoints.responses import Answer, private_answer
from authz_server.operations.approvals import (
    Control,
    NotedAct,
    file_change,
    require_reason,
    store_done,
)
from authz_server.operations.changes import ChangeView, describe_change
from authz_server.operations.permissions import require_fresh


class Approval(msgspec.Struct, frozen=True, kw_only=True):
    """The member ``approval`` of the answer to an act that needs a second person.

    Attributes:
        acts: the acts of ``[approvals]`` that it is.
        state: ``pending`` if it waits for an approval, ``unconfirmed`` if it is done at once.
        changes: the ids of the changes to confirm; of a dry run, none.
    """

    acts: tuple[str, ...]
    state: Literal["pending", "unconfirmed"]
    changes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Filed(ChangeView):
    """The answer to an act that waits for an approval.

    Attributes:
        answer: the answer that the act would have; it has the secret that works once the change is
            approved. Null: the request is repeated.
        dry_run: false.
    """

    answer: dict[str, Any] | None
    dry_run: bool


@dataclass(eq=False)
class HeldBack(Exception):  # noqa: N818 - not an error
    """Ends the transaction of an act that waits for an approval.

    Attributes:
        act: the act.
        answer: the answer that it would have.
    """

    act: NotedAct
    answer: dict[str, Any]


def make_control(call: Call) -> Control:
    """Return the control of a call.

    Raises:
        Problem: ``refused``: ``break_glass`` is off.
        AuthenticationTooOldError: ``break_glass`` is used, after an old log-in of an operator.
        InvalidChangeError: a reason is malformed, or is missing with ``break_glass``.
    """
    query, settings = call.query, call.services.settings.approvals
    break_glass: bool = getattr(query, "break_glass", False)
    if break_glass and not settings.break_glass:
        raise Problem("refused", "break_glass is off in [approvals].")
    if break_glass:
        require_fresh(call.caller, now=call.services.corrected_clock())
    reason = getattr(query, "reason", "") or getattr(call.body, "reason", "")
    reason = require_reason(reason or "", needed=break_glass)
    return Control(
        requester=call.caller.key,
        groups=call.caller.groups,
        break_glass=break_glass,
        reason=reason,
    )


def settle_acts(
    call: Call, session: Session, diff: object, answer: dict[str, Any]
) -> dict[str, Any]:
    """Return the further members of the answer to a call.

    Args:
        call: the call, after its act.
        session: a transaction: that of the act, or one of an order, after it.
        diff: the diff of the act.
        answer: the answer to the call.

    Raises:
        HeldBack: the act waits for an approval.
        InvalidChangeError: several do.
    """
    control = call.control
    if control is None or not control.noted:
        return {}
    acts = tuple(dict.fromkeys(name for act in control.noted for name in act.acts))
    waiting = control.find_waiting()
    if call.dry_run:
        state: Literal["pending", "unconfirmed"] = "pending" if waiting else "unconfirmed"
        return {"approval": Approval(acts=acts, state=state)}
    if waiting is not None:
        raise HeldBack(replace(waiting, diff=diff), answer)
    done = [store_done(call.services, session, act, control) for act in control.noted]
    stored = Approval(acts=acts, state="unconfirmed", changes=tuple(each.id for each in done))
    return {"approval": stored}


def file_held(call: Call, session: Session, held: HeldBack) -> ChangeView:
    """Store a change that waits for its approval; return it.

    Args:
        call: the call.
        session: the transaction.
        held: its act.
    """
    if call.control is None:
        raise RuntimeError("only a call with a control is held back")
    return describe_change(file_change(call.services, session, held.act, call.control))


def answer_filed(
    prefix: str, filed: ChangeView, request_id: str, answer: dict[str, Any] | None = None
) -> Answer:
    """Return the response to an act that waits for an approval.

    Args:
        prefix: the path of the API.
        filed: the change.
        request_id: the id of the request.
        answer: the answer that the act would have; it has the secret that works once the change is
            approved. None: the request is repeated.
    """
    body = {**msgspec.to_builtins(filed), "answer": answer, "dry_run": False}
    headers = {"Location": f"{prefix}/changes/{filed.id}", "ETag": tag_of(filed)}
    return private_answer(body, request_id, status=HTTPStatus.ACCEPTED, headers=headers)
