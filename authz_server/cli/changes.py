"""``changes``: list and decide on changes that need a second person."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import Any

import click

from authz_server.cli.commands import Command, Commands, add_all
from authz_server.cli.invocation import Invocation, pass_invocation
from authz_server.cli.output import (
    as_record,
    echo_lines,
    json_option,
    plain_value,
    print_change,
    print_json,
    print_record,
    print_rows,
)
from authz_server.operations.approvals import identity_of
from authz_server.operations.change_decisions import (
    Decision,
    approve_change,
    break_the_glass,
    confirm_change,
    reject_change,
    withdraw_change,
)
from authz_server.operations.changes import ChangeFilters, ChangeView, get_change, list_changes
from authz_server.operations.keys.context import KeyContext
from authz_server.operations.permissions import Caller

_WAITING = ("pending", "unconfirmed")
_COLUMNS = {
    "id": "Id",
    "state": "State",
    "kind": "Kind",
    "acts": "Acts",
    "subject": "Subject",
    "requested_by": "Requested by",
    "requested_at": "Requested at",
    "expires_at": "Until",
}
_NARROW = {"id": "Id", "state": "State", "acts": "Acts", "subject": "Subject"}


@click.command("list", cls=Command, remote=True, example="authz-server changes list")
@click.option("--all", "everything", is_flag=True, help="List settled changes too.")
@json_option
@pass_invocation
def list_(invocation: Invocation, everything: bool, as_json: bool) -> None:
    """List the changes that wait for a second person.

    A pending change waits for an approval. An unconfirmed one was done without an approval, and
    waits for a confirmation. The newest comes first.
    """
    filters = ChangeFilters(states=() if everything else _WAITING)
    with invocation.operations() as carry_out:
        rows = carry_out(list_changes, filters)
    print_rows(rows, _COLUMNS, as_json=as_json, narrow=_NARROW)


@click.command(
    "show", cls=Command, remote=True, example="authz-server changes show 5f2c9d0a71b3e864"
)
@click.argument("id")
@json_option
@pass_invocation
def show(invocation: Invocation, id: str, as_json: bool) -> None:  # noqa: A002
    """Show a change with its diff.

    The diff has the values before and after. The arguments are those of the operation that the
    approval carries out.
    """
    with invocation.operations() as carry_out:
        change = carry_out(get_change, id)
    record = dict(as_record(change))
    if as_json:
        print_json(record)
        return
    diff = record.pop("diff")
    print_record(record, as_json=False)
    echo_lines(_diff_lines(diff))


def _decide(
    name: str, synopsis: str, paragraph: str, decide: Callable[..., ChangeView], done: str
) -> click.Command:
    """Return the command of a decision."""
    demanded: dict[str, Any] = {"required": True} if decide is break_the_glass else {"default": ""}
    reason_option = click.option("--reason", help="The reason, for the audit record.", **demanded)

    @click.command(
        name,
        cls=Command,
        remote=True,
        help=f"{synopsis}\n\n{paragraph}",
        example=f'authz-server changes {name} 5f2c9d0a71b3e864 --reason "INC-17"',
    )
    @click.argument("id")
    @reason_option
    @json_option
    @pass_invocation
    def command(invocation: Invocation, id: str, reason: str, as_json: bool) -> None:  # noqa: A002
        decision = Decision(change_id=id, decider=_caller(invocation), reason=reason)
        with invocation.operations() as carry_out:
            decided = (
                carry_out(decide, decision, partial(_open_keys, invocation))
                if decide in {approve_change, break_the_glass}
                else carry_out(decide, decision)
            )
        sentence = f"The change {decided.id} is {done}."
        print_change(as_record(decided), sentence, as_json=as_json)

    return command


@contextmanager
def _open_keys(invocation: Invocation, actor: str) -> Iterator[KeyContext]:
    # Only an order on keys opens the backends.
    from authz_server.cli.keys.context import key_context  # noqa: PLC0415

    with key_context(replace(invocation, actor=actor), "order") as context:
        yield context


def _caller(invocation: Invocation) -> Caller:
    name = identity_of(invocation.actor).removeprefix("operator:")
    return Caller(name=name, kind="command", way="cli", grants=())


def _diff_lines(diff: Any) -> Iterator[str]:  # noqa: ANN401 - any JSON
    if not isinstance(diff, dict):
        diff = {"changes": {"before": None, "after": diff}}
    for name, values in diff.items():
        if isinstance(values, dict) and values.keys() == {"before", "after"}:
            yield f"{name}:"
            yield f"  - {_in_text(values['before'])}"
            yield f"  + {_in_text(values['after'])}"
        else:
            yield f"{name}: {_in_text(values)}"


def _in_text(value: object) -> str:
    if value in (None, "", []):
        return "none"
    return value if isinstance(value, str) else json.dumps(value, default=plain_value)


changes = add_all(
    Commands("changes", help="Approve changes that need a second person."),
    [
        list_,
        show,
        _decide(
            "approve",
            "Approve a change, and carry it out.",
            "Another person than the requester approves it. If what it rests on was changed"
            " meanwhile, nothing is changed, and the change has failed.",
            approve_change,
            "approved",
        ),
        _decide(
            "reject",
            "Reject a change.",
            "Another person than the requester rejects it; the requester withdraws it.",
            reject_change,
            "rejected",
        ),
        _decide(
            "withdraw",
            "Withdraw a change.",
            "The command line on the server withdraws the change of any requester, and the record"
            " names who did.",
            withdraw_change,
            "withdrawn",
        ),
        _decide(
            "break-glass",
            "Carry out at once a change that waits.",
            "Its requester does so, with a reason, and a second person confirms it afterwards. The"
            " command line on the server carries out the change of any requester.",
            break_the_glass,
            "carried out, and waits for a confirmation",
        ),
        _decide(
            "confirm",
            "Confirm an act that was done without an approval.",
            "These are emergencies, acts with break_glass, and acts of the command line on the"
            " server that approvals.acts names. Another person confirms them.",
            confirm_change,
            "confirmed",
        ),
    ],
)
