"""Changes that need a second person: list, show and decide on them."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from authz_server.admin.calls import Call, Reply
from authz_server.admin.pages import PageQuery
from authz_server.assembly import Services
from authz_server.operations.change_decisions import (
    Decision,
    OpenKeys,
    approve_change,
    break_the_glass,
    confirm_change,
    reject_change,
    withdraw_change,
)
from authz_server.operations.changes import (
    ChangeFilters,
    ChangeView,
    get_change,
    list_changes,
)
from authz_server.operations.keys.context import KeyContext

State = Literal[
    "pending",
    "approved",
    "rejected",
    "withdrawn",
    "expired",
    "failed",
    "unconfirmed",
    "confirmed",
]


class ChangesQuery(PageQuery, frozen=True, kw_only=True):
    """The parameters of the list of changes.

    Attributes:
        state: their state.
        actor: the whole actor that requested them.
    """

    state: State | None = None
    actor: Annotated[str, Meta(max_length=300)] | None = None


class DecisionBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A decision.

    Attributes:
        reason: the recorded reason.
    """

    reason: Annotated[str, Meta(max_length=500)] = ""


def list_all(call: Call) -> Reply:
    """Answer a page of changes that need a second person, newest first."""
    query: ChangesQuery = call.query
    after: str | None = call.after()
    states = () if query.state is None else (query.state,)
    found = list_changes(
        call.services,
        ChangeFilters(states=states, actor=query.actor),
        after=None if after is None else (after.split(" ")[0], after.split(" ")[1]),
        limit=query.most + 1,
    )
    return call.page(found, lambda change: f"{change.requested_at.isoformat()} {change.id}")


def load(call: Call) -> ChangeView:
    """Return the change that the path names."""
    return get_change(call.services, call.parameters["change_id"])


def load_own(call: Call) -> ChangeView:
    """Return the change of the path, which the caller requested."""
    return get_change(call.services, call.parameters["change_id"], requester=call.caller)


def show(call: Call) -> Reply:
    """Answer a change."""
    return Reply(load(call))


def approve(call: Call) -> Reply:
    """Approve a change, and carry it out."""
    return _decide(call, partial(approve_change, open_keys=_opener(call)))


def break_glass(call: Call) -> Reply:
    """Carry out at once a change that the caller requested; a second person confirms it."""
    return _decide(call, partial(break_the_glass, open_keys=_opener(call)))


def reject(call: Call) -> Reply:
    """Reject a change."""
    return _decide(call, reject_change)


def withdraw(call: Call) -> Reply:
    """Withdraw a change that the caller requested."""
    return _decide(call, withdraw_change)


def confirm(call: Call) -> Reply:
    """Confirm an act that was done without an approval."""
    return _decide(call, confirm_change)


def _opener(call: Call) -> OpenKeys:
    """Return what opens the context of an order of an approved change."""

    @contextmanager
    def open_keys(actor: str) -> Iterator[KeyContext]:
        yield call.parts.keys.open(actor, looking=call.dry_run)

    return open_keys


def _decide(call: Call, decide: Callable[[Services, Decision], ChangeView]) -> Reply:
    decision = Decision(
        change_id=call.parameters["change_id"],
        decider=call.caller,
        reason=call.body.reason,
        dry_run=call.dry_run,
    )
    # The change was found within the limits of the caller, who is not its requester.
    decided = decide(call.parts.services, decision)
    if not call.dry_run:
        call.services.key_rings.refresh()
        call.services.feed.poll()
    return Reply(decided, diff=decided.diff)
