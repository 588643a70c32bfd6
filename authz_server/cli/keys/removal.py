"""``keys prune``, ``destroy``: what no token needs any more."""

import click

from authz_server.cli.commands import Command
from authz_server.cli.invocation import Invocation, pass_invocation
from authz_server.cli.keys.composition import key_operations, require_ring
from authz_server.cli.keys.options import order_options, reason_option
from authz_server.cli.keys.outcomes import carry_out, describe_outcome, tell_outcome
from authz_server.cli.output import print_json


@click.command("prune", cls=Command)
@click.argument("ring", required=False)
@order_options
@pass_invocation
def prune(invocation: Invocation, ring: str | None, dry_run: bool, as_json: bool) -> None:
    """Take keys out of the JWKS whose last token has expired, even from a frozen ring.

    Of RING, else of every ring. With --json, a list with one outcome for each ring.
    """
    records = []
    with key_operations(invocation, "order", looking=dry_run) as operations:
        rings = [require_ring(operations, ring)] if ring else operations.rings()
        for each in rings:
            outcome = operations.rotator.prune(each.name, actor=invocation.actor, dry_run=dry_run)
            records.append(describe_outcome("prune", outcome, operations, dry_run=dry_run))
    if as_json:
        print_json(records)
    statuses = [tell_outcome(record, (), as_json=as_json) for record in records]
    click.get_current_context().exit(max(statuses, default=0))


@click.command("destroy", cls=Command)
@click.argument("ring")
@reason_option()
@order_options
@pass_invocation
def destroy(invocation: Invocation, ring: str, reason: str, dry_run: bool, as_json: bool) -> None:
    """Delete, for good, the private keys of RING that are older than every key in use."""
    carry_out(
        invocation,
        "destroy",
        lambda rotator, dry_run: rotator.destroy(
            ring, actor=invocation.actor, reason=reason, dry_run=dry_run
        ),
        dry_run=dry_run,
        as_json=as_json,
    )
