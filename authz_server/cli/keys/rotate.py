"""``keys rotate``: create the next key of a ring."""

import click

from authz_server.cli.commands import Command
from authz_server.cli.invocation import Invocation, pass_invocation
from authz_server.cli.keys.context import find_default_ring
from authz_server.cli.keys.options import order_options, reason_option, yes_option
from authz_server.cli.keys.orders import carry_out
from keys.lifecycle.orders import Rotate


@click.command(
    "rotate", cls=Command, remote=True, example="authz-server keys rotate es256 --dry-run"
)
@click.argument("ring", required=False)
@reason_option(default="rotation by order")
@click.option(
    "--key-encryption-key-lost",
    "is_lost",
    is_flag=True,
    help="Make it under the present key-encryption key, which opens no older key of the ring.",
)
@yes_option
@order_options
@pass_invocation
def rotate(  # noqa: PLR0913, PLR0917 - one for each option
    invocation: Invocation,
    ring: str | None,
    reason: str,
    is_lost: bool,
    yes: bool,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Create the next key of a ring.

    The present standby signs as soon as verifiers surely know it; the new key is the next standby.
    Without RING, the default ring is rotated; with --server, the only ring.
    """
    if is_lost:
        invocation.require_here("--key-encryption-key-lost")
    name = ring or find_default_ring(invocation)
    question = "" if yes else f"Rotate the ring {name}?"
    carry_out(
        invocation,
        Rotate(name, reason),
        dry_run=dry_run,
        as_json=as_json,
        question=question,
        abandon=is_lost,
    )
