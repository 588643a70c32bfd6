"""``keys move``: let another ring sign in the place of one."""

from datetime import datetime

import click

from authz_server.cli.commands import Command
from authz_server.cli.invocation import Invocation, pass_invocation
from authz_server.cli.keys.options import order_options, reason_option
from authz_server.cli.keys.orders import carry_out
from authz_server.cli.values import INSTANT
from keys.lifecycle.orders import Move


@click.command(
    "move",
    cls=Command,
    remote=True,
    example='authz-server keys move es256 --to vault-es256 --reason "to the Vault"',
)
@click.argument("ring")
@click.option("--to", "successor", required=True, help="The ring that is to sign instead.")
@click.option(
    "--at",
    type=INSTANT,
    show_default="as soon as verifiers surely know its key",
    help="The time at which the other ring begins to sign.",
)
@reason_option()
@order_options
@pass_invocation
def move(  # noqa: PLR0913, PLR0917 - one for each option
    invocation: Invocation,
    ring: str,
    successor: str,
    at: datetime | None,
    reason: str,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Let another ring sign in the place of RING.

    Another backend, Vault or algorithm is another ring: add it to the settings, `keys init` it, and
    move. Tokens that RING signed are accepted until they expire.
    """
    order = Move(ring, successor, reason, at=at)
    carry_out(invocation, order, dry_run=dry_run, as_json=as_json)
