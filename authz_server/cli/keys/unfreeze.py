"""``keys unfreeze``: resume the scheduled changes of a ring."""

import click

from authz_server.cli.commands import Command
from authz_server.cli.invocation import Invocation, pass_invocation
from authz_server.cli.keys.options import order_options, reason_option
from authz_server.cli.keys.orders import carry_out
from keys.lifecycle.orders import Unfreeze


@click.command(
    "unfreeze",
    cls=Command,
    remote=True,
    example='authz-server keys unfreeze es256 --reason "it is over"',
)
@click.argument("ring")
@reason_option()
@order_options
@pass_invocation
def unfreeze(invocation: Invocation, ring: str, reason: str, dry_run: bool, as_json: bool) -> None:
    """Resume the scheduled changes of a ring.

    Changes that became due meanwhile are planned at once.
    """
    carry_out(invocation, Unfreeze(ring, reason), dry_run=dry_run, as_json=as_json)
