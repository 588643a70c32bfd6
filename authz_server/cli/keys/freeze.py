"""``keys freeze``: stop the scheduled changes of a ring."""

import click

from authz_server.cli.commands import Command
from authz_server.cli.invocation import Invocation, pass_invocation
from authz_server.cli.keys.options import order_options, reason_option
from authz_server.cli.keys.orders import carry_out
from keys.lifecycle.orders import Freeze


@click.command(
    "freeze", cls=Command, remote=True, example='authz-server keys freeze es256 --reason "an audit"'
)
@click.argument("ring")
@reason_option()
@order_options
@pass_invocation
def freeze(invocation: Invocation, ring: str, reason: str, dry_run: bool, as_json: bool) -> None:
    """Stop the scheduled changes of a ring.

    Its key continues to sign. Nothing changes by itself until `keys unfreeze`.
    """
    carry_out(invocation, Freeze(ring, reason), dry_run=dry_run, as_json=as_json)
