"""``keys destroy``: delete old private keys permanently."""

import click

from authz_server.cli.commands import Command
from authz_server.cli.invocation import Invocation, pass_invocation
from authz_server.cli.keys.options import order_options, reason_option, yes_option
from authz_server.cli.keys.orders import carry_out
from keys.lifecycle.orders import Destroy


@click.command(
    "destroy",
    cls=Command,
    remote=True,
    example='authz-server keys destroy es256 --reason "the yearly purge" --dry-run',
)
@click.argument("ring")
@reason_option()
@yes_option
@order_options
@pass_invocation
def destroy(  # noqa: PLR0913, PLR0917 - one for each option
    invocation: Invocation, ring: str, reason: str, yes: bool, dry_run: bool, as_json: bool
) -> None:
    """Delete old private keys permanently.

    The backend deletes those of RING that are older than every key in use.
    """
    question = "" if yes else f"Delete old private keys of the ring {ring} permanently?"
    order = Destroy(ring, reason)
    carry_out(invocation, order, dry_run=dry_run, as_json=as_json, question=question)
