"""Run an order of a command: ask first, print the result and exit with its status.

0: done, or nothing to do. 1: refused or failed, and nothing was changed. 2: the command line is
wrong. 3: done in part; the error stream names what is missing, and ticks continue to try it.
"""

import sys
from collections.abc import Iterator

import click

from authz_server.cli.invocation import Invocation
from authz_server.cli.keys.context import key_operations
from authz_server.cli.keys.order_text import result_lines
from authz_server.cli.output import as_record, echo_lines, echo_status, print_json
from authz_server.operations.keys.orders import apply_order
from authz_server.operations.keys.results import OrderResult
from keys.lifecycle.orders import Order

DONE_IN_PART = 3


def carry_out(  # noqa: PLR0913 - by name
    invocation: Invocation,
    order: Order,
    *,
    dry_run: bool,
    as_json: bool,
    question: str = "",
    abandon: bool = False,
) -> None:
    """Execute an order, print its result and exit with the status.

    Args:
        invocation: the run of the command line.
        order: the order.
        dry_run: only plan.
        as_json: print JSON.
        question: the question on a terminal, below the plan, before the change; empty: none.
        abandon: for a rotation: whether the key-encryption key of the older versions is lost.

    Raises:
        KeysError: the order was refused, or it failed without a change.
        click.Abort: the answer was no.
    """
    if question and not dry_run and sys.stdin.isatty():
        planned = _apply(invocation, order, dry_run=True, abandon=abandon)
        print_result(planned, as_json=False, err=True)
        click.confirm(question, abort=True, err=True)
    result = _apply(invocation, order, dry_run=dry_run, abandon=abandon)
    if as_json:
        print_json(as_record(result))
    click.get_current_context().exit(print_result(result, as_json=as_json))


def _apply(invocation: Invocation, order: Order, *, dry_run: bool, abandon: bool) -> OrderResult:
    with key_operations(invocation, "order", looking=dry_run) as carry_out:
        return carry_out(apply_order, order, dry_run=dry_run, abandon=abandon)


def print_result(result: OrderResult, *, as_json: bool, err: bool = False) -> int:
    """Print one result and return the exit status; after JSON, only failures are printed.

    Args:
        result: the result.
        as_json: True if it was printed as JSON.
        err: print everything to standard error.
    """
    if not as_json:
        echo_lines(result_lines(result), err=err)
    for line in _problems(result):
        echo_status(line)
    return DONE_IN_PART if result.failures else 0


def _problems(result: OrderResult) -> Iterator[str]:
    for alarm in result.alarms:
        yield f"ALARM {alarm.event} {alarm.subject}: {alarm.detail}"
    for failure in result.failures:
        yield f"NOT DONE {result.ring}: {failure}"
