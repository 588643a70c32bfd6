"""``keys freeze``, ``unfreeze``: hold a ring as it is."""

import click

from authz_server.cli.commands import Command
from authz_server.cli.invocation import Invocation, pass_invocation
from authz_server.cli.keys.options import order_options, reason_option
from authz_server.cli.keys.outcomes import carry_out


@click.command("freeze", cls=Command)
@click.argument("ring")
@reason_option()
@order_options
@pass_invocation
def freeze(invocation: Invocation, ring: str, reason: str, dry_run: bool, as_json: bool) -> None:
    """Hold a ring as it is: its key signs on, and nothing moves by itself."""
    carry_out(
        invocation,
        "freeze",
        lambda rotator, dry_run: rotator.freeze(
            ring, actor=invocation.actor, reason=reason, dry_run=dry_run
        ),
        dry_run=dry_run,
        as_json=as_json,
    )


@click.command("unfreeze", cls=Command)
@click.argument("ring")
@reason_option()
@order_options
@pass_invocation
def unfreeze(invocation: Invocation, ring: str, reason: str, dry_run: bool, as_json: bool) -> None:
    """Let a ring move again."""
    carry_out(
        invocation,
        "unfreeze",
        lambda rotator, dry_run: rotator.unfreeze(
            ring, actor=invocation.actor, reason=reason, dry_run=dry_run
        ),
        dry_run=dry_run,
        as_json=as_json,
    )
