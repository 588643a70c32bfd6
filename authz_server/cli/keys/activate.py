"""``keys activate``: let a published key sign, now or later."""

from datetime import datetime

import click

from authz_server.cli.commands import Command
from authz_server.cli.invocation import Invocation, pass_invocation
from authz_server.cli.keys.context import resolve_kid
from authz_server.cli.keys.options import TAKES_KEY_ID, order_options, reason_option
from authz_server.cli.keys.orders import carry_out
from authz_server.cli.values import INSTANT
from keys.lifecycle.orders import Activate


@click.command(
    "activate",
    cls=Command,
    remote=True,
    context_settings=TAKES_KEY_ID,
    example='authz-server keys activate es256 --at 2030-01-31 --reason "as planned"',
)
@click.argument("kid")
@click.option(
    "--at", type=INSTANT, show_default="now", help="The time at which the key begins to sign."
)
@click.option(
    "--emergency",
    is_flag=True,
    help="Do it before all verifiers know the key: some will refuse it.",
)
@reason_option()
@order_options
@pass_invocation
def activate(  # noqa: PLR0913, PLR0917 - one for each option
    invocation: Invocation,
    kid: str,
    at: datetime | None,
    emergency: bool,
    reason: str,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Let a published key sign, now or later.

    KID is the key's id, the beginning of it, RING:VERSION, or a ring, which stands for its standby.
    """
    kid = resolve_kid(invocation, kid, standby=True)
    order = Activate(kid, reason, at=at, emergency=emergency)
    carry_out(invocation, order, dry_run=dry_run, as_json=as_json)
