"""The requests for changes that need a second person."""

from collections.abc import Callable
from typing import Any

from authz_server.cli.remote.api import AdminApi, convert
from authz_server.cli.remote.table import carries_out
from authz_server.operations.change_decisions import (
    Decision,
    approve_change,
    break_the_glass,
    confirm_change,
    reject_change,
    withdraw_change,
)
from authz_server.operations.changes import ChangeFilters, ChangeView, get_change, list_changes

_READ = "changes:read"


@carries_out(list_changes)
def _list_changes(
    api: AdminApi,
    filters: ChangeFilters,
    **page: Any,  # noqa: ANN401 - of the operation; commands list all
) -> tuple[ChangeView, ...]:
    del page
    found = [
        change
        for state in filters.states or (None,)
        for change in api.list(ChangeView, _READ, "changes", state=state, actor=filters.actor)
    ]
    found.sort(key=lambda change: (change.requested_at, change.id), reverse=True)
    return tuple(found)


@carries_out(get_change)
def _get_change(
    api: AdminApi,
    change_id: str,
    **requester: Any,  # noqa: ANN401 - of the operation; the server knows the caller
) -> ChangeView:
    del requester
    return api.read(ChangeView, _READ, "changes", change_id)


def _decide(api: AdminApi, verb: str, decision: Decision) -> ChangeView:
    item = ("changes", decision.change_id)
    # Every caller decides on its own changes.
    permission = _READ if verb in {"withdraw", "break-glass"} else "changes:approve"
    body = {"reason": decision.reason}
    answer = api.change("POST", permission, *item, verb, item=item, body=body)
    return convert(answer, ChangeView)


@carries_out(approve_change)
def _approve_change(api: AdminApi, decision: Decision, open_keys: Callable[..., Any]) -> ChangeView:
    del open_keys
    return _decide(api, "approve", decision)


@carries_out(reject_change)
def _reject_change(api: AdminApi, decision: Decision) -> ChangeView:
    return _decide(api, "reject", decision)


@carries_out(withdraw_change)
def _withdraw_change(api: AdminApi, decision: Decision) -> ChangeView:
    return _decide(api, "withdraw", decision)


@carries_out(break_the_glass)
def _break_the_glass(
    api: AdminApi, decision: Decision, open_keys: Callable[..., Any]
) -> ChangeView:
    del open_keys
    return _decide(api, "break-glass", decision)


@carries_out(confirm_change)
def _confirm_change(api: AdminApi, decision: Decision) -> ChangeView:
    return _decide(api, "confirm", decision)
