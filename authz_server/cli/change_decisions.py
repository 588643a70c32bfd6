"""``changes approve`` and the other decisions on changes that need a second person."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import Any

import click

from authz_server.cli.commands import Command
from authz_server.cli.invocation import Invocation, pass_invocation
from authz_server.cli.output import as_record, json_option, print_change
from authz_server.operations.approvals import identity_of
from authz_server.operations.change_decisions import (
    Decision,
    approve_change,
    break_the_glass,
    confirm_change,
    reject_change,
    withdraw_change,
)
from authz_server.operations.changes import ChangeView
from authz_server.operations.keys.context import KeyContext
from authz_server.operations.permissions import Caller


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


approve = _decide(
    "approve",
    "Approve a change, and carry it out.",
    "Another person than the requester approves it. If what it rests on was changed"
    " meanwhile, nothing is changed, and the change has failed.",
    approve_change,
    "approved",
)
reject = _decide(
    "reject",
    "Reject a change.",
    "Another person than the requester rejects it; the requester withdraws it.",
    reject_change,
    "rejected",
)
withdraw = _decide(
    "withdraw",
    "Withdraw a change.",
    "The command line on the server withdraws the change of any requester, and the record"
    " names who did.",
    withdraw_change,
    "withdrawn",
)
break_glass = _decide(
    "break-glass",
    "Carry out at once a change that waits.",
    "Its requester does so, with a reason, and a second person confirms it afterwards. The"
    " command line on the server carries out the change of any requester.",
    break_the_glass,
    "carried out, and waits for a confirmation",
)
confirm = _decide(
    "confirm",
    "Confirm an act that was done without an approval.",
    "These are emergencies, acts with break_glass, and acts of the command line on the"
    " server that approvals.acts names. Another person confirms them.",
    confirm_change,
    "confirmed",
)
